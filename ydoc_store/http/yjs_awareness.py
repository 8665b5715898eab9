"""Who is here, in the Durable Streams Yjs protocol: `?awareness=NAME` on a document's path.

`default` is the room's own presence: what a socket shows, a reader gets here, and the other way round. Other names are
streams of their own. Nothing is stored. A reader is first shown everybody who is there, then each change; its token
is a version of the presence, and one of another process is void and begins anew. Whoever shows something here has no
socket to end, so it goes when it is not renewed (YDOC_AWARENESS_TIMEOUT_S); stock providers do so every 15 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Access, Granted
from ydoc_store.errors import Draining, Forbidden, InvalidRequest, Unauthenticated
from ydoc_store.http.bodies import read_body
from ydoc_store.http.door import require
from ydoc_store.http.event_stream import KEPT_ALIVE, EventStream, Schedule, encode_binary_events, encode_event
from ydoc_store.http.here import Here
from ydoc_store.http.staying import End, staying
from ydoc_store.http.tokens import Sentinel, SnapshotAt, Token, cursor_after, parse_offset
from ydoc_store.http.yjs_reading import CONTENT_TYPE, DIALECT, read_live
from ydoc_store.http.yjs_requests import DEFAULT_AWARENESS, Refused, parse_stream_name, read_frames, single
from ydoc_store.rooms.follower import Follower, follow
from ydoc_store.rooms.guests import hear_guest, may_show, show_entries
from ydoc_store.rooms.named_presence import NamedStream, StreamName
from ydoc_store.rooms.presence import Presence
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_buf

if TYPE_CHECKING:
    from ydoc_store.rooms.room import Room

FRAMES_MAX: Final = 64
"""In one body; the stock provider sends one, with what it shows now."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """What is asked about: a room's presence, or a stream of another name beside it (None: nobody has made it)."""

    follower: Follower
    name: StreamName
    named: NamedStream | None

    @property
    def is_default(self) -> bool:
        return self.name.name == DEFAULT_AWARENESS

    @property
    def presence(self) -> Presence:
        if self.is_default:
            return self.follower.room.presence
        if self.named is None or self.named.is_over:
            raise Refused(404, "STREAM_NOT_FOUND", "there is no awareness stream of this name")
        return self.named.presence


async def answer(here: Here, request: Request, granted: Granted, name: str, stream_name: str) -> Response:
    """Answer any request about an awareness stream. Raises NoSuchDocument where there is no document."""
    stream_name = parse_stream_name(stream_name)
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(follow(here.rooms, granted, name, dialect=DIALECT))
        await follower.must_exist()
        key = StreamName(granted.tenant, name, follower.room.epoch, stream_name)
        stream = _Stream(follower, key, here.rooms.attendance.named.find(key))
        match request.method:
            case "GET":
                return await _read(here, request, granted, stream, stack)
            case "HEAD":
                return Response(headers=_headers(stream.presence, None), media_type=CONTENT_TYPE)
            case "PUT":
                return await _create(here, request, granted, stream)
            case "POST":
                return await _show(here, request, granted, stream)
            case _:
                return _delete(here, granted, stream)


def _require_showing(here: Here, granted: Granted) -> None:
    if not may_show(here.settings, granted):
        raise Forbidden("this access shows no presence here (YDOC_AWARENESS)")


# Showing


async def _create(here: Here, request: Request, granted: Granted, stream: _Stream) -> Response:
    _require_showing(here, granted)
    if await read_body(here, request, here.settings.awareness_bytes_max):
        raise InvalidRequest("an awareness stream is created empty: send what you show with POST")
    if stream.is_default:
        return Response(headers=_headers(stream.presence, None), media_type=CONTENT_TYPE)
    made = here.rooms.attendance.named.create(stream.name, time.monotonic())
    status = 201 if stream.named is None else 200
    return Response(status_code=status, headers=_headers(made.presence, None), media_type=CONTENT_TYPE)


async def _show(here: Here, request: Request, granted: Granted, stream: _Stream) -> Response:
    _require_showing(here, granted)
    messages = await _messages(here, request)
    attendance, room = here.rooms.attendance, stream.follower.room
    presence = room.presence if stream.is_default else attendance.named.create(stream.name, time.monotonic()).presence
    for entries in messages:
        if stream.is_default:
            show_entries(here.rooms, room, granted, entries)
        else:
            attendance.named.changed(stream.name, hear_guest(presence, here.settings, granted, entries).fresh)
    return Response(status_code=204, headers=_headers(presence, None))


async def _messages(here: Here, request: Request) -> list[list[AwarenessEntry]]:
    settings = here.settings
    body = await read_body(here, request, 4 * settings.awareness_bytes_max)
    payloads = read_frames(body, "an awareness update", FRAMES_MAX)
    # All of them before any is shown.
    return [
        decode_awareness(
            payload,
            entries_max=settings.awareness_entries_max,
            bytes_max=settings.awareness_bytes_max,
            json_depth_max=settings.nesting_max,
        )
        for payload in payloads
    ]


