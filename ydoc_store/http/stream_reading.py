"""Reading a stream over the Durable Streams base protocol: once, waiting for more, or as events.

A reader holds a place and at most a page, which counts among what all of them may hold together.
What it is given is read from the log, but for those at the stream's end, who are given what was committed a moment ago,
encoded once for all of them. Headers tell where to go on.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Granted
from ydoc_store.errors import AheadOfLog, EpochChanged, InvalidRequest, Unauthenticated
from ydoc_store.http.bodies import PIECE_BYTES, PacedBody, in_pieces
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule, encode_event, text_event_parts
from ydoc_store.http.here import Here
from ydoc_store.http.incarnations import database_here
from ydoc_store.http.protocol_headers import read_etags
from ydoc_store.http.staying import End, staying
from ydoc_store.http.stream_requests import is_json, is_text, read_offset, read_parameters
from ydoc_store.http.tokens import Sentinel, Token, cursor_after
from ydoc_store.rooms.pace import Pace
from ydoc_store.streams.registry import FROM_THE_END
from ydoc_store.streams.stream import Page, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

FIXED: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""On every answer: bytes that somebody else wrote are never taken for a script, and as a page, where their type says
that they are one, they may do nothing in this server's name."""
# Base64 of whole groups of three bytes: pieces follow each other as one text.
_BASE64_PIECE_BYTES: Final = PIECE_BYTES * 3 // 4 // 3 * 3


