"""One WebSocket connection, whoever carries it: messages to its session, and a session's messages to its carrier.

Here is what every connection does alike: what is read is handed over or held, reading is paused for as long as any
reason is left, what the peer has not taken is counted, and a close is told once. A carrier (`socket_connection`,
`asgi_connection`) brings messages, sends bytes and says what it has not sent yet. What messages mean lives in the
sessions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ydoc_store.errors import SlowMember, TextFrame, TooLarge, YdocError
from ydoc_store.logs import new_connection_id
from ydoc_store.relay.closing import CLOSE_TIMEOUT_S, reason_for
from ydoc_store.relay.credentials import NO_HEADERS, Headers
from ydoc_store.relay.sessions import Session

if TYPE_CHECKING:
    from ydoc_store.auth.limits import Allowance
    from ydoc_store.relay.relay import Relay

# Below this much unsent, a first sync writes its next piece.
WRITE_LOW_WATER_BYTES = 16 * 1024
WRITE_HIGH_WATER_BYTES = 64 * 1024

# A connection's outbox is counted anew when it grew by so much, and a message that is half here from so much on.
COUNTED_STEP_BYTES = 64 * 1024

# Why reading is paused; it goes on when no reason is left.
OPENING, MEMBER, RESTING, DRAINING, HOLDING = 1, 2, 4, 8, 16


class Connection:
    """A carrier's side of one session; also its `Outlet`. `write` and `encode` are the carrier's own."""

    # Slots, because ten thousand of these are idle at once.
    __slots__ = (
        "_close_timer",
        "_congested",
        "_drained",
        "_ended",
        "_held",
        "_is_handing_over",
        "_look_at_bytes",
        "_paced_end_bytes",
        "_paused_for",
        "_rest_timer",
        "_taken_at_s",
        "_taken_bytes",
        "_written_bytes",
        "allowance",
        "counted_bytes",
        "document",
        "half_read_bytes",
        "headers",
        "id",
        "is_closing",
        "is_open",
        "opened_at_s",
        "path",
        "relay",
        "root",
        "session",
    )

    def __init__(self, relay: Relay):
        self.relay = relay
        self.session: Session | None = None
        self.headers: Headers = NO_HEADERS
        # The undecoded request target behind the path under which this service is mounted, and that path.
        self.path = ""
        self.root = ""
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
        # Messages that were read before the session takes them: at most what one read of the socket brought.
        self._held: deque[bytes] | None = None
        self.allowance: Allowance | None = None
        self._is_handing_over = False
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

    # What a carrier answers

    @property
    def peer(self) -> Any:
        """The other end's address, its host first; nothing where the carrier knows none."""
        raise NotImplementedError

    @property
    def _unsent_bytes(self) -> int:
        raise NotImplementedError

    @property
    def _is_behind(self) -> bool:
        """Whether a first sync waits before it writes on."""
        return self._congested

    def is_gone(self, dead_after_s: float) -> bool:
        """Whether nothing on its way to this peer was acknowledged for so long; False where nobody can tell."""
        raise NotImplementedError

    def cut(self) -> None:
        """Free what waits for it, and end it without a word."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Read nothing from the peer until `_go_on`."""
        raise NotImplementedError

    def _go_on(self) -> None:
        raise NotImplementedError

    def _put(self, encoded: bytes) -> None:
        """Send, and add to `_written_bytes` before."""
        raise NotImplementedError

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Send a close frame behind what waits."""
        raise NotImplementedError

    def encode(self, message: bytes) -> bytes:
        raise NotImplementedError

    def write(self, encoded: bytes) -> None:
        raise NotImplementedError

    # From the carrier

    def _message(self, message: bytes, *, is_text: bool) -> None:
        if self.is_closing:
            return
        if is_text:
            self.close(TextFrame("this protocol speaks binary frames only"))
        elif self._held is not None:
            self._held.append(message)
        elif self.session is not None:
            self._give(self.session, message)

    def _too_large(self) -> None:
        limit = self.relay.settings.update_bytes_max
        self.close(TooLarge(f"a message over {limit} bytes (YDOC_UPDATE_BYTES_MAX)"))

    def _give(self, session: Session, message: bytes) -> None:
        """Hand over, and read on when this connection and its address may bring more."""
        if self.allowance is not None and (rest_s := self.allowance.take(len(message), time.monotonic())):
            self.rest_reading(rest_s)
        session.receive(message)

    def _over(self) -> None:
        """The carrier has ended; nothing comes and nothing goes from now on."""
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
        self._pause(OPENING)

    def begin(self, session: Session) -> None:
        """The document is open: hand over what came early, and read on."""
        self.session = session
        self._hand_over()
        self._resume(OPENING)

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
        return self._paused_for & (RESTING | HOLDING)

    # Reading

    def pause_reading(self) -> None:
        self._pause(MEMBER)

    def resume_reading(self) -> None:
        self._resume(MEMBER)

    def rest_reading(self, seconds: float) -> None:
        if not self.is_closing and not self._paused_for & RESTING:
            self._held = deque() if self._held is None else self._held
            self._pause(RESTING)
            self._rest_timer = asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._rest_timer = None
        self._resume(RESTING)
        self._hand_over()

    def hold_reading(self) -> None:
        if not self.is_closing:
            self._held = deque() if self._held is None else self._held
            self._pause(HOLDING)

    def release_reading(self) -> None:
        self._resume(HOLDING)
        self._hand_over()

    def stop_reading(self) -> None:
        """For a drain: what is read from now on could not be committed."""
        self._pause(DRAINING)

    def _pause(self, reason: int) -> None:
        if not self.is_closing:
            if not self._paused_for:
                self._stop()
            self._paused_for |= reason

    def _resume(self, reason: int) -> None:
        if self._paused_for & reason:
            self._paused_for &= ~reason
            if not self._paused_for and not self._ended:
                self._go_on()

    # To the carrier

    async def write_paced(self, encoded: bytes) -> bool:
        """Bytes of a first sync: returns when the socket has taken nearly all of them, False once it is closed."""
        if not self.is_closing:
            self._paced_end_bytes = self._written_bytes + len(encoded)
            self._put(encoded)
        # Whoever waits here holds one copy of it, the carrier's.
        del encoded
        while self._is_behind and not self.is_closing:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        return not self.is_closing

    @property
    def _taken_so_far(self) -> int:
        return self._written_bytes - self._unsent_bytes

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
        self._say_goodbye(error.close_code, reason)

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
            self._go_on()
        self._paused_for = 0
        self._wake_writer()
        if not self._ended:
            self._close_timer = asyncio.get_running_loop().call_later(timeout_s, self.cut)