def _delete(here: Here, granted: Granted, stream: _Stream) -> Response:
    require(granted, Access.WRITE)
    if stream.is_default:
        _end_guests(here, stream.follower.room)
    elif not here.rooms.attendance.named.delete(stream.name):
        raise Refused(404, "STREAM_NOT_FOUND", "there is no awareness stream of this name")
    return Response(status_code=204)


def _end_guests(here: Here, room: Room) -> None:
    """The room's presence is its members' too, and lives with it: what ends is what was shown over HTTP."""
    gone = room.presence.leave_guests(time.monotonic())
    if gone:
        here.rooms.attendance.changed(room, gone, None)


# Reading


async def _read(
    here: Here, request: Request, granted: Granted, stream: _Stream, stack: contextlib.AsyncExitStack
) -> Response:
    live = read_live(request)
    text = single(request, "offset")
    if text is None and live is not None:
        raise InvalidRequest("a live read says from where: give its offset")
    offset = Sentinel.BEGINNING if text is None else parse_offset(text)
    if isinstance(offset, SnapshotAt) or offset is Sentinel.SNAPSHOT:
        raise InvalidRequest("who is here has no snapshot: ask from -1, now, or what an answer said")
    cursor = single(request, "cursor")
    cursor_after(cursor, time.time())
    presence = stream.presence
    version = offset.seq if isinstance(offset, Token) and offset.epoch == presence.incarnation else 0
    if live is None and offset is Sentinel.NOW:
        # Without a word, as the protocol has it; who reads on from here is shown everybody first.
        return Response(headers=_headers(presence, cursor, version=0), media_type=CONTENT_TYPE)
    woken = await stack.enter_async_context(_waking(stream))
    if live == "sse":
        settings = here.settings
        schedule = Schedule(settings.keepalive_interval_s, settings.sse_close_s)
        events = _events(stream, woken, version, cursor, schedule)
        headers = {"Stream-SSE-Data-Encoding": "base64", "Cross-Origin-Resource-Policy": "cross-origin"}
        return EventStream(here, granted, stream.name.document, events, stack.pop_all(), headers)
    if live == "long-poll":
        version = min(version, presence.version)
        async with staying(here, granted, stream.name.document, request.receive) as stay:
            with contextlib.suppress(Draining):
                await _moved(stream, woken, version, here.settings.long_poll_timeout_s)
        if stay.ended is End.ACCESS:
            raise Unauthenticated("this access has ended")
        if stream.presence.version <= version:
            return Response(status_code=204, headers=_headers(presence, cursor, version=version))
    entries = presence.since(version)
    body = encode_buf(encode_awareness_entries(entries)) if entries else b""
    return Response(body, headers=_headers(presence, cursor), media_type=CONTENT_TYPE)


def _headers(presence: Presence, cursor: str | None, *, version: int | None = None) -> dict[str, str]:
    token = Token(presence.incarnation, presence.version if version is None else version)
    return {
        "Stream-Next-Offset": str(token),
        "Stream-Up-To-Date": "true",
        "Stream-Cursor": cursor_after(cursor, time.time()),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


@contextlib.asynccontextmanager
async def _waking(stream: _Stream) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the presence changes, and when its document or stream ends."""
    woken = asyncio.Event()
    wakers = stream.follower.room.wakers
    wakers[woken.set] = None
    if stream.named is not None:
        stream.named.wakers[woken.set] = None
    try:
        yield woken
    finally:
        wakers.pop(woken.set, None)
        if stream.named is not None:
            stream.named.wakers.pop(woken.set, None)


async def _moved(stream: _Stream, woken: asyncio.Event, version: int, timeout_s: float) -> bool:
    """Whether the presence is beyond `version`, at the latest after the time. Raises what the document ends with."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while stream.presence.version <= version:
                stream.follower.raise_if_ended()
                woken.clear()
                await woken.wait()
    stream.follower.raise_if_ended()
    return stream.presence.version > version


async def _events(
    stream: _Stream, woken: asyncio.Event, version: int, cursor: str | None, schedule: Schedule
) -> AsyncGenerator[bytes, None]:
    presence, has_said = stream.presence, False
    while not schedule.is_over:
        if presence.version > version or not has_said:
            entries = presence.since(version)
            version, has_said = presence.version, True
            payload = encode_buf(encode_awareness_entries(entries)) if entries else b""
            fields = {
                "streamNextOffset": str(Token(presence.incarnation, version)),
                "streamCursor": cursor_after(cursor, time.time()),
                "upToDate": True,
            }
            events = [*encode_binary_events("data", payload), encode_event("control", orjson.dumps(fields).decode())]
            yield b"".join(events)
        elif not await _moved(stream, woken, version, schedule.wait_s) and not schedule.is_over:
            yield KEPT_ALIVE
