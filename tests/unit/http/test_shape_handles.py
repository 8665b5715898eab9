"""A handle tells one history of a document from every other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ydoc_store.errors import InvalidRequest
from ydoc_store.http.shape_handles import Handle, Held
from ydoc_store.storage.incarnation import Incarnation

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
DATABASE = Incarnation(7_000_000_000_000_000_000, 1, MOMENT, 5, 16_385, UUID(int=1), MOMENT)
NOW = Handle.of(3, 2**53 - 7, DATABASE)


def test_a_handle_comes_back_as_it_was_given() -> None:
    assert Handle.parse(str(NOW)) == NOW
    assert NOW.beside(Handle.of(3, 2**53 - 7, replace(DATABASE))) is Held.CURRENT


@pytest.mark.parametrize(
    "text", ["", "1", "1-2", "1-2-xyz", "-1-2-0123456789abcdef", "1-2-0123456789abcdef\n", "٣-2-0123456789abcdef"]
)
def test_what_was_never_a_handle_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="handle"):
        Handle.parse(text)


def test_another_marker_is_another_history_whatever_the_database() -> None:
    assert NOW.beside(Handle.of(4, 2**53 - 8, DATABASE)) is Held.ANOTHER
    assert NOW.beside(Handle.of(1, 2**53 - 8, replace(DATABASE, timeline=2))) is Held.ANOTHER
    assert NOW.beside(Handle.of(0, None, DATABASE)) is Held.ANOTHER, "it was purged"


@pytest.mark.parametrize(
    "changed",
    [
        {"timeline": 2},
        {"system_identifier": 1},
        {"started_at": MOMENT + timedelta(seconds=1)},
        {"database_oid": 6},
        {"table_oid": 7},
        {"bump": UUID(int=2)},
    ],
)
def test_a_database_that_may_be_another_makes_a_handle_of_the_same_epoch_stale(changed: dict[str, object]) -> None:
    now = Handle.of(3, 2**53 - 7, replace(DATABASE, **changed))  # type: ignore[arg-type] # each is its field's
    assert NOW.beside(now) is Held.STALE


def test_who_was_told_that_nothing_is_there_holds_nothing() -> None:
    nothing = Handle.of(0, None, DATABASE)
    assert Handle.parse(str(nothing)) == nothing
    assert nothing.beside(nothing) is Held.CURRENT
    assert nothing.beside(Handle.of(1, 2**53 - 7, DATABASE)) is Held.NOTHING
    assert nothing.beside(NOW) is Held.ANOTHER, "it may have written to an epoch before, and holds what it wrote"
