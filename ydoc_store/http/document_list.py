"""`/v1/stream/documents`: a live list of a tenant's documents, as a JSON stream in the State Protocol.

Nobody writes to it: it is made of the documents that are there and of the change feed. From its beginning a reader is
given what there is as inserts, page by page, then follows the feed from before the first page: whatever happened
meanwhile comes again, and the key is the name, so that it does no harm. What a document has become is looked up when
it is told; many edits of one page are one update. Offsets of the list come before those of the feed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Reach
from ydoc_store.errors import InvalidName, InvalidRequest, NameReserved, Unauthenticated
from ydoc_store.http.answering import Answering
from ydoc_store.http.door import EVERYTHING, admit_to_list
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule, encode_event, encode_text_event
from ydoc_store.http.here import Here, Present
from ydoc_store.http.problems import problem
from ydoc_store.http.staying import End, staying
from ydoc_store.http.stream_reading import FIXED
from ydoc_store.http.stream_requests import JSON, PREFIX, read_parameters
from ydoc_store.http.streams import DIALECT, failure, refusal
from ydoc_store.http.tokens import Sentinel, cursor_after
from ydoc_store.names import parse_name
from ydoc_store.rooms.feed import Follower
from ydoc_store.storage.feed import EVENTS_A_PAGE, Change, FeedPage
from ydoc_store.storage.feed_cursor import also_told, told_through
from ydoc_store.storage.present import Listed, find_present, list_present
from ydoc_store.streams.registry import LIST_OF_DOCUMENTS

TYPE: Final = "document"
DOCUMENTS_A_PAGE: Final = 1_000
"""Some 250 kB; a list is read by asking on until it is up to date."""
METHODS: Final = "GET, HEAD, OPTIONS"

_LISTING: Final = "0"
_FOLLOWING: Final = "1"
# What brings a document into the list; everything else is news of one that is there.
_BEGINNINGS: Final = ("created", "undeleted", "recreated", "renamed")


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, encoded; where to go on, and whether that is the list's end. `cursor` is the feed's for all who
    stand there; what this reader alone was told of is in the offset."""

    events: list[bytes]
    offset: str
    at_end: bool
    cursor: str = ""

    @property
    def array(self) -> bytes:
        return b"[" + b",".join(self.events) + b"]"


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts. To be found before the streams' own routes."""
    return [Route(PREFIX + LIST_OF_DOCUMENTS, Answering(partial(_answer, present), refusal, failure))]


async def _answer(present: Present, request: Request) -> Response:
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={**FIXED, "Allow": METHODS})
    if request.method == "PUT":
        raise NameReserved("this name is taken by the live list of documents: choose another one for your stream")
    if request.method not in ("GET", "HEAD"):
        return problem(405, "this stream is the server's own: it is read", {**FIXED, "Allow": METHODS})
    here = present()
    reach = await admit_to_list(here, request, dialect=DIALECT)
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(here.rooms.feeds.follow(reach.granted.tenant))
        reader = _Reader(here, request, reach, follower, stack)
        return await (reader.describe() if request.method == "HEAD" else reader.read())


