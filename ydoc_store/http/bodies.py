"""Bodies of requests and of answers: read within limits, sent in pieces, counted while they are half here.

A body that is being read counts among what this process has taken in (`Incoming`), as half messages of sockets do. A
long answer is handed over piece by piece, as fast as its reader takes it. What bodies hold is the callers'.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ydoc_store.auth.access import Granted
from ydoc_store.errors import InvalidRequest, ServerFull, SlowMember, TooLarge
from ydoc_store.http.door import judge_again, take_turn
from ydoc_store.http.staying import End, Stay, staying

if TYPE_CHECKING:
    from ydoc_store.http.here import Here
    from ydoc_store.rooms.pace import Pace

PIECE_BYTES: Final = 64 * 1024
"""What a connection is given at once; it holds no more than this and the same again for a reader that is slow."""


async def read_body(here: Here, request: Request, bytes_max: int) -> bytes:
    """All of a request's body.

    Raises TooLarge for one over `bytes_max`, without reading on; ServerFull where this process has taken in as much as
    it may; SlowMember where nothing comes for YDOC_SLOW_MEMBER_S, InvalidRequest where the client goes away or has
    compressed it; Unauthenticated where its access ended while it came.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        # Stored as it came it would be something else to whoever reads it.
        raise InvalidRequest("bodies are taken as they are, without a Content-Encoding")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise TooLarge(f"a body of {announced} bytes, at most {bytes_max}")
    # Where a server lets both headers through, the body is as long as its chunks say.
    if announced.isdecimal() and int(announced) <= PIECE_BYTES and "Transfer-Encoding" not in request.headers:
        small = await _read_small(here, request)
        judge_again(here, request)
        return small
    incoming = here.rooms.incoming
    # Not a list of its pieces: each, were it of one byte, would take forty.
    body = bytearray()
    try:
        async with asyncio.timeout(here.settings.slow_member_s) as waiting:
            async for piece in request.stream():
                incoming.partial_bytes += len(piece)
                body += piece
                if len(body) > bytes_max:
                    raise TooLarge(f"a body over {bytes_max} bytes")
                if incoming.is_full:
                    raise ServerFull("this server is busy: try again later")
                # A sender that takes its time must not outlast its token.
                judge_again(here, request)
                rest_s = take_turn(here, request, len(piece))
                waiting.reschedule(asyncio.get_running_loop().time() + here.settings.slow_member_s + rest_s)
                if rest_s:
                    await asyncio.sleep(rest_s)
    except TimeoutError:
        raise SlowMember("the rest of the body did not come") from None
    except ClientDisconnect:
        raise InvalidRequest("the body ended early") from None
    finally:
        incoming.partial_bytes -= len(body)
    return bytes(body)


async def _read_small(here: Here, request: Request) -> bytes:
    # One look at the clock for all of it, and no counting: the connection itself may hold as much.
    try:
        async with asyncio.timeout(here.settings.slow_member_s):
            return await request.body()
    except TimeoutError:
        raise SlowMember("the rest of the body did not come") from None
    except ClientDisconnect:
        raise InvalidRequest("the body ended early") from None


class PacedBody(Response):
    """An answer of `size` bytes in all, given as parts of any length.

    `closing` is what the parts need closed with them; this takes it over. `pace` is its reader's. Ends early with its
    reader's access, and for one that is too slow.
    """

    def __init__(
        self,
        here: Here,
        granted: Granted,
        document: str,
        parts: Iterable[bytes],
        size: int,
        closing: contextlib.AsyncExitStack,
        headers: Mapping[str, str],
        pace: Pace,
    ):
        super().__init__(None, 200, {**headers, "Content-Length": str(size)}, "application/octet-stream")
        self._here = here
        self._granted = granted
        self._document = document
        self._parts = parts
        self._closing = closing
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._closing:
            async with staying(self._here, self._granted, self._document, receive, self._pace) as stay:
                await self._send(stay, scope, send)
            if stay.ended is End.ACCESS:
                # Half an answer is told by its missing end.
                return

    async def _send(self, stay: Stay, scope: Scope, send: Send) -> None:
        await stay.sending(
            send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        )
        if scope["method"] != "HEAD":
            for piece in in_pieces(self._parts):
                await stay.sending(send({"type": "http.response.body", "body": piece, "more_body": True}), len(piece))
        await stay.sending(send({"type": "http.response.body", "body": b"", "more_body": False}))


def in_pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about PIECE_BYTES: short parts together, long ones cut."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        if size + len(part) < PIECE_BYTES:
            waiting.append(part)
            size += len(part)
            continue
        if size:
            yield b"".join(waiting)
            waiting, size = [], 0
        if len(part) < PIECE_BYTES:
            waiting, size = [part], len(part)
            continue
        for at in range(0, len(part), PIECE_BYTES):
            yield part[at : at + PIECE_BYTES]
    if size:
        yield b"".join(waiting)
