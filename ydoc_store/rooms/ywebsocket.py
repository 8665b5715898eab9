"""Dialect A: what a stock `y-websocket` provider says, and how it is answered. One document a socket. Sans-I/O.

Frames come in as bytes; what goes out goes through the member's outlet. A frame that breaks the protocol closes
this connection alone; an unknown message type is ignored and counted, so that a newer client still works.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from ydoc_store.errors import ServerFailed, ServerFault, ServerFull, YdocError
from ydoc_store.rooms.admission import judge_vector
from ydoc_store.rooms.first_sync import Reader
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.rooms.member import Member, Outlet
from ydoc_store.yjs.awareness import decode_awareness, encode_awareness_entries
from ydoc_store.yjs.messages import (
    Awareness,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
    decode_message,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

if TYPE_CHECKING:
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


class YWebsocketDialect:
    """Bare messages; no acks."""

    name: Final = "y-websocket"
    step1 = staticmethod(encode_sync_step1)
    step2 = staticmethod(encode_sync_step2)
    update = staticmethod(encode_update)
    awareness = staticmethod(encode_awareness)

    @staticmethod
    def ack(*, accepted: bool) -> None:
        """This dialect's clients expect none."""


Y_WEBSOCKET = YWebsocketDialect()


class SocketOutlet(Outlet, Protocol):
    """An outlet that can also hold back what comes in. `id` names its connection in log lines."""

    id: str

    def rest_reading(self, seconds: float) -> None:
        """Hand over nothing for a while, whatever was read already included: held, in order, never dropped."""

    def hold_reading(self) -> None:
        """Likewise, until `release_reading`."""

    def release_reading(self) -> None: ...


class YWebsocketSession:
    """One connection, one document, from its open room to its end."""

    def __init__(self, rooms: Rooms, room: Room, outlet: SocketOutlet, actor: str | None = None):
        self._rooms = rooms
        self._settings = rooms.settings
        self._outlet = outlet
        self._questions_left = float(QUESTIONS_BURST)
        self._asked_at_s = time.monotonic()
        counts = rooms.metrics.dialect(Y_WEBSOCKET.name)
        self.member = Member(room, outlet, Y_WEBSOCKET, counts, actor)
        rooms.enter(self.member)
        counts.connections += 1

    def receive(self, frame: bytes) -> None:
        """Act on one binary frame. Whatever is wrong with it closes this member and nobody else (I13)."""
        member = self.member
        if member.closed:
            return
        try:
            message = decode_message(frame)
            kind = type(message)
            if kind is Update or kind is SyncStep2:
                update: bytes = message.update  # type: ignore[union-attr] # told by `kind`, once
                if len(update) <= INLINE_BYTES_MAX:
                    member.room.submit(member, update)
                else:
                    self._outlet.hold_reading()
                    self._rooms.spawn(self._submit_large(update))
            else:
                self._receive_other(message)
        except Exception as error:
            self._fail(error)

    async def _submit_large(self, update: bytes) -> None:
        """Walking takes up to 0.2 µs a byte: a large update is walked elsewhere, and what this member sent behind it
        is held, so that its order stays (I4) and no other document waits (I13)."""
        member, incoming = self.member, self._rooms.incoming
        incoming.walking_bytes += len(update)
        try:
            if incoming.is_full:
                raise ServerFull("this server is busy: try again later")
            walked = await self._rooms.heavy.run(len(update), walk, update, member.room.limits.update)
            if not member.closed:
                member.room.submit_walked(member, update, walked)
        except Exception as error:
            self._fail(error)
        finally:
            incoming.walking_bytes -= len(update)
        self._outlet.release_reading()

    def _fail(self, error: Exception) -> None:
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

    def _receive_other(self, message: Message) -> None:
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
            self._outlet.hold_reading()
            self._rooms.spawn(self._answer_once_known(vector))
        else:
            self._answer(vector)

    async def _answer_once_known(self, vector: dict[int, int]) -> None:
        """A reader with a marker comes from a history of a document that does not exist here, as far as this room has
        heard. Another node may have made it a moment ago, so the database is asked before the reader is sent away."""
        try:
            await self._rooms.watch.read_missing(self.member.room)
            if not self.member.closed:
                self._answer(vector)
        except Exception as error:
            self._fail(error)
        self._outlet.release_reading()

    def _answer(self, vector: dict[int, int]) -> None:
        member, room = self.member, self.member.room
        # No document bytes leave before this: whoever carries another history's marker is told, and gets nothing.
        judge_vector(vector, room.marker)
        member.send(encode_sync_step1(room.state_vector()))
        if not member.presence_sent:
            member.presence_sent = True
            current = room.presence.current()
            if current:
                self._send_presence(current)
        if len(vector) > len(room.knowledge.structs) + VECTOR_EXTRA_KEPT:
            # It may wait for its turn, and what this document does not know makes no difference to the answer.
            vector = {client: end for client, end in vector.items() if client in room.knowledge.structs}
        self._rooms.sync(member, Reader(vector))

    def _send_presence(self, entries: list[AwarenessEntry]) -> None:
        self.member.send(encode_awareness(encode_awareness_entries(entries)))

    def _awareness(self, payload: bytes) -> None:
        settings = self._settings
        entries = decode_awareness(
            payload,
            entries_max=settings.awareness_entries_max,
            bytes_max=settings.awareness_bytes_max,
            json_depth_max=settings.nesting_max,
        )
        room = self.member.room
        heard = room.presence.hear(self.member, entries, time.monotonic())
        if heard.corrections:
            self._send_presence(heard.corrections)
        if heard.fresh:
            self._rooms.attendance.changed(room, heard.fresh, self.member)

    def closed(self) -> None:
        """The socket is gone: so is its presence, and its place in the room."""
        member = self.member
        member.counts.connections -= 1
        gone = member.room.presence.leave(member, time.monotonic())
        if gone:
            self._rooms.attendance.changed(member.room, gone, member)
        self._rooms.left(member)