class _Reader:
    """One request of one reader."""

    def __init__(
        self,
        here: Here,
        request: Request,
        reach: Reach,
        follower: Follower,
        stack: contextlib.AsyncExitStack,
    ):
        self._here = here
        self._request = request
        self._granted = reach.granted
        self._may_read = reach.covers
        self._follower = follower
        self._stack = stack
        self._cursor: str | None = None

    async def describe(self) -> Response:
        return Response(headers={**FIXED, "Content-Type": JSON, "Stream-Next-Offset": await self._end()})

    async def read(self) -> Response:
        """Raises InvalidRequest, CursorExpired, Unauthenticated, ServerFault."""
        offset, live, self._cursor = read_parameters(self._request.scope["query_string"], "offset", "live", "cursor")
        if live not in (None, "long-poll", "sse"):
            raise InvalidRequest("live is long-poll or sse")
        if live is not None and offset is None:
            raise InvalidRequest("a live read says from which offset")
        cursor_after(self._cursor, time.time())
        page = await self._first(offset)
        if live == "sse":
            return self._events(page)
        if live == "long-poll" and page.at_end and not page.events:
            return await self._polled(page)
        return self._array(page)

    # Pages

    async def _end(self) -> str:
        return _FOLLOWING + await self._here.rooms.feeds.newest_cursor(self._granted.tenant)

    async def _first(self, offset: str | None) -> Page:
        if offset == Sentinel.NOW.value:
            return Page([], await self._end(), at_end=True)
        if offset in (None, Sentinel.BEGINNING.value):
            # From before the first page on: what changes while the list is read is told behind it.
            cursor = await self._here.rooms.feeds.newest_cursor(self._granted.tenant)
            return await self._listed(cursor, "")
        cursor, after_name = read_offset(offset or "")
        if after_name is not None:
            return await self._listed(cursor, after_name)
        return await self._told(cursor, await self._read(cursor))

    async def _next(self, page: Page) -> Page:
        told, after_name = read_offset(page.offset)
        if after_name is not None:
            return await self._listed(told, after_name)
        found = await self._follower.read(page.cursor or told, EVENTS_A_PAGE)
        if found.taken_over is not None:
            # By the database that was before this reader may have been told of more than the others.
            found = await self._read(told)
        return await self._told(told, found)

    async def _read(self, cursor: str) -> FeedPage:
        return await self._here.rooms.feeds.read(self._granted.tenant, cursor, EVENTS_A_PAGE)

    async def _listed(self, cursor: str, after_name: str) -> Page:
        found, through_lsn = await list_present(self._here.database, self._granted.tenant, after_name, DOCUMENTS_A_PAGE)
        cursor = told_through(cursor, through_lsn)
        events = [change_event("insert", one.name, one) for one in found if self._may_read(one.name)]
        if len(found) == DOCUMENTS_A_PAGE:
            return Page(events, write_listing_offset(cursor, found[-1].name), at_end=False)
        # With what happened since the list was begun, so that whoever has this page is up to date.
        told = await self._told(cursor, await self._read(cursor))
        return Page(events + told.events, told.offset, told.at_end, told.cursor)

    async def _told(self, before: str, page: FeedPage) -> Page:
        """The page for whoever stood at `before`."""
        begun = begun_or_not(page.changes)
        names = [name for name in begun if self._may_read(name)]
        cursor = also_told(page.cursor, before)
        found: dict[str, Listed] = {}
        if names:
            found, through_lsn = await find_present(self._here.database, self._granted.tenant, names)
            cursor = told_through(cursor, through_lsn)
        events = []
        for name in names:
            one = found.get(name)
            operation = "delete" if one is None else "insert" if begun[name] else "update"
            events.append(change_event(operation, name, one))
        return Page(events, _FOLLOWING + cursor, page.at_end, page.cursor)

    # Answers

    def _headers(self, page: Page) -> dict[str, str]:
        headers = {
            **FIXED,
            "Content-Type": JSON,
            "Stream-Next-Offset": page.offset,
            "Stream-Cursor": cursor_after(self._cursor, time.time()),
            # What stands behind an offset is looked up anew each time.
            "Cache-Control": "no-store",
        }
        return headers | ({"Stream-Up-To-Date": "true"} if page.at_end else {})

    def _array(self, page: Page) -> Response:
        return Response(page.array, headers=self._headers(page))

    async def _polled(self, page: Page) -> Response:
        timeout_s = self._here.settings.long_poll_timeout_s
        schedule = Schedule(timeout_s, timeout_s)
        async with staying(self._here, self._granted, EVERYTHING, self._request.receive) as stay:
            while page.at_end and not page.events and not schedule.is_over:
                if await self._follower.moved(schedule.wait_s):
                    page = await self._next(page)
        if stay.ended is End.ACCESS:
            raise Unauthenticated("this access has ended")
        if page.events or not page.at_end:
            return self._array(page)
        return Response(status_code=204, headers=self._headers(page))

    def _events(self, page: Page) -> Response:
        headers = {**FIXED, "Content-Type": "text/event-stream"}
        pieces = self._pieces(page)
        return EventStream(self._here, self._granted, EVERYTHING, pieces, self._stack.pop_all(), headers)

    async def _pieces(self, page: Page) -> AsyncGenerator[bytes, None]:
        settings = self._here.settings
        schedule = Schedule(settings.keepalive_interval_s, settings.sse_close_s)
        told = ""
        while True:
            if page.events:
                yield encode_text_event("data", page.array)
            if page.offset != told:
                told = page.offset
                yield self._control(page)
            while page.at_end and not await self._follower.moved(schedule.wait_s):
                if schedule.is_over:
                    return
                yield KEPT_ALIVE
            if schedule.is_over:
                return
            page = await self._next(page)

    def _control(self, page: Page) -> bytes:
        fields: dict[str, object] = {
            "streamNextOffset": page.offset,
            "streamCursor": cursor_after(self._cursor, time.time()),
        }
        if page.at_end:
            fields["upToDate"] = True
        return encode_event("control", orjson.dumps(fields).decode())


def begun_or_not(changes: list[Change]) -> dict[str, bool]:
    """The names that a page of the feed is about, in the order of their last mention, and whether they came anew."""
    begun: dict[str, bool] = {}
    for change in changes:
        if change.name_before is not None:
            begun[change.name_before] = begun.pop(change.name_before, False)
        begun[change.name] = begun.pop(change.name, False) or change.what in _BEGINNINGS
    return begun


def change_event(operation: str, name: str, document: Listed | None) -> bytes:
    """A change message of the State Protocol."""
    event: dict[str, Any] = {"type": TYPE, "key": name, "headers": {"operation": operation}}
    if document is not None:
        event["value"] = {
            "name": document.name,
            "epoch": document.epoch,
            "seq": document.head,
            "size_bytes": document.size_bytes,
            "created_at": document.created_at.isoformat(),
            "changed_at": document.changed_at.isoformat(),
        }
    return orjson.dumps(event)


def write_listing_offset(cursor: str, after_name: str) -> str:
    """In the list, behind this name; sorts as the names do."""
    return f"{_LISTING}{cursor}_{base64.b32hexencode(after_name.encode()).decode().rstrip('=').lower()}"


def read_offset(offset: str) -> tuple[str, str | None]:
    """The feed's cursor, and behind which name of the list; None behind all of it. Raises InvalidRequest."""
    kind, rest = offset[:1], offset[1:]
    if kind == _FOLLOWING:
        return rest, None
    cursor, separator, name = rest.partition("_")
    if kind == _LISTING and separator:
        try:
            padded = name.upper() + "=" * (-len(name) % 8)
            return cursor, parse_name(base64.b32hexdecode(padded).decode())
        except (binascii.Error, ValueError, InvalidName):
            pass
    raise InvalidRequest("the offset is none: -1, now, or what an answer's Stream-Next-Offset said")
