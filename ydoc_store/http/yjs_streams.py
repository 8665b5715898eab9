"""`/v1/yjs/{service}/docs/{path}`: documents in the Durable Streams Yjs protocol, on the log that editors write to.

Which request is answered by what, through the same door as everything else. The service is the tenant: `default`
without identities, and another than the token's is refused. Errors have that protocol's shape.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Access, Granted
from ydoc_store.errors import Forbidden
from ydoc_store.http import yjs_awareness, yjs_reading, yjs_writing
from ydoc_store.http.answering import Answering
from ydoc_store.http.door import admit
from ydoc_store.http.here import Here, Present
from ydoc_store.http.place import place_of
from ydoc_store.http.yjs_reading import DIALECT
from ydoc_store.http.yjs_requests import PREFIX, Refused, error_response, response_to, single, split_path

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE")


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""
    return [Route(PREFIX + "{rest:path}", Answering(partial(_answer, present), response_to, _failure))]


async def _answer(present: Present, request: Request) -> Response:
    if request.method not in METHODS:
        raise Refused(405, "INVALID_REQUEST", "this method is not answered", {"Allow": ", ".join(METHODS)})
    service, name = split_path(place_of(request.scope).raw_path)
    stream = single(request, "awareness")
    here = present()
    if request.method == "POST" and stream is None:
        return await yjs_writing.append(here, request, name, service)
    needed = Access.ADMIN if request.method == "DELETE" and stream is None else Access.READ
    granted = await _admit(here, request, service, name, needed)
    if stream is not None:
        return await yjs_awareness.answer(here, request, granted, name, stream)
    match request.method:
        case "GET":
            return await yjs_reading.read(here, request, granted, name)
        case "HEAD":
            return await yjs_reading.describe(here, granted, name)
        case "PUT":
            return await yjs_writing.create(here, request, granted, name)
        case _:
            return await yjs_writing.delete(here, granted, name)


async def _admit(here: Here, request: Request, service: str, name: str, needed: Access) -> Granted:
    granted = await admit(here, request, name, needed, dialect=DIALECT)
    if granted.tenant != service:
        raise Forbidden("this service is another tenant's")
    return granted


def _failure() -> Response:
    return error_response(500, "INTERNAL_ERROR", "an unexpected error; the server's log has it", "failed")
