"""An open server answers its own machine, and says how to change that."""

from __future__ import annotations

import pytest

from ydoc_store.auth.open_mode import Allowed, Refused, check_bind, refusal
from ydoc_store.errors import SettingInvalid

LOCAL = ("Host", "localhost:1234")
CLOSE_REASON_BYTES_MAX = 123


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "app.localhost"])
def test_a_loopback_address_may_be_listened_on(host: str) -> None:
    check_bind(host, has_identities=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "example.com", "::ffff:127.0.0.1"])
def test_any_other_address_is_refused_until_somebody_decides_who_may(host: str) -> None:
    with pytest.raises(SettingInvalid, match="YDOC_JWT_SECRET"):
        check_bind(host, has_identities=False)
    check_bind(host, has_identities=True)


@pytest.mark.parametrize(
    "headers",
    [
        [LOCAL],
        [("host", "127.0.0.1")],
        [("HOST", "[::1]:8080")],
        [LOCAL, ("Origin", "http://localhost:3000")],
        [LOCAL, ("origin", "https://app.localhost")],
        [LOCAL, ("Origin", "http://127.0.0.1:5173"), ("X-Real-Header", "x")],
        [("Host", "LOCALHOST.:1234")],
    ],
)
def test_this_machine_is_answered(headers: list[tuple[str, str]]) -> None:
    assert refusal(headers) == Allowed()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "example.com")],
        [("Host", "")],
        [("Host", "127.0.0.1.example.com")],
        [("Host", "localhost.example.com")],
        [("Host", "127.1")],
        [("Host", "[::ffff:127.0.0.1]")],
        [("Host", "[127.0.0.1]")],
        [("Host", "localhost@example.com")],
        [("Host", "localhost:80:80")],
        [LOCAL, ("Host", "example.com")],
        [LOCAL, ("Origin", "https://example.com")],
        [LOCAL, ("Origin", "null")],
        [LOCAL, ("Origin", "")],
        [LOCAL, ("Origin", "http://localhost.example.com")],
        [LOCAL, ("Origin", "http://localhost:3000, http://example.com")],
        [LOCAL, ("Origin", "http://localhost/path")],
        [LOCAL, ("Origin", "http://user@localhost")],
        [LOCAL, ("Forwarded", "for=127.0.0.1")],
        [LOCAL, ("x-forwarded-for", "127.0.0.1")],
        [LOCAL, ("X-Forwarded-Proto", "https")],
    ],
)
def test_whoever_may_come_from_elsewhere_is_told_the_settings(headers: list[tuple[str, str]]) -> None:
    verdict = refusal(headers)
    assert isinstance(verdict, Refused)
    assert "YDOC_JWT_SECRET" in verdict.reason
    assert len(verdict.reason.encode()) <= CLOSE_REASON_BYTES_MAX
