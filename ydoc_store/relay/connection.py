"""One WebSocket connection: bytes from a socket to a session, and a session's frames to the socket.

The WebSocket protocol itself is `websockets`' sans-I/O `ServerProtocol`; data frames go to the session as they are
parsed, without a queue or a task between, which is what keeps the cost of an update low. The outbox is the
transport's own buffer, so that a frame that was built once is written to every member as it is. What frames mean
lives in the sessions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from ydoc_store.errors import SlowMember, TextFrame, TooLarge, YdocError
from ydoc_store.logs import new_connection_id
from ydoc_store.relay.closing import CLOSE_TIMEOUT_S, reason_for
from ydoc_store.relay.sessions import Session
from ydoc_store.relay.sockets import set_options
from ydoc_store.relay.wire import Parts, new_protocol

if TYPE_CHECKING:
    from ydoc_store.auth.limits import Allowance
    from ydoc_store.relay.relay import Relay

# Below this much unsent, a first sync writes its next piece.
WRITE_LOW_WATER_BYTES = 16 * 1024
WRITE_HIGH_WATER_BYTES = 64 * 1024

# A connection's outbox is counted anew when it grew by so much, and a message that is half here from so much on.
COUNTED_STEP_BYTES = 64 * 1024

# Why reading is paused; it goes on when no reason is left.
_OPENING, _MEMBER, _RESTING, _DRAINING, _HOLDING = 1, 2, 4, 8, 16


class Connection(asyncio.Protocol):
    """The socket's side of one session; also its `SocketOutlet`."""

    def __init__(self, relay: Relay):
        self.relay = relay
        self.session: Session | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before anything else happens
        self.headers = Headers()
        self.path = ""
        # What log lines about this connection carry.
        self.id = new_connection_id()
        self.document = ""
        self.opened_at_s = time.monotonic()
        # From the upgrade to the socket's end; `is_closing` from the first close frame on, whoever sent it.
        self.is_open = False
        self.is_closing = False
        self._ended = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._paused_for = 0
        # Frames that were read before the session takes them: at most what one read of the socket brought.
        self._held: deque[bytes] | None = None
        self.allowance: Allowance | None = None
        self._is_handing_over = False
        self._parts = Parts()
        # All bytes written so far, up to where they belong to a first sync, and when to look at the outbox again.
        self._written_bytes = 0
        self._paced_end_bytes = 0
        self._look_at_bytes = 0
        # Since when the socket has taken no byte, by the relay's clock, and how many it had taken by then.
        self._taken_at_s = 0.0
        self._taken_bytes = 0
        self._congested = False
        # What the process's accounts have this connection down for: its outbox, and a message that is half here.
        self.counted_bytes = 0
        self.half_read_bytes = 0
        self._drained: asyncio.Future[None] | None = None
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
            self._write_all(protocol.data_to_send())
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

    def _message(self, message: bytes, *, is_text: bool) -> None:
        if self.is_closing:
            return
        if is_text:
            self.close(TextFrame("this protocol speaks binary frames only"))
        elif self._held is not None:
            self._held.append(message)
        elif self.session is not None:
            self._give(self.session, message)

    def _give(self, session: Session, message: bytes) -> None:
        """Hand over, and read on when this connection and its address may bring more."""
        if self.allowance is not None and (rest_s := self.allowance.take(len(message), time.monotonic())):
            self.rest_reading(rest_s)
        session.receive(message)

    def _refuse_frame(self, error: Exception) -> None:
        words = self._protocol.data_to_send()
        if self.is_closing:
            return
        if isinstance(error, PayloadTooBig):
            # The library's own answer is 1009, after which a y-websocket client sends the same bytes for ever.
            limit = self.relay.settings.update_bytes_max
            self.close(TooLarge(f"a message over {limit} bytes (YDOC_UPDATE_BYTES_MAX)"))
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
        self._ended = True
        self._begin_closing(1006)
        self.is_open = False
        for timer in (self._close_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        session, self.session = self.session, None
        if session is not None:
            session.closed()
        self.relay.disconnected(self)

    # A session begins

    def wait_for_session(self) -> None:
        """Read no more until `begin`; what came with the same read is kept."""
        if self._held is None:
            self._held = deque()
        self._pause(_OPENING)

    def begin(self, session: Session) -> None:
        """The document is open: hand over what came early, and read on."""
        self.session = session
        self._hand_over()
        self._resume(_OPENING)

    def _hand_over(self) -> None:
        if self._is_handing_over:
            # A session that releases the socket over a frame is given the next one when it is done with this one.
            return
        self._is_handing_over = True
        try:
            while self._held and self.session is not None and not self.is_closing and not self._holds_back:
                self._give(self.session, self._held.popleft())
        finally:
            self._is_handing_over = False
        if not self._held and not self._holds_back:
            self._held = None

    @property
    def _holds_back(self) -> int:
        return self._paused_for & (_RESTING | _HOLDING)

    # Reading

    def pause_reading(self) -> None:
        self._pause(_MEMBER)

    def resume_reading(self) -> None:
        self._resume(_MEMBER)

    def rest_reading(self, seconds: float) -> None:
        if not self.is_closing and not self._paused_for & _RESTING:
            self._held = deque() if self._held is None else self._held
            self._pause(_RESTING)
            self._rest_timer = asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._rest_timer = None
        self._resume(_RESTING)
        self._hand_over()

    def hold_reading(self) -> None:
        if not self.is_closing:
            self._held = deque() if self._held is None else self._held
            self._pause(_HOLDING)

    def release_reading(self) -> None:
        self._resume(_HOLDING)
        self._hand_over()

    def stop_reading(self) -> None:
        """For a drain: what is read from now on could not be committed."""
        self._pause(_DRAINING)

    def _pause(self, reason: int) -> None:
        if not self.is_closing:
            if not self._paused_for:
                self.transport.pause_reading()
            self._paused_for |= reason

    def _resume(self, reason: int) -> None:
        if self._paused_for & reason:
            self._paused_for &= ~reason
            if not self._paused_for and not self._ended:
                self.transport.resume_reading()

    # To the socket: the Outlet

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

    async def write_paced(self, encoded: bytes) -> bool:
        """Bytes of a first sync: returns when the socket has taken nearly all of them, False once it is closed."""
        if not self.is_closing:
            self._written_bytes += len(encoded)
            self._paced_end_bytes = self._written_bytes
            self.transport.write(encoded)
        # Whoever waits here holds one copy of it, the transport's.
        del encoded
        while self._congested and not self.is_closing:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        return not self.is_closing

    @property
    def _taken_so_far(self) -> int:
        return self._written_bytes - self.transport.get_write_buffer_size()

    @property
    def outbox_bytes(self) -> int:
        """Live bytes that the socket has not taken yet; those of a first sync are not among them."""
        return self._written_bytes - max(self._taken_so_far, self._paced_end_bytes)

    def _look_at_outbox(self) -> None:
        outbox_bytes = self.outbox_bytes
        room_left = self.relay.settings.outbox_bytes_max - outbox_bytes
        # It is looked at again when it may be full, or has grown by what counts for the process.
        self._look_at_bytes = self._written_bytes + min(room_left, COUNTED_STEP_BYTES)
        self.relay.outboxes.count(self, outbox_bytes)
        if room_left < 0:
            self.close(SlowMember("this connection is too far behind: sync again"))

    def pause_writing(self) -> None:
        self._congested = True
        self._taken_at_s = self.relay.now_s
        self._taken_bytes = self._taken_so_far
        self._look_at_bytes = 0
        self.relay.outboxes.congested[self] = None

    def resume_writing(self) -> None:
        self._congested = False
        self.relay.outboxes.forget(self)
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def measure(self) -> tuple[float, int]:
        taken = self._taken_so_far
        if taken != self._taken_bytes:
            self._taken_bytes, self._taken_at_s = taken, self.relay.now_s
        return self._taken_at_s, self.outbox_bytes

    def give_way(self) -> None:
        self.close(SlowMember("this connection is slower than the others, and there are too many: sync again"))

    def cut(self) -> None:
        self.transport.abort()

    def check_progress(self, now_s: float, slow_member_s: float) -> None:
        """Close a peer that took no byte for too long; asked only while its outbox is not empty."""
        taken = self._taken_so_far
        if taken != self._taken_bytes:
            self._taken_bytes, self._taken_at_s = taken, now_s
        elif now_s - self._taken_at_s >= slow_member_s:
            self.close(SlowMember(f"this connection took no byte for {slow_member_s:g} s"))

    # The end

    def close(self, error: YdocError, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Say why and close. What the peer sends from now on is read and dropped, so that it reads our reason."""
        if self.is_closing:
            return
        reason = reason_for(error)
        self._begin_closing(error.close_code, timeout_s, reason)
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(error.close_code, reason)
            self._write_all(self._protocol.data_to_send())
        else:
            # The library's parser has failed and said goodbye in its own words, which were not sent.
            close = Close(error.close_code, reason)
            self.transport.write(Frame(Opcode.CLOSE, close.serialize()).serialize(mask=False))

    def _begin_closing(self, code: int, timeout_s: float = CLOSE_TIMEOUT_S, reason: str = "") -> None:
        """From here on nothing more is handed over or sent. Counted once, by the code of whoever was first."""
        if self.is_closing:
            return
        self.is_closing = True
        if self.is_open:
            self.relay.closing(self, code, reason)
        self._held = None
        if self._paused_for and not self._ended:
            # The peer's answer to our close frame must be read.
            self.transport.resume_reading()
        self._paused_for = 0
        self._wake_writer()
        if not self._ended:
            self._close_timer = asyncio.get_running_loop().call_later(timeout_s, self.transport.abort)

    def shutdown(self) -> None:
        """uvicorn's word for the end of the process; a drain has said goodbye before this."""
        if not self._ended:
            self.transport.close()

    def _write_all(self, chunks: Sequence[bytes]) -> None:
        # An empty chunk asks for the end of the stream; closing sees to that.
        for chunk in chunks:
            if chunk:
                self._written_bytes += len(chunk)
                self.transport.write(chunk)
        if self._congested and not self.is_closing and self._written_bytes >= self._look_at_bytes:
            # Pongs for a peer that pings and never reads count like everything else.
            self._look_at_outbox()


def connection_factory(relay: Relay) -> Any:
    """What uvicorn calls for each upgrade, as its `ws` setting."""

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> Connection:
        relay.server_connections = server_state.connections
        return Connection(relay)

    return make