async def read(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """GET. Raises InvalidRequest, NoSuchStream, EpochChanged, AheadOfLog, Unauthenticated, ServerFault."""
    text, live, cursor = read_parameters(request.scope["query_string"], "offset", "live", "cursor")
    if live not in (None, "long-poll", "sse"):
        raise InvalidRequest("live is long-poll or sse")
    if live is not None and text is None:
        raise InvalidRequest("a live read says from which offset")
    offset = read_offset(text)
    cursor_after(cursor, time.time())
    place = FROM_THE_END if offset is Sentinel.NOW else offset.seq if isinstance(offset, Token) else 0
    # Before the page is read: an older one under a newer name would be kept for good.
    database = await database_here(here)
    stream, page = await here.rooms.streams.read(granted.tenant, name, place)
    _check(stream, page, offset)
    if offset is Sentinel.NOW:
        place = page.head
        page = Page((), place, place, page.closed)
    await stream.use()
    reader = _Reader(here, request, granted, stream, cursor, database)
    if live == "sse":
        return reader.events(place, page)
    if live == "long-poll":
        return await reader.long_poll(place, page)
    return reader.answer(place, page, is_tail=offset is Sentinel.NOW)


async def describe(here: Here, granted: Granted, name: str) -> Response:
    """HEAD, which is no use of the stream. Raises NoSuchStream, ServerFault."""
    stream, page = await here.rooms.streams.read(granted.tenant, name, FROM_THE_END)
    return Response(status_code=200, headers=headers_of(stream, page.head, closed=page.closed))


def headers_of(stream: Stream, seq: int, *, closed: bool) -> dict[str, str]:
    """What a stream is, and where the one that is answered goes on."""
    headers = {
        **FIXED,
        "Content-Type": stream.content_type,
        "Stream-Next-Offset": str(Token(stream.epoch, seq)),
        "Cache-Control": "no-store",
    }
    if stream.ttl_s is not None:
        headers["Stream-TTL"] = str(stream.ttl_s)
    if stream.expires_text is not None:
        headers["Stream-Expires-At"] = stream.expires_text
    if closed:
        headers["Stream-Closed"] = "true"
    return headers


def _check(stream: Stream, page: Page, offset: Token | Sentinel) -> None:
    if isinstance(offset, Token):
        if offset.epoch != stream.epoch:
            raise EpochChanged("this offset is of a stream that was deleted: begin anew with -1")
        if offset.seq > page.head:
            raise AheadOfLog("the database went back, and has not what this offset has seen: begin anew with -1")


class _Reader:
    """One request of one reader."""

    def __init__(
        self, here: Here, request: Request, granted: Granted, stream: Stream, cursor: str | None, database: str
    ):
        self._here = here
        self._request = request
        self._granted = granted
        self._stream = stream
        self._cursor = cursor
        # A restored backup gives ids and seqs again: what a browser keeps of before is not the same.
        self._database = database
        self._pace = Pace(here.settings.slow_member_s)

    def _headers(self, page: Page) -> dict[str, str]:
        headers = {
            **FIXED,
            "Content-Type": self._stream.content_type,
            "Stream-Next-Offset": str(Token(self._stream.epoch, page.through_seq)),
            "Stream-Cursor": cursor_after(self._cursor, time.time()),
        }
        if page.is_whole:
            headers["Stream-Up-To-Date"] = "true"
        if page.is_end:
            headers["Stream-Closed"] = "true"
        return headers

    def answer(self, place: int, page: Page, *, is_tail: bool = False) -> Response:
        """A page, or that nothing of it is new to whoever has it."""
        headers = self._headers(page)
        if is_tail:
            headers["Cache-Control"] = "no-store"
        else:
            # The bytes at a place never change, but at the end there will be more of them.
            headers["Cache-Control"] = (
                "private, no-cache" if page.is_whole and not page.is_end else "private, max-age=60"
            )
            # A browser keeps it for whom it was read, and not for who signs in there next.
            headers["Vary"] = "Authorization, Cookie"
            end = "-end" if page.is_end else ""
            headers["ETag"] = f'"{self._database}-{self._stream.id:x}-{place}-{page.through_seq}{end}"'
            if headers["ETag"] in read_etags(dict(self._request.scope["headers"])):
                return Response(status_code=304, headers=headers)
        parts = list(parts_of(self._stream, page.updates))
        size = sum(map(len, parts))
        if size <= PIECE_BYTES:
            return Response(b"".join(parts), 200, headers)
        closing = contextlib.AsyncExitStack()
        # It counts among what readers hold for as long as it is there, and its parts are held by this answer.
        closing.enter_context(page.read_by(self._pace))
        return PacedBody(self._here, self._granted, self._stream.name, parts, size, closing, headers, self._pace)

    async def long_poll(self, place: int, page: Page) -> Response:
        """What is behind `place`, waited for; 204 where nothing comes."""
        if page.updates or page.is_end:
            return self._polled(place, page)
        stream = self._stream
        with stream.being_read():
            page, ended = await self._wait(page)
        if ended is End.ACCESS:
            raise Unauthenticated("this access has ended")
        return self._polled(place, page)

    async def _wait(self, page: Page) -> tuple[Page, End | None]:
        stream = self._stream
        async with staying(self._here, self._granted, stream.name, self._request.receive) as stay:
            ends_at_s = time.monotonic() + self._here.settings.long_poll_timeout_s
            while not page.updates and not page.is_end:
                if not await stream.moved(page.through_seq, ends_at_s - time.monotonic()):
                    break
                page = await stream.after(page.through_seq)
            await stream.use()
        return page, stay.ended

    def _polled(self, place: int, page: Page) -> Response:
        if page.updates:
            return self.answer(place, page)
        return Response(status_code=204, headers=self._headers(page) | {"Cache-Control": "no-store"})

    def events(self, place: int, page: Page) -> Response:
        """What is behind `place` and all that comes, as events."""
        settings = self._here.settings
        schedule = Schedule(settings.keepalive_interval_s, settings.sse_close_s)
        headers = {**FIXED, "Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store"}
        if not is_text(self._stream.media_type):
            headers["Stream-SSE-Data-Encoding"] = "base64"
        events = self._events(page, schedule)
        nothing = contextlib.AsyncExitStack()
        return EventStream(self._here, self._granted, self._stream.name, events, nothing, headers, self._pace)

    async def _events(self, page: Page, schedule: Schedule) -> AsyncGenerator[bytes, None]:
        stream = self._stream
        with stream.being_read():
            is_first = True
            while True:
                if page.updates or page.is_end or is_first:
                    is_first = False
                    with page.read_by(self._pace):
                        if sum(map(len, page.updates)) > PIECE_BYTES:
                            for piece in in_pieces(_data_event(stream, page.updates)):
                                yield piece
                            yield self._control(page)
                        else:
                            # In one piece: who stops reading behind the data has its place too.
                            yield self._shared_data(page) + self._control(page)
                    if page.is_end:
                        return
                has_nothing_more = page.is_whole or not page.updates
                # What was passed on is not held while there is nothing new.
                page = Page((), page.through_seq, page.head, page.closed)
                if has_nothing_more:
                    has_moved = False
                    while not has_moved:
                        if schedule.is_over:
                            return
                        has_moved = await stream.moved(page.through_seq, self._wait_s(schedule))
                        await stream.use()
                        if not has_moved and not schedule.is_over:
                            yield KEPT_ALIVE
                page = await stream.after(page.through_seq)

    def _wait_s(self, schedule: Schedule) -> float:
        # A stream that lives by being used is used by whoever listens.
        ttl_s = self._stream.ttl_s
        return schedule.wait_s if ttl_s is None else min(schedule.wait_s, ttl_s / 2)

    def _shared_data(self, page: Page) -> bytes:
        """Encoded once for all readers that are given this page; nothing where it is empty."""
        if not page.updates:
            return b""
        stream = self._stream
        key = page.through_seq, len(page.updates)
        if stream.encoded is None or stream.encoded[0] != key:
            stream.encoded = key, b"".join(_data_event(stream, page.updates))
        return stream.encoded[1]

    def _control(self, page: Page) -> bytes:
        fields: dict[str, object] = {"streamNextOffset": str(Token(self._stream.epoch, page.through_seq))}
        if page.is_end:
            fields["streamClosed"] = True
        else:
            fields["streamCursor"] = cursor_after(self._cursor, time.time())
        if page.is_whole:
            fields["upToDate"] = True
        return encode_event("control", orjson.dumps(fields).decode())


def parts_of(stream: Stream, updates: Sequence[bytes]) -> Iterator[bytes]:
    """The bytes of an answer: one after another, or as the elements of one array."""
    if not is_json(stream.media_type):
        yield from updates
        return
    yield b"["
    for number, update in enumerate(updates):
        if number:
            yield b","
        yield update
    yield b"]"


def _data_event(stream: Stream, updates: Sequence[bytes]) -> Iterator[bytes]:
    if is_text(stream.media_type):
        yield from text_event_parts("data", b"".join(parts_of(stream, updates)))
        return
    yield b"event: data\ndata:"
    yield from _base64(updates)
    yield b"\n\n"


def _base64(parts: Iterable[bytes]) -> Iterator[bytes]:
    whole = memoryview(b"".join(parts))
    for at in range(0, len(whole), _BASE64_PIECE_BYTES):
        yield base64.b64encode(whole[at : at + _BASE64_PIECE_BYTES])
