"""`/v1/shape`: the documents as ElectricSQL's Yjs provider reads and writes them.

A read gives what is new to the reader and says that this is all; a live one waits for news, or stays as a stream of
events. A write is one update, or presence, in a lib0 frame. The provider's client stops at every 4xx but 429, which
it repeats, and 409, upon which it reads all again into the document that it has; so another history is told by 410.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Access, Granted
from ydoc_store.errors import Draining, EpochChanged, InvalidRequest
from ydoc_store.http.bodies import PacedBody, in_pieces, read_body
from ydoc_store.http.door import admit
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule
from ydoc_store.http.here import Here, Present
from ydoc_store.http.problems import problem
from ydoc_store.http.shape_handles import Handle
from ydoc_store.http.shape_request import ShapeRequest, Table, parse_shape_request
from ydoc_store.http.shape_rows import MUST_REFETCH, SCHEMAS, array, array_size, events, up_to_date
from ydoc_store.http.shape_tables import AwarenessTable, ShapeTable, StaleHandle, open_updates
from ydoc_store.http.staying import End, staying
from ydoc_store.rooms.contribution import contribute
from ydoc_store.rooms.follower import follow
from ydoc_store.rooms.guests import show_guest
from ydoc_store.yjs.lib0 import Malformed, Reader

DIALECT: Final = "electric"
PATH: Final = "/v1/shape"
_JSON: Final = "application/json"
# Access is the reader's own, and what it reads changes with every keystroke.
_NEVER_KEPT: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_UNTOLD: Final = (
    "this document was recreated or repaired once: a write says in handle whose history it is, as electric-handle does"
)


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""

    async def read(request: Request) -> Response:
        here = present()
        asked = _asked(request)
        granted = await admit(here, request, asked.document, Access.READ, dialect=DIALECT)
        try:
            return await _read(here, request, granted, asked)
        except StaleHandle as stale:
            headers = {**_NEVER_KEPT, "electric-handle": stale.handle}
            return Response(MUST_REFETCH, 409, headers, _JSON)
        except EpochChanged as error:
            return _another_history(str(error))

    async def write(request: Request) -> Response:
        here = present()
        asked = _asked(request)
        needed = Access.WRITE if asked.table is Table.UPDATES else Access.READ
        granted = await admit(here, request, asked.document, needed, dialect=DIALECT)
        try:
            await _write(here, request, granted, asked)
        except EpochChanged as error:
            return _another_history(str(error) if asked.handle is not None else _UNTOLD)
        return Response(status_code=204, headers=_NEVER_KEPT)

    return [Route(PATH, read, methods=["GET"]), Route(PATH, write, methods=["PUT"])]


def _asked(request: Request) -> ShapeRequest:
    query: bytes = request.scope["query_string"]
    return parse_shape_request(query.decode("latin-1"))


def _another_history(detail: str) -> Response:
    return problem(410, detail, _NEVER_KEPT, code=EpochChanged.code)


async def _read(here: Here, request: Request, granted: Granted, asked: ShapeRequest) -> Response:
    async with contextlib.AsyncExitStack() as closing:
        follower = await closing.enter_async_context(follow(here.rooms, granted, asked.document, dialect=DIALECT))
        table: ShapeTable
        if asked.table is Table.UPDATES:
            database = await here.rooms.watch.which_database()
            table = await open_updates(follower, asked, here.rooms, database)
        else:
            table = AwarenessTable(follower, asked, here.rooms.attendance.node)
        if asked.wants_events:
            told = table.handle
            headers, rows = _headers(asked, told, table.position), _events(here, table, told)
            return EventStream(here, granted, asked.document, rows, closing.pop_all(), headers, follower.pace)
        if asked.is_live and not await _may_still_read(here, request, granted, asked, table):
            headers = {**_headers(asked, table.handle, table.position), "electric-up-to-date": "true"}
            return Response(b"".join(array([], up_to_date(table.position))), 200, headers, _JSON)
        page = await closing.enter_async_context(table.page())
        last = up_to_date(page.position)
        return PacedBody(
            here,
            granted,
            asked.document,
            array(page.rows, last),
            array_size(page.rows, last),
            closing.pop_all(),
            {**_headers(asked, table.handle, page.position), "Content-Type": _JSON, "electric-up-to-date": "true"},
            follower.pace,
        )


def _headers(asked: ShapeRequest, handle: str, position: int) -> Mapping[str, str]:
    # A cursor in an answer that is not live would have a client that comes back soon take it for a cached one.
    told = (
        {"electric-cursor": str(time.time_ns() // 1_000_000)}
        if asked.is_live
        else {"electric-schema": SCHEMAS[asked.table]}
    )
    return {**_NEVER_KEPT, "electric-handle": handle, "electric-offset": f"{position}_0", **told}


async def _may_still_read(
    here: Here, request: Request, granted: Granted, asked: ShapeRequest, table: ShapeTable
) -> bool:
    """Returns when there is news, or the time is over; False where the reader's access ended meanwhile.

    That is told by the answer to its next request, which may bring a new token: a client stops at a 401. Raises what
    else ended the wait.
    """
    async with staying(here, granted, asked.document, request.receive) as stay:
        await table.moved(here.settings.long_poll_timeout_s)
    if stay.ended is End.STOPPING:
        raise Draining("this server is stopping")
    # Whoever is gone reads no answer, and waits for none.
    return stay.ended is not End.ACCESS


async def _events(here: Here, table: ShapeTable, told: str) -> AsyncGenerator[bytes, None]:
    """`told` is the handle in the head of this answer, which is sent before anything is read here."""
    schedule = Schedule(here.settings.keepalive_interval_s, here.settings.sse_close_s)
    yield KEPT_ALIVE
    while not schedule.is_over:
        async with table.page() as page:
            if table.handle != told:
                # The document was begun meanwhile, and only the head of an answer can tell its handle.
                return
            if page.rows:
                for piece in in_pieces(events(page.rows, up_to_date(page.position))):
                    yield piece
        if not await table.moved(schedule.wait_s):
            yield KEPT_ALIVE


async def _write(here: Here, request: Request, granted: Granted, asked: ShapeRequest) -> None:
    settings = here.settings
    if asked.table is Table.AWARENESS:
        payload = _one_frame(await read_body(here, request, settings.awareness_bytes_max + 64))
        await show_guest(here.rooms, granted, asked.document, payload)
        return
    # Whoever does not say can be let into a document's first epoch alone: a tab left open over a repair looks the same.
    history = Handle.parse(asked.handle).marker if asked.handle is not None else 0
    update = _one_frame(await read_body(here, request, settings.frame_bytes_max))
    await contribute(here.rooms, granted, asked.document, update, dialect=DIALECT, history=history)


def _one_frame(body: bytes) -> bytes:
    reader = Reader(body)
    try:
        payload = reader.buf()
    except Malformed as error:
        raise InvalidRequest(f"the body is no lib0 frame: {error}") from error
    if not reader.done:
        raise InvalidRequest("the body is one lib0 frame and nothing behind it")
    return payload
