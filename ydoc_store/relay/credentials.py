"""What a WebSocket upgrade brings to say who is there: a token, cookies, an origin, an address. Pure.

A browser cannot set headers on a WebSocket, so a token may also stand in the URL's parameters or, so that no log of
a proxy holds it, in a subprotocol `ydoc.token.TOKEN` offered beside `ydoc`. Nothing here judges what it finds, and
nothing that is found here is ever logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs

SUBPROTOCOL: Final = "ydoc"
TOKEN_SUBPROTOCOL_PREFIX: Final = "ydoc.token."  # noqa: S105 # what stands before one
TOKEN_PARAMETER: Final = "token"  # noqa: S105 # the name of one
BEARER: Final = "bearer "
# More parameters than an application sets are not looked through.
PARAMETERS_MAX: Final = 100


class Headers(Protocol):
    """Headers of any case, in the order in which they came."""

    def get_all(self, key: str) -> list[str]: ...
    def raw_items(self) -> Iterable[tuple[str, str]]: ...


class _NoHeaders:
    def get_all(self, key: str) -> list[str]:
        return []

    def raw_items(self) -> Iterable[tuple[str, str]]:
        return ()


NO_HEADERS: Final[Headers] = _NoHeaders()


@dataclass(frozen=True, slots=True)
class Credentials:
    """None where nothing was brought."""

    token: str | None
    cookie: str | None
    origin: str | None
    address: str | None


def read_credentials(path: str, headers: Headers, address: str | None) -> Credentials:
    """The token comes from the subprotocol, else the Authorization header, else the URL's parameter `token`."""
    return Credentials(
        _from_subprotocols(headers.get_all("Sec-WebSocket-Protocol"))
        or _from_authorization(headers.get_all("Authorization"))
        or _from_parameters(path),
        "; ".join(headers.get_all("Cookie")) or None,
        next(iter(headers.get_all("Origin")), None),
        address,
    )


def fingerprint(path: str, headers: Headers, address: str | None) -> int:
    """The same number for whoever brings the same from the same place, in this process; it tells nothing of either."""
    told = ("Sec-WebSocket-Protocol", "Authorization", "Cookie", "Origin", "User-Agent")
    return hash((path, address, *(tuple(headers.get_all(name)) for name in told)))


def select_subprotocol(offered: Sequence[str]) -> str | None:
    """One of those offered, since a browser fails the connection otherwise: one that is no token where there is one."""
    plain = [name for name in offered if not name.startswith(TOKEN_SUBPROTOCOL_PREFIX)]
    return next(iter([*plain, *offered]), None)


def _from_subprotocols(values: Iterable[str]) -> str | None:
    for value in values:
        for name in value.split(","):
            if name.strip().startswith(TOKEN_SUBPROTOCOL_PREFIX):
                return name.strip().removeprefix(TOKEN_SUBPROTOCOL_PREFIX) or None
    return None


def _from_authorization(values: Iterable[str]) -> str | None:
    for value in values:
        if value[: len(BEARER)].lower() == BEARER:
            return value[len(BEARER) :].strip() or None
    return None


def _from_parameters(path: str) -> str | None:
    try:
        found = parse_qs(path.partition("?")[2], max_num_fields=PARAMETERS_MAX).get(TOKEN_PARAMETER)
    except ValueError:
        return None
    return found[-1] if found else None
