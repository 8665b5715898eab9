"""Dialect A: what a stock `y-websocket` provider says, and how it is answered. One document a socket. Sans-I/O.

Frames come in as bytes; what goes out goes through the member's outlet. A frame that breaks the protocol closes
this connection alone; an unknown message type is ignored and counted, so that a newer client still works.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import TextFrame, YdocError
from ydoc_store.rooms.first_sync import Reader
from ydoc_store.rooms.member import Member, Outlet
from ydoc_store.yjs.awareness import decode_awareness, encode_awareness_entries
from ydoc_store.yjs.messages import (
    Awareness,
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

if TYPE_CHECKING:
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.yjs.awareness import AwarenessEntry

# Our own ids are few; a state vector with more clients than this is no document's.
VECTOR_CLIENTS_MAX = 1_000_000


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


class YWebsocketSession:
    """One connection, one document, from its open room to its end."""

    def __init__(self, rooms: Rooms, room: Room, outlet: Outlet, actor: str | None = None):
        self._rooms = rooms
        self._settings = rooms.settings
        counts = rooms.metrics.dialect(Y_WEBSOCKET.name)
        self.member = Member(room, outlet, Y_WEBSOCKET, counts, actor)
        room.members[self.member] = None
        counts.connections += 1

    def receive(self, frame: bytes) -> None:
        """Act on one binary frame. Whatever is wrong with it closes this member and nobody else (I13)."""
        member = self.member
        if member.closed:
            return
        try:
            message = decode_message(frame)
            if type(message) is Update or type(message) is SyncStep2:
                member.room.submit(member, message.update)
            elif type(message) is SyncStep1:
                self._step1(message.state_vector)
            elif type(message) is Awareness:
                self._awareness(message.payload)
            elif type(message) is QueryAwareness:
                self._send_presence()
            elif type(message) is Unknown:
                self._rooms.metrics.ignored("unknown type")
        except YdocError as error:
            member.counts.refused += 1
            member.room.fence(member, error)

    def receive_text(self) -> None:
        """A text frame: this protocol has none."""
        self.member.close(TextFrame("this protocol speaks binary frames only"))

    def _step1(self, state_vector: bytes) -> None:
        vector = decode_state_vector(state_vector, clients_max=VECTOR_CLIENTS_MAX)
        member, room = self.member, self.member.room
        # No document bytes leave before this: whoever carries another history's marker is told, and gets nothing.
        room.judge_state_vector(vector)
        member.send(encode_sync_step1(room.state_vector()))
        if not member.presence_sent:
            member.presence_sent = True
            self._send_presence()
        self._rooms.sync(member, Reader(vector, state_vector))

    def _send_presence(self) -> None:
        current = self.member.room.presence.current()
        if current:
            self.member.send(encode_awareness(encode_awareness_entries(current)))

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
            self.member.send(encode_awareness(encode_awareness_entries(heard.corrections)))
        if heard.fresh:
            self._rooms.attendance.changed(room, heard.fresh, self.member)

    def closed(self) -> None:
        """The socket is gone: so is its presence, and its place in the room."""
        member = self.member
        member.counts.connections -= 1
        gone: list[AwarenessEntry] = member.room.presence.leave(member, time.monotonic())
        self._rooms.left(member)
        if gone:
            self._rooms.attendance.changed(member.room, gone, member)
