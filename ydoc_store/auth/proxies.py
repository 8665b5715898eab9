"""Who is there, behind the proxies that are trusted. Pure.

A proxy says in X-Forwarded-For for whom it asks, and anybody else can say so too: only what a trusted proxy wrote
counts, so that nobody can claim to be somebody else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from ydoc_store.errors import SettingInvalid

FORWARDED_FOR: Final = "X-Forwarded-For"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The networks that are believed; `bool()` says whether there are any."""

    def __init__(self, networks: Sequence[_Network]):
        self._networks = tuple(networks)

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """From a list with commas. Raises SettingInvalid for what is no network."""
        return cls([_network(part.strip()) for part in text.split(",") if part.strip()])

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client_address(self, peer: str | None, forwarded_for: Sequence[str]) -> str | None:
        """The last address in the chain that is no trusted proxy's; `forwarded_for` are that header's values."""
        chain = [part.strip() for value in forwarded_for for part in value.split(",")]
        address = peer
        while address is not None and chain and self._holds(address):
            address = chain.pop()
        return address

    def _holds(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)


def parse_address(text: str) -> _Address | None:
    """An address; one of IPv4 that came over a socket of IPv6 is itself. None for anything else."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingInvalid(f"YDOC_TRUSTED_PROXIES: {error}; write 10.0.0.0/8 or 192.0.2.1") from None
