from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ydoc_store.auth.access import Access, Granted
from ydoc_store.auth.revocations import Revocations
from ydoc_store.errors import Unauthenticated
from ydoc_store.storage.revocations import Kind, Revocation

MOMENT_S = 1_000_000.0


def revoked(kind: Kind, value: str, tenant: str = "acme", before_s: float = MOMENT_S) -> Revocation:
    moment = datetime.fromtimestamp(before_s, UTC)
    return Revocation(1, tenant, kind, value, moment, moment)


def granted(issued_at_s: float | None, tenant: str = "acme", actor: str | None = "ann") -> Granted:
    return Granted(tenant, actor, Access.WRITE, issued_at_s=issued_at_s)


@pytest.mark.parametrize("one", [revoked("user", "ann"), revoked("document", "notes"), revoked("tenant", "")])
def test_a_token_from_before_is_refused_and_a_newer_one_is_not(one: Revocation) -> None:
    revocations = Revocations()
    revocations.take([one])
    revocations.judge(granted(MOMENT_S), "notes")
    for issued_at_s in (MOMENT_S - 1, None):
        with pytest.raises(Unauthenticated, match="revoked"):
            revocations.judge(granted(issued_at_s), "notes")


@pytest.mark.parametrize(
    "one",
    [
        revoked("user", "ben"),
        revoked("document", "other"),
        revoked("tenant", "", "other"),
        revoked("user", "ann", "other"),
    ],
)
def test_others_are_left_alone(one: Revocation) -> None:
    revocations = Revocations()
    revocations.take([one])
    revocations.judge(granted(None), "notes")


def test_the_latest_of_several_counts_and_a_removed_one_does_not() -> None:
    revocations = Revocations()
    revocations.take([revoked("user", "ann", before_s=MOMENT_S + 50), revoked("user", "ann")])
    with pytest.raises(Unauthenticated):
        revocations.judge(granted(MOMENT_S + 1), "notes")
    revocations.take([])
    revocations.judge(granted(MOMENT_S + 1), "notes")


def test_only_news_is_told() -> None:
    revocations = Revocations()
    told: list[int] = []
    revocations.changed = lambda: told.append(1)
    revocations.take([revoked("user", "ann")])
    revocations.take([revoked("user", "ann")])
    revocations.take([])
    assert len(told) == 1
    revocations.take([revoked("user", "ann")])
    assert len(told) == 2
