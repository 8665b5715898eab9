"""Reading a document in the Durable Streams Yjs protocol: its snapshot, what came since, and what comes.

A read from an offset that lies behind the snapshot is answered with the snapshot as one frame, then the tail: nobody
is told to start again, and no reader holds up a compaction. Readers of one document that stand at the same place are
sent the same encoded event. Which update is where is the follower's.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Granted
from ydoc_store.errors import Draining, EpochChanged, InvalidRequest, Unauthenticated
from ydoc_store.http.bodies import PacedBody, in_pieces
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule, encode_binary_events, encode_event
from ydoc_store.http.here import Here
from ydoc_store.http.incarnations import database_here
from ydoc_store.http.protocol_headers import read_etags
from ydoc_store.http.staying import End, staying
from ydoc_store.http.tokens import Offset, Sentinel, SnapshotAt, Token, cursor_after, parse_offset
from ydoc_store.http.yjs_requests import Refused, redirected, single
from ydoc_store.rooms.follower import Follower, Missed, follow
from ydoc_store.yjs.lib0 import encode_uint

if TYPE_CHECKING:
    from ydoc_store.rooms.room import Room

DIALECT: Final = "durable-streams"
CONTENT_TYPE: Final = "application/octet-stream"
SHARED_BYTES_MAX: Final = 64 * 1024
"""An event is shared up to this size: typing never reaches it, and a snapshot is encoded as its reader takes it."""
SHARED_EVENTS_MAX: Final = 8
"""Places at which readers of a document stand at one time; who is further behind than that is served alone."""
ALL_SHARED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of all documents: some seconds of typing in thousands. Past it all are encoded anew."""

Live = Literal["long-poll", "sse"]


class SharedEvents:
    """The last encoded events of each room, for its readers that stand at the same place."""

    def __init__(self, bytes_max: int = ALL_SHARED_BYTES_MAX):
        self._bytes_max = bytes_max
        # By where a reader stands: up to where it leads, and the event.
        self._rooms: weakref.WeakKeyDictionary[Room, dict[int, tuple[int, bytes]]] = weakref.WeakKeyDictionary()
        # At most so much: what went with its room still counts.
        self._kept_bytes = 0

    def find(self, room: Room, seq: int) -> tuple[int, bytes] | None:
        """What leads a reader from `seq` to the room's head."""
        found = self._rooms.get(room, {}).get(seq)
        return found if found is not None and found[0] == room.head else None

    def keep(self, room: Room, seq: int, through_seq: int, event: bytes) -> None:
        if self._kept_bytes + len(event) > self._bytes_max:
            self._rooms.clear()
            self._kept_bytes = 0
        events = self._rooms.setdefault(room, {})
        events[seq] = through_seq, event
        self._kept_bytes += len(event)
        if len(events) > SHARED_EVENTS_MAX:
            _through_seq, dropped = events.pop(next(iter(events)))
            self._kept_bytes -= len(dropped)


shared_events = SharedEvents()


