"""Server-sent events: how they look, and an answer that is sent one by one, as fast as its reader takes them.

Nothing is collected: the next event is asked for when the connection has taken the one before. A silent stream is kept
alive with comments, and ends now and then, so that its reader comes back (YDOC_SSE_CLOSE_S); it also ends with its
reader's access, and when the process stops. What the events mean is their source's.
"""

from __future__ import annotations

import base64
import contextlib
import random
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ydoc_store.auth.access import Granted
from ydoc_store.errors import YdocError
from ydoc_store.http.staying import End, Serving, Stay, staying
from ydoc_store.rooms.pace import Pace

KEPT_ALIVE: Final = b": \n\n"
"""A comment, which every reader of events skips."""
BINARY_PIECE_BYTES: Final = 48 * 1024
"""A long payload goes as several events: with base64 each stays under what a connection is given at once."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def encode_event(name: str, text: str) -> bytes:
    """One event; each line of the text gets its own field, so that no text can end the event or begin another."""
    return encode_text_event(name, text.encode())


def encode_text_event(name: str, text: bytes) -> bytes:
    """As `encode_event`, for text that is encoded already. A reader takes one space away at the start of a line."""
    return b"".join(text_event_parts(name, text))


def text_event_parts(name: str, text: bytes) -> Iterator[bytes]:
    """The same event line by line, made as it is taken: a text of line ends alone becomes six times as long."""
    yield b"event: %b\n" % name.encode()
    at = 0
    for end in _LINE_END.finditer(text):
        yield _data_line(text[at : end.start()])
        at = end.end()
    yield _data_line(text[at:])
    yield b"\n"


def _data_line(line: bytes) -> bytes:
    return b"data:%b%b\n" % (b" " if line.startswith(b" ") else b"", line)


def encode_binary_events(name: str, payload: bytes) -> Iterator[bytes]:
    """The payload as base64, in as many events as it takes; each decodes alone, and they follow each other."""
    for at in range(0, len(payload), BINARY_PIECE_BYTES):
        piece = base64.b64encode(payload[at : at + BINARY_PIECE_BYTES])
        yield b"event: %b\ndata:%b\n\n" % (name.encode(), piece)


class Schedule:
    """When a stream that has nothing to say says that it lives, and when it ends."""

    def __init__(self, keepalive_interval_s: float, close_s: float):
        self._keepalive_interval_s = keepalive_interval_s
        # Not all at once: readers that came together would come back together.
        self._ends_at_s = time.monotonic() + close_s * random.uniform(0.9, 1.0)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at_s

    @property
    def wait_s(self) -> float:
        """How long to wait for news before the stream is to say something or to end."""
        return max(0.0, min(self._keepalive_interval_s, self._ends_at_s - time.monotonic()))


class EventStream(Response):
    """`events` yields encoded events, or KEPT_ALIVE; its end, or an error of ours, ends the stream.

    `closing` is what the source needs closed with it. The stream takes over both. `pace` is the reader's, for whom the
    source holds what others may wait for.
    """

    def __init__(
        self,
        here: Serving,
        granted: Granted,
        document: str,
        events: AsyncGenerator[bytes, None],
        closing: contextlib.AsyncExitStack,
        headers: Mapping[str, str],
        pace: Pace | None = None,
    ):
        # Proxies such as nginx would collect the events, and a cache would keep them.
        fixed = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        super().__init__(None, 200, {**fixed, **headers}, "text/event-stream")
        del self.headers["content-length"]
        self._here = here
        self._granted = granted
        self._document = document
        self._events = events
        self._closing = closing
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._closing, contextlib.aclosing(self._events):
            async with staying(self._here, self._granted, self._document, receive, self._pace) as stay:
                await stay.sending(
                    send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                )
                with contextlib.suppress(YdocError):
                    # Whoever comes back is told by the answer to that.
                    await self._pass_on(stay, send)
            if stay.ended not in (End.GONE, End.SLOW):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_on(self, stay: Stay, send: Send) -> None:
        async for event in self._events:
            await stay.sending(send({"type": "http.response.body", "body": event, "more_body": True}), len(event))
