"""Whose address counts behind proxies, and what is no list of networks."""

from __future__ import annotations

import pytest

from ydoc_store.auth.proxies import TrustedProxies
from ydoc_store.errors import SettingInvalid

TRUSTED = TrustedProxies.parse("10.0.0.0/8, ::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["nonsense"], "nonsense"),
        (None, ["1.1.1.1"], None),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    ],
)
def test_only_what_a_trusted_proxy_wrote_counts(peer: str | None, forwarded: list[str], address: str | None) -> None:
    assert TRUSTED.client_address(peer, forwarded) == address


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8 192.0.2.1", "loopback"])
def test_what_is_no_network_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(SettingInvalid, match="YDOC_TRUSTED_PROXIES"):
        TrustedProxies.parse(text)


def test_nobody_is_trusted_where_nothing_is_named() -> None:
    assert not TrustedProxies.parse(" ")
    assert TrustedProxies.parse("").client_address("127.0.0.1", ["1.1.1.1"]) == "127.0.0.1"