async def read(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a GET. Raises NoSuchDocument, EpochChanged for a token of another history, whatever `follow` does."""
    live = read_live(request)
    text = single(request, "offset")
    if text is None and live is not None:
        raise InvalidRequest("a live read says from where: give its offset")
    offset = Sentinel.BEGINNING if text is None else parse_offset(text)
    if live is not None and (isinstance(offset, SnapshotAt) or offset is Sentinel.SNAPSHOT):
        raise InvalidRequest("a snapshot is not read live")
    cursor = single(request, "cursor")
    cursor_after(cursor, time.time())
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(follow(here.rooms, granted, name, dialect=DIALECT))
        await follower.must_exist()
        if offset is Sentinel.SNAPSHOT:
            return await _discover(here, request, follower)
        database = await database_here(here)
        follower.raise_if_ended()
        reader = _Reader(here, request, granted, name, follower, stack, cursor, database)
        if isinstance(offset, SnapshotAt):
            return await reader.snapshot(offset.token)
        seq = seq_of(offset, follower)
        if live == "sse":
            return await reader.event_stream(seq)
        if live == "long-poll":
            return await reader.long_poll(seq)
        if offset is Sentinel.NOW:
            return Response(headers=reader.headers(seq) | {"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)
        return await reader.catch_up(seq)


async def describe(here: Here, granted: Granted, name: str) -> Response:
    """Answer a HEAD: where the document ends. Raises NoSuchDocument."""
    async with follow(here.rooms, granted, name, dialect=DIALECT) as follower:
        await follower.must_exist()
        token = Token(follower.room.epoch, follower.head)
    headers = {"Stream-Next-Offset": str(token), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(headers=headers, media_type=CONTENT_TYPE)


def read_live(request: Request) -> Live | None:
    """Which live mode is asked for. Raises InvalidRequest."""
    found = single(request, "live")
    match found:
        case None | "false":
            return None
        case "long-poll" | "true":
            return "long-poll"
        case "sse":
            return "sse"
    raise InvalidRequest("live is long-poll or sse")


def seq_of(offset: Offset, follower: Follower) -> int:
    """Up to which seq somebody has everything who stands there. Raises EpochChanged for another history's token."""
    if isinstance(offset, Token):
        if offset.epoch != follower.room.epoch:
            raise EpochChanged("this offset is of another history of the document: load it anew")
        return offset.seq
    return follower.head if offset is Sentinel.NOW else 0


async def _discover(here: Here, request: Request, follower: Follower) -> Response:
    room = follower.room
    through_seq = await here.rooms.snapshots.find(room)
    target = "-1" if through_seq is None else str(SnapshotAt(Token(room.epoch, through_seq)))
    caching = {"Cache-Control": "private, max-age=5", "Vary": "Authorization, Cookie"}
    headers = {"Location": redirected(request, target), **caching}
    return Response(status_code=307, headers=headers)


class _Reader:
    """One request of one reader. `stack` closes what it holds; an answer that is still being sent takes it over."""

    def __init__(
        self,
        here: Here,
        request: Request,
        granted: Granted,
        name: str,
        follower: Follower,
        stack: contextlib.AsyncExitStack,
        cursor: str | None,
        database: str,
    ):
        self._here = here
        self._request = request
        self._granted = granted
        self._name = name
        self._follower = follower
        self._stack = stack
        self._cursor = cursor
        # A restored backup gives seqs again: what a browser keeps of before is not the same.
        self._database = database

    def _token(self, seq: int) -> Token:
        return Token(self._follower.room.epoch, seq)

    def headers(self, through_seq: int, *, is_whole: bool = True) -> dict[str, str]:
        """Of an answer that leads up to `through_seq`."""
        headers = {
            "Stream-Next-Offset": str(self._token(through_seq)),
            "Stream-Cursor": cursor_after(self._cursor, time.time()),
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        return headers | ({"Stream-Up-To-Date": "true"} if is_whole else {})

    async def snapshot(self, token: Token) -> Response:
        """The stored snapshot's bytes as they are, while it is the current one."""
        room = self._follower.room
        snapshot = None
        if token.epoch == room.epoch:
            snapshot = await self._here.rooms.snapshots.read(room, token.seq)
        if snapshot is None:
            raise Refused(404, "SNAPSHOT_NOT_FOUND", "this is not the document's snapshot: ask for offset=snapshot")
        headers = self.headers(token.seq, is_whole=False) | {
            "Stream-Next-Offset": str(token.behind_snapshot),
            "ETag": f'"{self._database}-{room.marker:x}-{token.seq}-snapshot"',
            "Cache-Control": "private, no-cache",
        }
        # Superseded meanwhile, it still counts for as long as this reader takes it.
        return self._paced([self._stack.enter_context(snapshot.read_by(self._follower.pace)).update], headers)

    async def catch_up(self, seq: int) -> Response:
        """Everything behind `seq`, as it is now."""
        missed = await self._stack.enter_async_context(self._follower.missed(seq))
        return self._missed(seq, missed)

    def _missed(self, seq: int, missed: Missed) -> Response:
        # Of the same content, though a compaction may have joined it otherwise: so a weak one.
        etag = f'W/"{self._database}-{self._follower.room.marker:x}-{seq}-{missed.through_seq}"'
        caching = "no-store" if missed.is_substituted else "private, no-cache"
        is_whole = missed.through_seq >= self._follower.head
        headers = self.headers(missed.through_seq, is_whole=is_whole) | {"ETag": etag, "Cache-Control": caching}
        return self._paced(list(framed(missed.updates)), headers)

    def _paced(self, parts: Sequence[bytes], headers: dict[str, str]) -> Response:
        if headers["ETag"].removeprefix("W/") in read_etags(dict(self._request.scope["headers"])):
            return Response(status_code=304, headers=headers)
        size = sum(map(len, parts))
        closing = self._stack.pop_all()
        return PacedBody(self._here, self._granted, self._name, parts, size, closing, headers, self._follower.pace)

    async def long_poll(self, seq: int) -> Response:
        """What is behind `seq`, waited for; 204 where nothing comes."""
        missed = await self._stack.enter_async_context(self._follower.missed(seq))
        if missed.updates:
            return self._missed(seq, missed)
        has_moved = False
        async with staying(self._here, self._granted, self._name, self._request.receive) as stay:
            # A poll that this process's end cuts short has found nothing; the next one is another process's.
            with contextlib.suppress(Draining):
                has_moved = await self._follower.moved(seq, self._here.settings.long_poll_timeout_s)
        if stay.ended is End.ACCESS:
            raise Unauthenticated("this access has ended")
        if has_moved:
            return await self.catch_up(seq)
        return Response(status_code=204, headers=self.headers(seq) | {"Cache-Control": "no-store"})

    async def event_stream(self, seq: int) -> Response:
        """What is behind `seq` and all that comes, as events."""
        if seq > self._follower.head:
            # Told by a status, which an answer that has begun does not have any more.
            async with self._follower.missed(seq):
                pass
        settings = self._here.settings
        schedule = Schedule(settings.keepalive_interval_s, settings.sse_close_s)
        headers = {"Stream-SSE-Data-Encoding": "base64", "Cross-Origin-Resource-Policy": "cross-origin"}
        events = self._events(seq, schedule)
        closing = self._stack.pop_all()
        return EventStream(self._here, self._granted, self._name, events, closing, headers, self._follower.pace)

    async def _events(self, seq: int, schedule: Schedule) -> AsyncGenerator[bytes, None]:
        follower = self._follower
        has_said = has_marker = False
        while not schedule.is_over:
            # The first updates bring the epoch's marker to whoever has none; the others are everyone's.
            shared = shared_events.find(follower.room, seq) if has_marker else None
            if shared is not None:
                seq, data = shared
                yield data + self._control(seq)
            elif not has_said or follower.head != seq:
                async with follower.missed(seq) as missed:
                    for events in self._encoded(seq, missed, is_shared=has_marker):
                        yield events
                    seq = missed.through_seq
                    has_said, has_marker = True, has_marker or bool(missed.updates)
            elif not await follower.moved(seq, schedule.wait_s) and not schedule.is_over:
                yield KEPT_ALIVE

    def _encoded(self, seq: int, missed: Missed, *, is_shared: bool) -> Iterator[bytes]:
        control = self._control(missed.through_seq)
        parts = list(framed(missed.updates))
        if sum(map(len, parts)) > SHARED_BYTES_MAX:
            for piece in in_pieces(parts):
                yield from encode_binary_events("data", piece)
            yield control
            return
        data = b"".join(encode_binary_events("data", b"".join(parts)))
        if is_shared and data:
            shared_events.keep(self._follower.room, seq, missed.through_seq, data)
        yield data + control

    def _control(self, seq: int) -> bytes:
        fields: dict[str, object] = {
            "streamNextOffset": str(self._token(seq)),
            "streamCursor": cursor_after(self._cursor, time.time()),
        }
        if seq >= self._follower.head:
            fields["upToDate"] = True
        return encode_event("control", orjson.dumps(fields).decode())


def framed(updates: Iterable[bytes]) -> Iterator[bytes]:
    """The parts of a run of frames, which are not copied for that."""
    for update in updates:
        yield encode_uint(len(update))
        yield update
