"""How much one connection and one address may bring: token buckets. Pure but for the clock that it is given.

An empty bucket never drops anything: whoever reads waits until it holds something again, and a new connection is
sent away for a while. Addresses are limited only where proxies are trusted: before that everyone behind a proxy has
the proxy's address, and an office that shares one is no attack. Who counts what, and what follows, is the callers'.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from ydoc_store.auth.proxies import parse_address

if TYPE_CHECKING:
    from ydoc_store.settings import Settings

# Addresses that are remembered; past it the one that was seen least lately starts anew.
ADDRESSES_MAX: Final = 20_000
# Whoever has IPv6 has a network of this size at least, and may use another address of it each time.
IPV6_NETWORK_BITS: Final = 64
# Whoever has to rest does it for long enough that the timers cost nothing.
REST_S_MIN: Final = 0.05

Limit = Literal[
    "connection_messages",
    "connection_bytes",
    "address_messages",
    "address_bytes",
    "address_connections",
    "address_failures",
]


class Bucket:
    """`per_s` tokens come each second, and `burst_s` seconds' worth of them is kept. It may be in debt."""

    __slots__ = ("_at_s", "_left", "_most", "_per_s")

    def __init__(self, per_s: float, burst_s: float, now_s: float):
        self._per_s = per_s
        self._left = self._most = per_s * burst_s
        self._at_s = now_s

    def take(self, amount: float, now_s: float) -> float:
        """Take whatever is there; returns after how many seconds the debt that this left is paid, 0 where none is."""
        left = self._left + (now_s - self._at_s) * self._per_s
        self._at_s = now_s
        self._left = left = min(left, self._most) - amount
        return 0.0 if left >= 0 else -left / self._per_s

    def holds(self, amount: float, now_s: float) -> bool:
        """Whether so much could be taken without a debt."""
        return min(self._left + (now_s - self._at_s) * self._per_s, self._most) >= amount


class Traffic:
    """Two buckets that are looked at for every message, in one: messages and their bytes."""

    __slots__ = ("_at_s", "_bytes_left", "_bytes_most", "_bytes_per_s", "_left", "_limits", "_most", "_per_s")

    def __init__(self, per_s: float, bytes_per_s: float, burst_s: float, limits: tuple[Limit, Limit], now_s: float):
        self._per_s, self._bytes_per_s = per_s, bytes_per_s
        self._left = self._most = per_s * burst_s
        self._bytes_left = self._bytes_most = bytes_per_s * burst_s
        self._limits = limits
        self._at_s = now_s

    def take(self, size: int, now_s: float) -> tuple[float, Limit] | None:
        """Take one message of so many bytes; after how many seconds the debt is paid, and whose, None where none is."""
        passed_s = now_s - self._at_s
        self._at_s = now_s
        left, bytes_left = self._left + passed_s * self._per_s, self._bytes_left + passed_s * self._bytes_per_s
        self._left = left = (left if left < self._most else self._most) - 1
        self._bytes_left = bytes_left = (bytes_left if bytes_left < self._bytes_most else self._bytes_most) - size
        if left >= 0 and bytes_left >= 0:
            return None
        return max((-left / self._per_s, self._limits[0]), (-bytes_left / self._bytes_per_s, self._limits[1]))


class Address:
    """What all connections from one address share."""

    __slots__ = ("connections", "failures", "traffic")

    def __init__(self, settings: Settings, now_s: float):
        burst_s = settings.limit_burst_s
        self.traffic = Traffic(
            settings.address_messages_per_s,
            settings.address_bytes_per_s,
            burst_s,
            ("address_messages", "address_bytes"),
            now_s,
        )
        self.connections = Bucket(settings.address_connections_per_s, burst_s, now_s)
        self.failures = Bucket(settings.address_failures_per_s, burst_s, now_s)


class Addresses:
    """The addresses seen lately. `is_limited` is False where no proxy is trusted, and none has limits then."""

    def __init__(self, settings: Settings, *, is_limited: bool, now: Callable[[], float] = time.monotonic):
        self.is_limited = is_limited
        self._settings = settings
        self._now = now
        # The one that was seen least lately first.
        self._known: dict[str, Address] = {}

    def find(self, address: str | None) -> Address | None:
        """What this one may; None where nothing limits it."""
        if not self.is_limited or address is None:
            return None
        key = _limited_as(address)
        found = self._known.pop(key, None)
        if found is None:
            if len(self._known) >= ADDRESSES_MAX:
                del self._known[next(iter(self._known))]
            found = Address(self._settings, self._now())
        self._known[key] = found
        return found


class Allowance:
    """What one connection may bring, within what its address may."""

    __slots__ = ("_limited", "_own", "_shared")

    def __init__(self, settings: Settings, address: Address | None, limited: Callable[[Limit], None], now_s: float):
        self._limited = limited
        self._own = Traffic(
            settings.connection_messages_per_s,
            settings.connection_bytes_per_s,
            settings.limit_burst_s,
            ("connection_messages", "connection_bytes"),
            now_s,
        )
        self._shared = None if address is None else address.traffic

    def take(self, size: int, now_s: float) -> float:
        """Count one message of so many bytes; returns how many seconds to read nothing after it, mostly 0."""
        own = self._own.take(size, now_s)
        shared = None if self._shared is None else self._shared.take(size, now_s)
        if own is None and shared is None:
            return 0.0
        rest_s, limit = max(debt for debt in (own, shared) if debt is not None)
        self._limited(limit)
        return max(rest_s, REST_S_MIN)


def _limited_as(text: str) -> str:
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_NETWORK_BITS), strict=False))
    # What a trusted proxy wrote and is no address is one all the same, and takes no more memory than one.
    return str(address) if address is not None else text[:64]
