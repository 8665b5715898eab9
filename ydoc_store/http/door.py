"""The door of the HTTP side: who asks, and may they? The same answer as at the sockets.

A request brings its token in the Authorization header or in the parameter `token`, or cookies for the application.
Nothing is loaded before somebody is let in, and nothing that they brought is logged.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.requests import Request

from ydoc_store.auth.access import Access, Asked, Granted, Reach
from ydoc_store.auth.proxies import FORWARDED_FOR
from ydoc_store.errors import Forbidden
from ydoc_store.http.here import Here

# The name that stands for every document: whoever has access to it has access to all of a tenant's.
EVERYTHING: Final = "*"
_BEARER: Final = "bearer "
_TOKEN_PARAMETER: Final = "token"  # noqa: S105 # the name of one
ANNOUNCED_BYTES_MAX: Final = 64 * 1024
"""So much of a body is counted before it came; the rest as it comes. Whoever only announces bytes would have all others
at their address wait for them."""
# In a request's scope: who was let in, and to which document.
_ADMITTED: Final = "ydoc_store.admitted"


async def admit(here: Here, request: Request, document: str, needed: Access, *, dialect: str = "http") -> Granted:
    """What the one who asks may do to this document (`*`: to everything), if that is at least `needed`.

    Waits where their address brings more than it may. Raises Unauthenticated, Forbidden, LimitExceeded,
    AuthUnavailable.
    """
    granted = await here.authorizer.authorize(await _asked(here, request, document, dialect))
    require(granted, needed)
    request.scope.setdefault(_ADMITTED, []).append((granted, document))
    return granted


async def admit_too(here: Here, request: Request, document: str, needed: Access, *, dialect: str = "http") -> Granted:
    """`admit`, to one more document of a request that was let through the door already, and counted there."""
    granted = await here.authorizer.authorize(_asking(here, request, document, dialect))
    require(granted, needed)
    return granted


async def admit_to_list(here: Here, request: Request, *, dialect: str = "http") -> Reach:
    """Which documents the one who asks may read. Waits and raises as `admit`, Forbidden where there are none."""
    reach = await here.authorizer.reach(await _asked(here, request, EVERYTHING, dialect))
    request.scope.setdefault(_ADMITTED, []).append((reach.granted, EVERYTHING))
    return reach


def judge_again(here: Here, request: Request) -> None:
    """Whether what let this request in still holds, once its sender had it wait. Raises Unauthenticated (I18)."""
    for granted, document in request.scope.get(_ADMITTED, ()):
        here.authorizer.judge(granted, document)


async def _asked(here: Here, request: Request, document: str, dialect: str) -> Asked:
    # A page anywhere can have a browser send its cookies here, with a body that needs no permission to be sent.
    if not here.authorizer.is_open:
        here.origins.judge(request.headers.get("Origin"), request.headers.get("Host"))
    await _wait_for_turn(here, request, client_address(here, request))
    return _asking(here, request, document, dialect)


def _asking(here: Here, request: Request, document: str, dialect: str) -> Asked:
    address = client_address(here, request)
    return Asked(
        document, token_of(request), request.headers.get("Cookie"), request.headers.get("Origin"), address, dialect
    )


def require(granted: Granted, needed: Access) -> None:
    """Raises Forbidden where less was granted."""
    if granted.access < needed:
        raise Forbidden(f"this needs {needed.name.lower()} access")


def token_of(request: Request) -> str | None:
    """The token that a request brings, None where it brings none."""
    header = request.headers.get("Authorization", "")
    if header[: len(_BEARER)].lower() == _BEARER:
        return header[len(_BEARER) :].strip() or None
    found: str | None = request.query_params.get(_TOKEN_PARAMETER)
    return found


def client_address(here: Here, request: Request) -> str | None:
    """The peer's address, or what a trusted proxy says that it is."""
    peer = request.client.host if request.client is not None else None
    return here.authorizer.proxies.client_address(peer, request.headers.getlist(FORWARDED_FOR))


async def _wait_for_turn(here: Here, request: Request, client: str | None) -> None:
    size = request.headers.get("Content-Length", "")
    rest_s = _take(here, client, min(int(size), ANNOUNCED_BYTES_MAX) if size.isdecimal() else 0)
    if rest_s:
        await asyncio.sleep(rest_s)


def take_turn(here: Here, request: Request, size: int) -> float:
    """Count so many bytes of a body that came; returns how many seconds to take no more of it, mostly 0."""
    return _take(here, client_address(here, request), size)


def _take(here: Here, client: str | None, size: int) -> float:
    address = here.authorizer.addresses.find(client)
    debt = None if address is None else address.traffic.take(size, time.monotonic())
    if debt is None:
        return 0.0
    here.metrics.limited(debt[1])
    return debt[0]
