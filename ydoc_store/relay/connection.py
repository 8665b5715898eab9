"""One WebSocket connection: bytes from a socket to a session, and a session's frames to the socket.

The WebSocket protocol itself is `websockets`' sans-I/O `ServerProtocol`; data frames go to the session as they are
parsed, without a queue or a task between, which is what keeps the cost of an update low. The outbox is the
transport's own buffer, so that a frame that was built once is written to every member as it is. What frames mean
lives in the sessions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from ydoc_store.errors import RoomDiscarded, SlowMember, TooLarge, YdocError

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

    from ydoc_store.relay.relay import Relay

# How long a peer may take to answer our close frame before the socket is cut.
CLOSE_TIMEOUT_S = 5.0
# Below this much unsent, a first sync writes its next piece.
WRITE_LOW_WATER_BYTES = 16 * 1024
WRITE_HIGH_WATER_BYTES = 64 * 1024
# RFC 6455: a close frame carries at most 125 bytes, two of them the code.
CLOSE_REASON_BYTES_MAX = 123

# The library would describe every frame at debug level; ours says what an operator acts on.
_quiet = logging.getLogger("ydoc_store.relay.wire")
_quiet.setLevel(logging.CRITICAL)


class Session(Protocol):
    """What takes the frames of one connection."""

    def receive(self, frame: bytes) -> None: ...
    def receive_text(self) -> None: ...
    def closed(self) -> None: ...


class Connection(asyncio.Protocol):
    """The socket's side of one session; also its `Outlet`."""

    def __init__(self, relay: Relay):
        self.relay = relay
        self.session: Session | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before anything else happens
        self.headers = Headers()
        self.path = ""
        # When the socket last took a byte, by the relay's clock, and how many it had taken by then.
        self.taken_at_s = 0.0
        self.taken_bytes = 0
        self.is_open = False
        self._written_bytes = 0
        self._ended = False
        self._closing = False
        self._congested = False
        self._drained: asyncio.Future[None] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._reading_paused = False
        self._early: list[bytes] | None = []
        self._fragments: list[bytes] = []
        self._text = False
        self._protocol = ServerProtocol(
            subprotocols=None,
            select_subprotocol=_select_first,
            max_size=relay.settings.frame_bytes_max,
            logger=_quiet,
        )

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH_WATER_BYTES, WRITE_LOW_WATER_BYTES)
        self.relay.connected(self)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            elif isinstance(event, Request):
                self._upgrade(event)
        if protocol.parser_exc is not None:
            self._refuse_frame(protocol.parser_exc)
        elif protocol.writes:
            self._write_all(protocol.data_to_send())

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
        opcode = frame.opcode
        if opcode is Opcode.BINARY or opcode is Opcode.TEXT:
            if frame.fin:
                self._message(bytes(frame.data), opcode is Opcode.TEXT)
            else:
                self._fragments, self._text = [bytes(frame.data)], opcode is Opcode.TEXT
        elif opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                fragments, self._fragments = self._fragments, []
                self._message(b"".join(fragments), self._text)
        elif opcode is Opcode.CLOSE:
            self._closing = True
            self.relay.metrics.closed(self._protocol.close_rcvd.code if self._protocol.close_rcvd else 1005)
            self._write_all(self._protocol.data_to_send())
            self.transport.close()

    def _message(self, message: bytes, is_text: bool) -> None:
        if self._closing:
            return
        if is_text:
            if self.session is not None:
                self.session.receive_text()
            else:
                self.close(RoomDiscarded("a text frame before the document was open"))
        elif self.session is not None:
            self.session.receive(message)
        elif self._early is not None:
            # Reading is paused until the document is open; this came in the same chunk.
            self._early.append(message)

    def _refuse_frame(self, error: Exception) -> None:
        if self._closing:
            return
        if isinstance(error, PayloadTooBig):
            # The library's own answer is 1009, after which a y-websocket client sends the same bytes for ever.
            self._protocol.data_to_send()
            limit = self.relay.settings.update_bytes_max
            self.close(TooLarge(f"a message over {limit} bytes (YDOC_UPDATE_BYTES_MAX)"))
            return
        self._closing = True
        self.relay.metrics.closed(self._protocol.close_sent.code if self._protocol.close_sent else 1002)
        self._write_all(self._protocol.data_to_send())
        self._cut_later()

    def eof_received(self) -> None:
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = self._closing = True
        self.is_open = False
        self._early = None
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._wake_writer()
        session, self.session = self.session, None
        if session is not None:
            session.closed()
        self.relay.disconnected(self)

    # A session begins

    def begin(self, session: Session) -> None:
        """The document is open: hand over what came early, and read on."""
        early, self._early = self._early or [], None
        self.session = session
        for message in early:
            session.receive(message)
        self.resume_reading()

    # To the socket: the Outlet

    def encode(self, message: bytes) -> bytes:
        """A binary message in one unmasked frame, as it goes to every connection."""
        return Frame(Opcode.BINARY, message).serialize(mask=False)

    def write(self, encoded: bytes) -> None:
        """Live bytes. The transport tries the socket at once; what it does not take is this member's outbox."""
        if self._closing:
            return
        self._written_bytes += len(encoded)
        self.transport.write(encoded)
        if self._congested and self.outbox_bytes > self.relay.settings.outbox_bytes_max:
            self.close(SlowMember("this connection is too far behind: sync again"))

    async def write_paced(self, encoded: bytes) -> bool:
        """Bytes of a first sync: returns when the socket has taken nearly all of them, False once it is closed."""
        if self._closing:
            return False
        self._written_bytes += len(encoded)
        self.transport.write(encoded)
        while self._congested and not self._ended:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        return not self._closing

    @property
    def outbox_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        self._congested = True
        self.taken_at_s = self.relay.now_s
        self.taken_bytes = self._written_bytes - self.outbox_bytes
        self.relay.congested[self] = None

    def resume_writing(self) -> None:
        self._congested = False
        self.relay.congested.pop(self, None)
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def check_progress(self, now_s: float, slow_member_s: float) -> None:
        """Close a peer that took no byte for too long; asked only while its outbox is not empty."""
        taken = self._written_bytes - self.outbox_bytes
        if taken != self.taken_bytes:
            self.taken_bytes, self.taken_at_s = taken, now_s
        elif now_s - self.taken_at_s >= slow_member_s:
            self.close(SlowMember(f"this connection took no byte for {slow_member_s:g} s"))

    def pause_reading(self) -> None:
        if not self._reading_paused and not self._ended:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self._ended:
            self._reading_paused = False
            self.transport.resume_reading()

    def close(self, error: YdocError) -> None:
        """Say why and close. What the peer sends from now on is read and dropped, so that it reads our reason."""
        if self._closing:
            return
        self._closing = True
        self.relay.metrics.closed(error.close_code)
        reason = str(error).encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(error.close_code, reason)
            self._write_all(self._protocol.data_to_send())
        else:
            # The library's parser has failed and said goodbye in its own words, which were not sent.
            close = Close(error.close_code, reason)
            self.transport.write(Frame(Opcode.CLOSE, close.serialize()).serialize(mask=False))
        self.resume_reading()
        self._cut_later()

    def _cut_later(self) -> None:
        if self._close_timer is None and not self._ended:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def shutdown(self) -> None:
        """uvicorn's word for the end of the process; a drain has said goodbye before this."""
        if not self._ended:
            self.transport.close()

    def _write_all(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            if chunk:
                self._written_bytes += len(chunk)
                self.transport.write(chunk)
            else:
                # The library asks for the end of the stream: our close frame was the answer to theirs.
                self._cut_later()


def _select_first(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    # A browser that offers subprotocols fails the connection unless one is selected.
    return offered[0] if offered else None


def connection_factory(relay: Relay) -> Any:
    """What uvicorn calls for each upgrade, as its `ws` setting."""

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> Connection:
        connection = Connection(relay)
        relay.server_connections = server_state.connections
        return connection

    return make
