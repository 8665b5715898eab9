"""A connection on a socket of ours: bytes from a transport, frames to it.

The WebSocket protocol itself is `websockets`' sans-I/O `ServerProtocol`; data frames go to the session as they are
parsed, without a queue or a task between, which is what keeps the cost of an update low. The outbox is the
transport's own buffer, so that a frame that was built once is written to every member as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from ydoc_store.relay.connection import (
    COUNTED_STEP_BYTES,
    WRITE_HIGH_WATER_BYTES,
    WRITE_LOW_WATER_BYTES,
    Connection,
)
from ydoc_store.relay.wire import Parts, new_protocol
from ydoc_store.sockets import is_gone, set_options

if TYPE_CHECKING:
    from ydoc_store.relay.relay import Relay


class SocketConnection(Connection, asyncio.Protocol):
    """One upgraded socket, as uvicorn hands it over."""

    __slots__ = ("_parts", "_protocol", "transport")

    def __init__(self, relay: Relay):
        super().__init__(relay)
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before anything else happens
        self._parts = Parts()
        self._protocol = new_protocol(relay.settings.frame_bytes_max)

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH_WATER_BYTES, WRITE_LOW_WATER_BYTES)
        set_options(self.transport)
        self.relay.connected(self)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            elif isinstance(event, Request):
                self._upgrade(event)
        half_read = len(protocol.reader.buffer) + self._parts.held_bytes
        if half_read > COUNTED_STEP_BYTES or self.half_read_bytes:
            self.relay.half_read_now(self, half_read if half_read > COUNTED_STEP_BYTES else 0)
        if protocol.parser_exc is not None:
            self._refuse_frame(protocol.parser_exc)
        elif protocol.writes:
            answers = protocol.data_to_send()
            # Whoever is being closed, and goes on pinging without reading, is not answered any more.
            if not self.is_closing:
                self._write_all(answers)
            if protocol.handshake_exc is not None:
                self.transport.close()

    def _upgrade(self, request: Request) -> None:
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._write_all(self._protocol.data_to_send())
        if response.status_code != 101:
            self.transport.close()
            return
        self.is_open = True
        self.headers = request.headers
        self.path = request.path
        self.relay.upgraded(self)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CLOSE:
            whole = self._parts.take(frame)
            if whole is not None:
                self._message(whole, is_text=self._parts.is_text)
        else:
            if self._rest_timer is not None:
                # Whoever rests and leaves has said before what is held here: one read of the socket at most.
                self.allowance = None
                self._rested()
            received = self._protocol.close_rcvd
            self._begin_closing(received.code if received is not None else 1005)
            self._write_all(self._protocol.data_to_send())
            self.transport.close()

    def _refuse_frame(self, error: Exception) -> None:
        words = self._protocol.data_to_send()
        if self.is_closing:
            return
        if isinstance(error, PayloadTooBig):
            # The library's own answer is 1009, after which a y-websocket client sends the same bytes for ever.
            self._too_large()
        else:
            sent = self._protocol.close_sent
            self._begin_closing(sent.code if sent is not None else 1002)
            self._write_all(words)
        # The parser is dead: an answer to our close frame would not be seen, but the end of the stream is.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def eof_received(self) -> None:
        # Nothing more will come, so no close frame either: what is on its way out still has its time.
        self._begin_closing(1006)
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._over()

    # To the socket

    def encode(self, message: bytes) -> bytes:
        """A binary message in one unmasked frame, as it goes to every connection."""
        return Frame(Opcode.BINARY, message).serialize(mask=False)

    def write(self, encoded: bytes) -> None:
        """Live bytes. The transport tries the socket at once; what it does not take is this member's outbox."""
        if not self.is_closing:
            self._written_bytes += len(encoded)
            self.transport.write(encoded)
            if self._congested and self._written_bytes >= self._look_at_bytes:
                self._look_at_outbox()

    def _put(self, encoded: bytes) -> None:
        self._written_bytes += len(encoded)
        self.transport.write(encoded)

    def _write_all(self, chunks: Sequence[bytes]) -> None:
        # An empty chunk asks for the end of the stream; closing sees to that.
        for chunk in chunks:
            if chunk:
                self._put(chunk)
        if self._congested and not self.is_closing and self._written_bytes >= self._look_at_bytes:
            # Pongs for a peer that pings and never reads count like everything else.
            self._look_at_outbox()

    def _say_goodbye(self, code: int, reason: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._write_all(self._protocol.data_to_send())
        else:
            # The library's parser has failed and said goodbye in its own words, which were not sent.
            self.transport.write(Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False))

    @property
    def peer(self) -> Any:
        return self.transport.get_extra_info("peername")

    @property
    def _unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def is_gone(self, dead_after_s: float) -> bool:
        return is_gone(self.transport, dead_after_s=dead_after_s)

    def cut(self) -> None:
        self.transport.abort()

    def _stop(self) -> None:
        self.transport.pause_reading()

    def _go_on(self) -> None:
        self.transport.resume_reading()

    def shutdown(self) -> None:
        """uvicorn's word for the end of the process; a drain has said goodbye before this."""
        if not self._ended:
            self.transport.close()


def connection_factory(relay: Relay) -> Any:
    """What uvicorn calls for each upgrade, as its `ws` setting."""

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> SocketConnection:
        relay.server_connections = server_state.connections
        return SocketConnection(relay)

    return make
