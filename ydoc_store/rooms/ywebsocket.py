"""Dialect A: what a stock `y-websocket` provider says, and how it is answered. One document a socket. Sans-I/O.

A frame that breaks the protocol closes this connection alone; an unknown message type is ignored and counted, so
that a newer client still works. What the messages do is `session`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ydoc_store.errors import YdocError
from ydoc_store.rooms.session import DocumentSession, SocketOutlet, call_at_expiry
from ydoc_store.yjs.messages import (
    KEEPALIVE,
    decode_message,
    encode_awareness,
    encode_permission_denied,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted, Judge
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room


class YWebsocketDialect:
    """Bare messages; no acks."""

    name: Final = "y-websocket"
    step1 = staticmethod(encode_sync_step1)
    step2 = staticmethod(encode_sync_step2)
    update = staticmethod(encode_update)
    awareness = staticmethod(encode_awareness)
    denied = staticmethod(encode_permission_denied)

    @staticmethod
    def ack(*, accepted: bool) -> None:
        """This dialect's clients expect none."""

    @staticmethod
    def stateless(words: str) -> None:
        """Likewise."""


Y_WEBSOCKET = YWebsocketDialect()


class YWebsocketSession:
    """One connection, one document, from its open room to its end."""

    def __init__(self, rooms: Rooms, room: Room, outlet: SocketOutlet, granted: Granted, judge: Judge):
        self.document = DocumentSession(rooms, room, outlet, Y_WEBSOCKET, granted)
        self._judge = judge
        self._expiry = call_at_expiry(granted, self.review)

    @property
    def member(self) -> Member:
        return self.document.member

    def receive(self, frame: bytes) -> None:
        """Act on one binary frame. Whatever is wrong with it closes this member and nobody else (I13)."""
        if self.document.member.closed:
            return
        try:
            message = decode_message(frame)
        except YdocError as error:
            self.document.fail(error)
        else:
            self.document.act(message)

    def keepalive(self) -> bytes:
        """The message that keeps a stock client from taking a silent server for a dead one."""
        return KEEPALIVE

    def review(self) -> None:
        """Something was taken back, or time has passed: who may not be here any more is sent away."""
        try:
            self._judge(self.document.granted, self.document.member.room.name)
        except YdocError as error:
            self.document.fail(error)
        else:
            # Timers do not hear of a clock that is set back, nor reach as far as some tokens.
            self._stop_expiry()
            self._expiry = call_at_expiry(self.document.granted, self.review)

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()

    def closed(self) -> None:
        """The socket is gone: so is its presence, and its place in the room."""
        self._stop_expiry()
        self.document.closed()
