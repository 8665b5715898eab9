"""`GET /v1/changes`: what happened to all documents of a tenant, as JSON lines or as events, from a place that is kept.

Each line carries the cursor behind it; the last one of an answer is a `checkpoint`, whose cursor is also behind what
was left out because the one who asks may not read it or did not ask for it. An answer without it was cut short, and
is gone on with from its last line. Nothing is collected: a page of the feed is read when the connection has taken
the one before. Where the feed's rows come from, and in which order, is the storage's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Reach
from ydoc_store.errors import InvalidRequest, Unauthenticated
from ydoc_store.http.door import EVERYTHING, admit_to_list
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule
from ydoc_store.http.here import Here, Present
from ydoc_store.http.staying import End, staying
from ydoc_store.rooms.feed import Follower
from ydoc_store.storage.feed import EVENTS_A_PAGE, Change, FeedPage, TakenOver

DIALECT: Final = "changes"
PATH: Final = "/v1/changes"
LINES: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
LINES_MAX: Final = 10_000
"""Some 2.5 MB; who wants more asks again."""
LINES_DEFAULT: Final = 1_000
PAGE_MIN: Final = 50
PAGES_AN_ANSWER: Final = 100
"""A reader who may see little of a long feed is told where it stands after so many pages, and asks again."""
OLDEST: Final = ""
NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. `after` None is the oldest that is kept; `wait_s` 0 waits for nothing."""

    after: str | None
    limit: int
    prefix: str
    wait_s: float

    @classmethod
    def of(cls, request: Request, wait_s_max: float) -> Wanted:
        """Raises InvalidRequest for a parameter that is none."""
        given = request.query_params
        for name in ("after", "limit", "prefix", "wait_s"):
            if len(given.getlist(name)) > 1:
                raise InvalidRequest(f"{name} is given more than once")
        after = request.headers.get("Last-Event-ID") or given.get("after", OLDEST)
        limit = _number(given.get("limit", str(LINES_DEFAULT)))
        if limit is None or not limit.is_integer() or not 1 <= limit <= LINES_MAX:
            raise InvalidRequest(f"limit is a whole number from 1 to {LINES_MAX}")
        wait_s = _number(given.get("wait_s", "0"))
        if wait_s is None or wait_s < 0:
            raise InvalidRequest("wait_s is a number of seconds")
        prefix = given.get("prefix", "")
        if "\0" in prefix:
            raise InvalidRequest("no document's name holds a NUL")
        return cls(after or None, int(limit), prefix, min(wait_s, wait_s_max))


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""

    async def changes(request: Request) -> Response:
        here = present()
        reach = await admit_to_list(here, request, dialect=DIALECT)
        wanted = Wanted.of(request, here.settings.long_poll_timeout_s)
        async with contextlib.AsyncExitStack() as stack:
            follower = await stack.enter_async_context(here.rooms.feeds.follow(reach.granted.tenant))
            counts = here.metrics.dialect(DIALECT)
            counts.connections += 1
            stack.callback(lambda: setattr(counts, "connections", counts.connections - 1))
            reader = _Reader(here, reach, wanted, follower)
            if EVENTS in request.headers.get("Accept", ""):
                return await reader.events(stack)
            return await reader.lines(request, stack)

    return [Route(PATH, changes, methods=["GET"])]


