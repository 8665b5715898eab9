"""uvicorn's HTTP connection with the bounds that it leaves open, and the gate in front of the sockets.

A peer that sends its request's head slowly, or one without end, is told so and cut; so is one that takes nothing of
its answer for too long, or too little of what is left when it is being closed. An upgrade that arrives while the
process starts is held until it serves, so that nobody's first try fails; while it drains it is refused before any
socket exists. What a request means is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ydoc_store.sockets import set_options

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100
# How long a refused peer may go on talking. Closing at once would reset the connection under the answer it has
# not read yet.
LINGER_S = 1.0
# How long an idle connection is kept: longer than proxies and clients keep theirs (60 s in nginx), or they would send a
# request into one that is being closed here, and cannot know whether to send it again.
KEEP_ALIVE_S = 75
# How often a held upgrade looks whether the process serves by now.
HOLD_INTERVAL_S = 0.02
# So many looks at a peer that keeps its answer waiting, within the time that it has.
LOOKS_AT_SLOW = 4

Gate = Literal["open", "soon", "shut"]


class BoundedConnection(HttpToolsProtocol):
    """One client connection until it is closed or upgraded. Made by `bounded_connection`."""

    handshake_timeout_s: float
    slow_member_s: float
    gate: Callable[[], Gate]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._refused = False
        self._held_s = 0.0
        self._slow_timer: asyncio.TimerHandle | None = None
        # What the peer has not taken, and since when that has not become less.
        self._unsent_bytes = 0
        self._taken_at_s = 0.0
        # By when one that is being closed is to have taken the rest.
        self._ends_at_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        # Else the kernel's buffer grows, and a slow line that frees a third of it in minutes looks dead meanwhile.
        set_options(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_slow_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._taken_at_s = self.loop.time()
        self._look_again()

    def resume_writing(self) -> None:
        self._stop_slow_timer()
        super().resume_writing()

    def _look_again(self) -> None:
        self._slow_timer = self.loop.call_later(self.slow_member_s / LOOKS_AT_SLOW, self._check_progress)

    def _check_progress(self) -> None:
        # Nothing is written meanwhile: whoever answers waits until the peer has taken nearly all.
        unsent_bytes, now_s = self.transport.get_write_buffer_size(), self.loop.time()
        if unsent_bytes < self._unsent_bytes:
            self._unsent_bytes, self._taken_at_s = unsent_bytes, now_s
        if self._ends_at_s is None and self.transport.is_closing():
            self._ends_at_s = now_s + self.slow_member_s
        is_over = self._ends_at_s is not None and now_s >= self._ends_at_s
        if is_over or now_s - self._taken_at_s >= self.slow_member_s:
            self.transport.abort()
        else:
            self._look_again()

    def _stop_slow_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            # Counted before parsing: one chunk is at most what a transport reads at once.
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse("431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # the first request's timer already runs since the connection was made
        if self._timer is None:
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > HEADERS_MAX:
            self._refuse("431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._in_head = False
        self._head_bytes = 0
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        # after a refusal the parser still runs to the end of its chunk, without a request to give it to
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        if self._refused:
            return
        gate = self.gate()
        if gate == "soon" and self._held_s < self.handshake_timeout_s:
            self._held_s += HOLD_INTERVAL_S
            self.transport.pause_reading()
            self._timer = self.loop.call_later(HOLD_INTERVAL_S, self.handle_websocket_upgrade)
        elif gate == "open":
            self._stop_timer()
            self.transport.resume_reading()
            super().handle_websocket_upgrade()
            # The parser and we hold each other; a socket that lives for days need not keep both.
            self.parser = None  # type: ignore[assignment] # as uvicorn does when a connection is lost
        else:
            self._refuse("503 Service Unavailable")

    def _expect_head(self) -> None:
        self._in_head = True
        self._timer = self.loop.call_later(self.handshake_timeout_s, self._refuse, "408 Request Timeout")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: str) -> None:
        self._stop_timer()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.transport.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode("ascii"))
        # the peer's own end closes the transport; else the timer does
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)


def bounded_connection(
    handshake_timeout_s: float, gate: Callable[[], Gate], slow_member_s: float = 30.0
) -> type[BoundedConnection]:
    """The class to give to uvicorn as `http=`. `gate` says whether sockets may be opened just now."""
    members = {
        "__doc__": BoundedConnection.__doc__,
        "handshake_timeout_s": handshake_timeout_s,
        "slow_member_s": slow_member_s,
        "gate": staticmethod(gate),
    }
    return type("BoundedConnection", (BoundedConnection,), members)
