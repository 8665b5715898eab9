"""One member's talk with its room, whatever the dialect: what each message does, from an open room to the end.

Messages come in decoded; what goes out goes through the member's outlet, in its dialect's words. Whatever is wrong
with a message closes this member and nobody else (I13). How frames look and how several documents share a socket
is the dialects'. Sans-I/O.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from ydoc_store.errors import (
    EpochChanged,
    InvalidFrame,
    RoomDiscarded,
    ServerFailed,
    ServerFault,
    YdocError,
)
from ydoc_store.rooms.admission import judge_reserved, judge_vector
from ydoc_store.rooms.first_sync import Reader
from ydoc_store.rooms.guests import may_show
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.rooms.large import submit_large
from ydoc_store.rooms.member import Dialect, Member, Outlet
from ydoc_store.yjs.awareness import decode_awareness, encode_awareness_entries, stamp
from ydoc_store.yjs.messages import Awareness, Message, QueryAwareness, SyncStep1, SyncStep2, Unknown, Update
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.yjs.awareness import AwarenessEntry

log = structlog.get_logger(__name__)

# So many clients more than the document itself has is no reader's state vector; decoding these takes some 50 ms.
VECTOR_CLIENTS_MAX = 50_000
# A reader brings a few clients of its own; beyond so many only those are remembered that the document has.
VECTOR_EXTRA_KEPT = 100
# Step1 and QueryAwareness: a client asks once a connection, and again when its application forces a sync.
QUESTIONS_BURST = 20
QUESTIONS_PER_S = 2.0
# A timer of asyncio may not be further away than some days; nobody is connected for longer.
TIMER_S_MAX = 30 * 86_400.0


class SocketOutlet(Outlet, Protocol):
    """An outlet that can also hold back what comes in. `id` names its connection in log lines."""

    id: str

    def rest_reading(self, seconds: float) -> None:
        """Hand over nothing for a while, whatever was read already included: held, in order, never dropped."""

    def hold_reading(self) -> None:
        """Likewise, until `release_reading`."""

    def release_reading(self) -> None: ...


def call_at_expiry(granted: Granted, call: Callable[[], None], ahead_s: float = 0.0) -> asyncio.TimerHandle | None:
    """Call when what was granted ends, or `ahead_s` before; None where it never does."""
    if granted.expires_at_s is None:
        return None
    left_s = min(granted.expires_at_s - time.time() - ahead_s, TIMER_S_MAX)
    # A little late rather than early: whoever is called looks at the clock itself.
    return asyncio.get_running_loop().call_later(max(0.0, left_s) + 0.01, call)


class DocumentSession:
    """One member from its open room to its end."""

    def __init__(
        self,
        rooms: Rooms,
        room: Room,
        outlet: SocketOutlet,
        dialect: Dialect,
        granted: Granted,
    ):
        self._rooms = rooms
        self._settings = rooms.settings
        self._outlet = outlet
        self._questions_left = float(QUESTIONS_BURST)
        self._asked_at_s = time.monotonic()
        counts = rooms.metrics.dialect(dialect.name)
        # Whether it has said what it has, and carries no other history.
        self._is_judged = False
        self._has_acks = dialect.ack(accepted=True) is not None
        self.granted = granted
        self.member = Member(room, outlet, dialect, counts, granted.actor, may_write=granted.may_write)
        rooms.enter(self.member)
        counts.connections += 1

    def act(self, message: Message) -> None:
        """Do what the message asks for. Raises nothing: whatever is wrong with it closes this member."""
        member = self.member
        if member.closed:
            return
        try:
            kind = type(message)
            if kind is Update or kind is SyncStep2:
                update: bytes = message.update  # type: ignore[union-attr] # told by `kind`, once
                if not self._is_judged:
                    self._refuse_unasked(update)
                if len(update) <= INLINE_BYTES_MAX:
                    member.room.submit(member, update, answers=kind is SyncStep2)
                else:
                    self._hold(submit_large(self._rooms, member, update, answers=kind is SyncStep2))
            else:
                self._act_on_other(message)
        except EpochChanged as error:
            self._hold(self._send_away(error))
        except Exception as error:
            self.fail(error)

    def _refuse_unasked(self, update: bytes) -> None:
        """Without a Step1 nobody knows which history this one holds (I10), and an edit alone does not carry its
        marker. Stock clients say it first. Raises, what is wrong with the update itself before anything else."""
        room = self.member.room
        if len(update) <= INLINE_BYTES_MAX:
            judge_reserved(walk(update, room.limits.update), room.marker)
        raise InvalidFrame("a SyncStep1 comes before any update")

    def _hold(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what takes a while; what this member sent behind is held until then, so that its order stays (I4)."""
        self._outlet.hold_reading()
        self._rooms.spawn(self._then_release(work))

    async def _then_release(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EpochChanged as error:
            await self._send_away(error)
        except Exception as error:
            self.fail(error)
        self._outlet.release_reading()

    def fail(self, error: Exception) -> None:
        """Close this member: what it sent is refused, and nothing behind it is accepted (I4)."""
        member = self.member
        if isinstance(error, YdocError):
            if isinstance(error, ServerFault):
                member.counts.failed += 1
            else:
                member.counts.refused += 1
            member.room.fence(member, error)
        else:
            log.error("a frame could not be handled", connection=self._outlet.id, exc_info=error)
            member.room.fence(member, ServerFailed("this server failed: come back"))

    async def _send_away(self, error: EpochChanged) -> None:
        """This member carries another marker than the room, and 4409 has its editor throw its copy away. It may be the
        room that is behind, where another node has replaced the document a moment ago: the database is asked first."""
        room = self.member.room
        marker = room.marker
        try:
            await self._rooms.watch.read_missing(room)
            heard = RoomDiscarded("this document was made a moment ago: sync again")
            self.fail(error if room.marker == marker else heard)
        except EpochChanged as replaced:
            self.fail(RoomDiscarded("this document was replaced a moment ago: sync again"))
            room.discard(replaced)
        except Exception as unknown:
            self.fail(unknown)

    def _act_on_other(self, message: Message) -> None:
        if isinstance(message, SyncStep1):
            self._count_question()
            self._step1(message.state_vector)
        elif isinstance(message, Awareness):
            self._awareness(message.payload)
        elif isinstance(message, QueryAwareness):
            self._count_question()
            self._send_presence(self.member.room.presence.current())
        elif isinstance(message, Unknown):
            self._rooms.metrics.ignored("unknown type")

    def _count_question(self) -> None:
        """A few bytes may ask for the whole document: beyond a burst, the next frames wait."""
        now_s = time.monotonic()
        left = self._questions_left + (now_s - self._asked_at_s) * QUESTIONS_PER_S
        self._questions_left = min(QUESTIONS_BURST, left) - 1
        self._asked_at_s = now_s
        if self._questions_left < 0:
            self._outlet.rest_reading(-self._questions_left / QUESTIONS_PER_S)

    def _step1(self, state_vector: bytes) -> None:
        room = self.member.room
        clients_max = VECTOR_CLIENTS_MAX + len(room.knowledge.structs)
        vector = decode_state_vector(state_vector, clients_max=clients_max)
        if room.marker is None and any(client >= RESERVED_CLIENT_ID_MIN for client in vector):
            self._hold(self._answer_once_known(vector))
        else:
            self._answer(vector)

    async def _answer_once_known(self, vector: dict[int, int]) -> None:
        """A reader with a marker comes from a history of a document that does not exist here, as far as this room has
        heard. Another node may have made it a moment ago, so the database is asked before the reader is sent away."""
        await self._rooms.watch.read_missing(self.member.room)
        if not self.member.closed:
            self._answer(vector)

    def _answer(self, vector: dict[int, int]) -> None:
        member, room = self.member, self.member.room
        # No document bytes leave before this: whoever carries another history's marker is told, and gets nothing.
        judge_vector(vector, room.marker)
        self._is_judged = True
        member.send(member.dialect.step1(room.state_vector()))
        if not member.presence_sent:
            member.presence_sent = True
            current = room.presence.current()
            if current:
                self._send_presence(current)
        has_more = len(vector) > len(room.knowledge.structs) + VECTOR_EXTRA_KEPT
        if self._has_acks:
            member.asked(None if has_more else vector)
        if has_more:
            # It may wait for its turn, and what this document does not know makes no difference to the answer.
            vector = {client: end for client, end in vector.items() if client in room.knowledge.structs}
        self._rooms.sync(member, Reader(vector))

    def _send_presence(self, entries: list[AwarenessEntry]) -> None:
        self.member.send(self.member.dialect.awareness(encode_awareness_entries(entries)))

    def _awareness(self, payload: bytes) -> None:
        settings = self._settings
        entries = decode_awareness(
            payload,
            entries_max=settings.awareness_entries_max,
            bytes_max=settings.awareness_bytes_max,
            json_depth_max=settings.nesting_max,
        )
        room = self.member.room
        if not may_show(self._settings, self.granted):
            return
        if self._settings.has_identities:
            entries = [stamp(entry, self.granted.actor, self.granted.name) for entry in entries]
        heard = room.presence.hear(self.member, entries, time.monotonic(), principal=self.granted.actor)
        if heard.corrections:
            self._send_presence(heard.corrections)
        if heard.fresh:
            self._rooms.attendance.changed(room, heard.fresh, self.member)

    def regrant(self, granted: Granted) -> None:
        """From now on this holds, for what waits already too: a downgrade refuses it, one by one.

        Whoever was refused something and may write again syncs again: what it sends next follows what is not stored
        (I4), and a stock client brings that at a new connection alone.
        """
        member = self.member
        self.granted = granted
        member.room.regrant(member, may_write=granted.may_write)
        if granted.may_write and member.declined and not member.room.limits.read_only:
            self.fail(RoomDiscarded("you may write again: sync again, and bring what was refused"))

    def closed(self) -> None:
        """The socket is gone: so is its presence, and its place in the room."""
        member = self.member
        member.counts.connections -= 1
        gone = member.room.presence.leave(member, time.monotonic())
        if gone:
            self._rooms.attendance.changed(member.room, gone, member)
        self._rooms.left(member)