class _Reader:
    """One request of one reader."""

    def __init__(self, here: Here, reach: Reach, wanted: Wanted, follower: Follower):
        self._here = here
        self._granted = reach.granted
        self._may_read = reach.covers
        self._wanted = wanted
        self._follower = follower
        # Most of what is read is also for this reader, unless it wants some documents alone.
        self._page = EVENTS_A_PAGE if wanted.prefix else min(max(wanted.limit, PAGE_MIN), EVENTS_A_PAGE)

    async def _first(self) -> FeedPage:
        """What stands at the place that was asked for, as of now. Raises InvalidRequest, CursorExpired."""
        tenant, after = self._granted.tenant, self._wanted.after
        if after == NOW:
            return FeedPage([], await self._here.rooms.feeds.newest_cursor(tenant), at_end=True)
        return await self._here.rooms.feeds.read(tenant, after, self._page)

    def _lines_of(self, page: FeedPage) -> list[tuple[str, bytes]]:
        """Cursor and line of each thing on the page that is for this reader."""
        lines = [(page.taken_over.cursor, taken_over_line(page.taken_over))] if page.taken_over is not None else []
        for change in page.changes:
            line = line_of(change, self._may_read, self._wanted.prefix)
            if line is not None:
                lines.append((change.cursor, line))
        return lines

    def _answer(self, pieces: AsyncGenerator[bytes, None], stack: contextlib.AsyncExitStack, kind: str) -> Response:
        headers = {"Content-Type": kind, "Vary": "Accept"}
        return EventStream(self._here, self._granted, EVERYTHING, pieces, stack.pop_all(), headers)

    # As JSON lines

    async def lines(self, request: Request, stack: contextlib.AsyncExitStack) -> Response:
        """Up to `limit` changes; where there are none, waited for."""
        page = await self._first()
        if self._wanted.wait_s and page.at_end and not self._lines_of(page):
            page = await self._waited(request, page)
            if self._here.stopping.is_set():
                # An answer that is sent bit by bit would be cut off before its checkpoint.
                lines = [line for _, line in self._lines_of(page)]
                return Response(b"\n".join([*lines, checkpoint(page), b""]), media_type=LINES)
        return self._answer(self._pages(page), stack, LINES)

    async def _waited(self, request: Request, page: FeedPage) -> FeedPage:
        schedule = Schedule(self._wanted.wait_s, self._wanted.wait_s)
        async with staying(self._here, self._granted, EVERYTHING, request.receive) as stay:
            while page.at_end and not self._lines_of(page) and not schedule.is_over:
                if await self._follower.moved(schedule.wait_s):
                    page = await self._follower.read(page.cursor, EVENTS_A_PAGE)
        if stay.ended is End.ACCESS:
            raise Unauthenticated("this access has ended")
        # A poll that this process's end cuts short has found nothing; the next one is another process's.
        return page

    async def _pages(self, page: FeedPage) -> AsyncGenerator[bytes, None]:
        left = self._wanted.limit
        for _ in range(PAGES_AN_ANSWER):
            lines = self._lines_of(page)
            if len(lines) > left:
                yield b"".join(line + b"\n" for _, line in lines[:left])
                page = FeedPage([], lines[left - 1][0], at_end=False)
                break
            left -= len(lines)
            if lines:
                yield b"".join(line + b"\n" for _, line in lines)
            if page.at_end or not left:
                break
            page = await self._here.rooms.feeds.read(self._granted.tenant, page.cursor, self._page)
        yield checkpoint(page) + b"\n"

    # As server-sent events

    async def events(self, stack: contextlib.AsyncExitStack) -> Response:
        """All that is there and all that comes, until the stream is closed."""
        page = await self._first()
        return self._answer(self._events(page), stack, EVENTS)

    async def _events(self, page: FeedPage) -> AsyncGenerator[bytes, None]:
        settings = self._here.settings
        schedule = Schedule(settings.keepalive_interval_s, settings.sse_close_s)
        told = ""
        while True:
            if page.cursor != told:
                told = page.cursor
                lines = self._lines_of(page)
                events = [b"id: %b\ndata: %b\n\n" % (cursor.encode(), line) for cursor, line in lines]
                events.append(b"event: checkpoint\nid: %b\ndata: %b\n\n" % (told.encode(), checkpoint(page)))
                yield b"".join(events)
            while page.at_end and not await self._follower.moved(schedule.wait_s):
                if schedule.is_over:
                    return
                yield KEPT_ALIVE
            if schedule.is_over or self._here.stopping.is_set():
                return
            page = await self._follower.read(page.cursor, EVENTS_A_PAGE)


def line_of(change: Change, may_read: Callable[[str], bool], prefix: str) -> bytes | None:
    """The change as JSON, None where it is not for this reader. Of a renaming that leads out of what it may read, or
    into that, it is told the one name."""
    wants = [name for name in (change.name, change.name_before) if name is not None and name.startswith(prefix)]
    if not any(map(may_read, wants)):
        return None
    shown: dict[str, Any] = {
        "cursor": change.cursor,
        "type": change.what,
        "document": change.name if may_read(change.name) else None,
        "id": change.document_id,
        "epoch": change.epoch,
        "seq": change.seq,
        "count": change.count,
        "actor": change.actor,
        "at": change.at.isoformat(),
    }
    if change.name_before is not None:
        shown["renamed_from"] = change.name_before if may_read(change.name_before) else None
    return orjson.dumps(shown)


def taken_over_line(taken_over: TakenOver) -> bytes:
    """To whoever has read other things beside the feed: some of those may be lost."""
    return orjson.dumps({"cursor": taken_over.cursor, "type": "taken_over", "at": taken_over.at.isoformat()})


def checkpoint(page: FeedPage) -> bytes:
    """Where a reader stands who has read this page, and whether more was there already."""
    return orjson.dumps({"cursor": page.cursor, "type": "checkpoint", "at_end": page.at_end})


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if found == found and abs(found) != float("inf") else None
