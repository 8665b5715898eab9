"""`/v1/stream/{name}`: byte and JSON streams over the Durable Streams base protocol, through the same door.

Which request is answered by what, and what a refusal looks like: a problem document with the protocol's own status
and headers. Appends take the short way: many come at once, and each is an answer of a few headers. Forks and
subscriptions are not here, and say so with 501.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store.auth.access import Access
from ydoc_store.errors import (
    AheadOfLog,
    EpochChanged,
    InvalidName,
    InvalidRequest,
    NoSuchStream,
    ProducerGap,
    ProducerStale,
    ServerFault,
    StreamClosed,
    StreamDiffers,
    Unauthenticated,
    YdocError,
)
from ydoc_store.http import stream_reading
from ydoc_store.http.answering import Answering
from ydoc_store.http.bodies import read_body
from ydoc_store.http.door import admit
from ydoc_store.http.here import Here, Present
from ydoc_store.http.place import place_of
from ydoc_store.http.problems import problem
from ydoc_store.http.protocol_headers import Headers, read_closed, read_headers, read_producer, read_text
from ydoc_store.http.stream_reading import FIXED, headers_of
from ydoc_store.http.stream_requests import (
    FORK_HEADERS,
    PREFIX,
    RESERVED_SEGMENT,
    flatten_json,
    is_json,
    read_content_type,
    read_settings,
    same_type,
)
from ydoc_store.http.tokens import Token
from ydoc_store.names import parse_name
from ydoc_store.storage.guards import Closed, Duplicate, Guard
from ydoc_store.streams.stream import Stream, Told

DIALECT: Final = "streams"
METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""
    return [Route(PREFIX + "{rest:path}", Answering(partial(_answer, present), refusal, failure))]


async def _answer(present: Present, request: Request) -> Response:
    here = present()
    name = _name_of(place_of(request.scope).raw_path)
    headers = read_headers(request.scope["headers"])
    if name.partition("/")[0] == RESERVED_SEGMENT or not FORK_HEADERS.isdisjoint(headers):
        return problem(501, "forks and subscriptions are not implemented", FIXED)
    match request.method:
        case "POST":
            return await _append(here, request, name, headers)
        case "GET":
            granted = await admit(here, request, name, Access.READ, dialect=DIALECT)
            return await stream_reading.read(here, request, granted, name)
        case "HEAD":
            granted = await admit(here, request, name, Access.READ, dialect=DIALECT)
            return await stream_reading.describe(here, granted, name)
        case "PUT":
            return await _create(here, request, name, headers)
        case "DELETE":
            granted = await admit(here, request, name, Access.ADMIN, dialect=DIALECT)
            await here.rooms.streams.delete(granted.tenant, name)
            return Response(status_code=204, headers=FIXED)
        case "OPTIONS":
            return Response(status_code=204, headers={**FIXED, "Allow": METHODS})
        case _:
            return problem(405, f"{request.method} is not answered at this path", {**FIXED, "Allow": METHODS})


async def _create(here: Here, request: Request, name: str, headers: Headers) -> Response:
    granted = await admit(here, request, name, Access.WRITE, dialect=DIALECT)
    settings = read_settings(headers)
    closed = read_closed(headers)
    first = await read_body(here, request, here.settings.update_bytes_max)
    if first and is_json(settings.media_type):
        first = await here.rooms.heavy.run(len(first), flatten_json, first, may_be_empty=True)
    stream, created = await here.rooms.streams.create(
        granted.tenant, name, settings, first, granted.actor, closed=closed
    )
    answer = headers_of(stream, stream.head, closed=stream.closed)
    if created:
        # The path as it came: decoded, a name beyond Latin-1 would fit into no header.
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        answer["Location"] = str(request.url.replace(path=path, query=""))
    return Response(status_code=201 if created else 200, headers=answer)


async def _append(here: Here, request: Request, name: str, headers: Headers) -> Response:
    granted = await admit(here, request, name, Access.WRITE, dialect=DIALECT)
    producer, seq, closes = read_producer(headers), read_text(headers, b"stream-seq"), read_closed(headers)
    guard = None
    if producer is not None or seq is not None or closes:
        guard = Guard(producer=producer, stream_seq=seq, closes=closes)
    body = await read_body(here, request, here.settings.update_bytes_max)
    if not body and not closes:
        raise InvalidRequest("an empty body has nothing to append; Stream-Closed: true closes the stream")
    here.rooms.streams.may_write()
    content_type = read_content_type(headers)
    stream = await here.rooms.streams.find(granted.tenant, name)
    try:
        return await _append_to(here, stream, body, content_type, granted.actor, guard)
    except (NoSuchStream, StreamDiffers):
        # Another node may have begun the name anew, and its hint be lost. Nothing was stored.
        again = await here.rooms.streams.find(granted.tenant, name, anew=True)
        return await _append_to(here, again, body, content_type, granted.actor, guard)


async def _append_to(
    here: Here, stream: Stream, body: bytes, content_type: str | None, actor: str | None, guard: Guard | None
) -> Response:
    if body:
        body = await _taken(here, stream, body, content_type)
    await stream.use()
    counts = here.metrics.dialect(DIALECT)
    try:
        told = await stream.append(body, actor, guard)
    except NoSuchStream:
        raise
    except YdocError as error:
        if isinstance(error, ServerFault):
            counts.failed += 1
        else:
            counts.refused += 1
        return refusal(error, stream)
    if isinstance(told, int):
        counts.accepted += 1
    else:
        counts.nothing_new += 1
    return _appended(stream, guard, told)


async def _taken(here: Here, stream: Stream, body: bytes, content_type: str | None) -> bytes:
    if content_type is None:
        raise InvalidRequest("Content-Type is missing")
    if not same_type(content_type, stream.media_type) and not stream.closed:
        raise StreamDiffers(f"this stream is of {stream.content_type}")
    return await here.rooms.heavy.run(len(body), flatten_json, body) if is_json(stream.media_type) else body


def _appended(stream: Stream, guard: Guard | None, told: Told) -> Response:
    producer = guard.producer if guard is not None else None
    head = told.head if isinstance(told, Duplicate | Closed) else told
    headers = {**FIXED, "Stream-Next-Offset": str(Token(stream.epoch, head))}
    if producer is not None:
        headers["Producer-Epoch"] = str(producer.epoch)
        headers["Producer-Seq"] = str(told.producer_seq if isinstance(told, Duplicate) else producer.seq)
    if (
        isinstance(told, Closed)
        or (guard is not None and guard.closes)
        or (isinstance(told, Duplicate) and told.closed)
    ):
        headers["Stream-Closed"] = "true"
    # The protocol tells new from repeated by the status, where a producer asks.
    return Response(status_code=200 if producer is not None and isinstance(told, int) else 204, headers=headers)


def failure() -> Response:
    """What nobody foresaw, with the headers of every answer."""
    return problem(500, "an unexpected error; the server's log has it", FIXED)


def refusal(error: YdocError, stream: Stream | None = None) -> Response:
    """A problem document, with what the protocol says beside it."""
    headers = dict(FIXED)
    status = error.http_status
    if isinstance(error, ServerFault):
        headers["Retry-After"] = "1"
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, EpochChanged | AheadOfLog):
        # What the reader's place was in is gone.
        status = 410
    elif isinstance(error, ProducerStale):
        headers["Producer-Epoch"] = str(error.current_epoch)
    elif isinstance(error, ProducerGap):
        headers["Producer-Expected-Seq"] = str(error.expected)
        headers["Producer-Received-Seq"] = str(error.received)
    elif isinstance(error, StreamClosed) and stream is not None:
        headers["Stream-Closed"] = "true"
        headers["Stream-Next-Offset"] = str(Token(stream.epoch, error.head))
    return problem(status, str(error), headers, code=error.code)


def _name_of(raw_path: bytes) -> str:
    raw = raw_path.partition(PREFIX.encode())[2]
    try:
        return parse_name(unquote_to_bytes(raw).decode())
    except UnicodeDecodeError:
        raise InvalidName("a stream's name is UTF-8") from None
