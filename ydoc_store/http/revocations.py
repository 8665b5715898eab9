"""`/v1/revocations`: taking access back, seeing what was taken, and giving it back.

Who may: whoever has admin access to the document, or, for a user and for the tenant, to everything (`*`). The door
is the same as that of the sockets. A tenant sees and changes its own alone.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Access
from ydoc_store.errors import Forbidden, InvalidRequest, UnknownPath
from ydoc_store.http.door import EVERYTHING, admit
from ydoc_store.http.here import Present
from ydoc_store.names import parse_name
from ydoc_store.storage.revocations import (
    Kind,
    Revocation,
    delete_revocation,
    insert_revocation,
    list_revocations,
)

BODY_BYTES_MAX: Final = 16 * 1024


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""

    async def create(request: Request) -> Response:
        here = present()
        kind, value, before = _asked_for(await _body(request))
        granted = await admit(here, request, value if kind == "document" else EVERYTHING, Access.ADMIN)
        if kind == "tenant" and value != granted.tenant:
            raise Forbidden("a tenant takes back its own access alone")
        value = "" if kind == "tenant" else value
        made = await insert_revocation(
            here.database, granted.tenant, kind, value, before, lifetime_s_max=here.settings.token_lifetime_max_s
        )
        return _json(_shown(made), 201)

    async def every(request: Request) -> Response:
        here = present()
        granted = await admit(here, request, EVERYTHING, Access.ADMIN)
        found = await list_revocations(
            here.database, lifetime_s_max=here.settings.token_lifetime_max_s, tenant=granted.tenant
        )
        return _json({"revocations": [_shown(one) for one in found]}, 200)

    async def remove(request: Request) -> Response:
        here = present()
        granted = await admit(here, request, EVERYTHING, Access.ADMIN)
        if not await delete_revocation(here.database, request.path_params["id"], granted.tenant):
            raise UnknownPath("there is no such revocation")
        return Response(status_code=204)

    return [
        Route("/v1/revocations", create, methods=["POST"]),
        Route("/v1/revocations", every, methods=["GET"]),
        Route("/v1/revocations/{id:int}", remove, methods=["DELETE"]),
    ]


async def _body(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise InvalidRequest(f"a body over {BODY_BYTES_MAX} bytes")
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest('the body is no JSON object such as {"user": "ann"}')
    return found


def _asked_for(body: dict[str, Any]) -> tuple[Kind, str, datetime | None]:
    kinds: tuple[Kind, ...] = ("user", "document", "tenant")
    named = [kind for kind in kinds if kind in body]
    if len(named) != 1 or set(body) - {*named, "before"}:
        raise InvalidRequest('name one of "user", "document" and "tenant", and "before" if you like')
    kind = named[0]
    value = body[kind]
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidRequest(f'"{kind}" is a string of at least one character')
    if kind == "document":
        parse_name(value)
    return kind, value, _moment(body.get("before"))


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= time.time() + 366 * 86_400:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest('"before" is a moment in ISO 8601, or in seconds since 1970')


def _shown(one: Revocation) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": one.id, one.kind: one.value or one.tenant}
    return shown | {"before": one.before.isoformat(), "created_at": one.created_at.isoformat()}


def _json(body: object, status: int) -> Response:
    return Response(
        orjson.dumps(body), status_code=status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )
