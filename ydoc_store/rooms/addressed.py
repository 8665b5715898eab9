"""One document on a Hocuspocus socket: its address, how messages behind it look, and its share of the socket.

Values and a narrow outlet; what happens to a document is `hocuspocus`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.messages import (
    Message,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)

if TYPE_CHECKING:
    from ydoc_store.errors import YdocError
    from ydoc_store.rooms.hocuspocus import HocuspocusSocket
    from ydoc_store.rooms.session import DocumentSession


# How metrics and the application's endpoint call this dialect.
HOCUSPOCUS: Final = "hocuspocus"


@dataclass(frozen=True, slots=True)
class HocuspocusDialect:
    """Messages behind one address; equal for all members that share it, so that a frame is built once for them."""

    address: str
    prefix: bytes = field(compare=False)
    name: str = field(default=HOCUSPOCUS, compare=False)

    def step1(self, state_vector: bytes) -> bytes:
        return self.prefix + encode_sync_step1(state_vector)

    def step2(self, update: bytes) -> bytes:
        return self.prefix + encode_sync_step2(update)

    def update(self, update: bytes) -> bytes:
        return self.prefix + encode_update(update)

    def awareness(self, payload: bytes) -> bytes:
        return self.prefix + encode_awareness(payload)

    def ack(self, *, accepted: bool) -> bytes:
        return self.prefix + wire.encode_sync_status(accepted=accepted)

    def denied(self, reason: str) -> None:
        """This dialect's clients are told by each ack, and take a denial for the end of the document."""

    def stateless(self, words: str) -> bytes:
        return self.prefix + wire.encode_stateless(words)


class AddressOutlet:
    """One document's share of the socket. Holding back what comes in holds the socket, for as long as anyone asks.

    Once its document was left or denied nothing passes any more: an ack for what was sent before would count for what
    the client sends when it comes back to the same address, and tell it "saved" too early (I1).
    """

    def __init__(self, socket: HocuspocusSocket, address: str):
        self._socket = socket
        self._address = address
        self.id = socket.outlet.id
        # What this document sent before waits behind a large update of it.
        self.holds = False
        self.is_gone = False

    def encode(self, message: bytes) -> bytes:
        return self._socket.outlet.encode(message)

    def write(self, encoded: bytes) -> None:
        if not self.is_gone:
            self._socket.outlet.write(encoded)

    async def write_paced(self, encoded: bytes) -> bool:
        return not self.is_gone and await self._socket.outlet.write_paced(encoded) and not self.is_gone

    def close(self, error: YdocError) -> None:
        if not self.is_gone:
            self._socket.end(self._address, error)

    def pause_reading(self) -> None:
        if not self.is_gone:
            self._socket.pause(self)

    def resume_reading(self) -> None:
        if not self.is_gone:
            self._socket.stop_pausing(self)

    def rest_reading(self, seconds: float) -> None:
        if not self.is_gone:
            self._socket.outlet.rest_reading(seconds)

    def hold_reading(self) -> None:
        if not self.is_gone:
            self.holds = True
            self._socket.hold(self)

    def release_reading(self) -> None:
        if not self.is_gone:
            self.holds = False
            self._socket.stop_holding(self)


@dataclass(slots=True, eq=False)
class AddressedDocument:
    """One address on the socket: waiting for its token, being decided, open, or denied."""

    address: str
    dialect: HocuspocusDialect
    # Each with its frame's size, in bytes.
    waiting: deque[tuple[Message | wire.Stateless, int]] = field(default_factory=deque)
    waiting_bytes: int = 0
    # By when its token is to be here; None once it was decided on.
    deadline: asyncio.TimerHandle | None = None
    deciding: asyncio.Task[None] | None = None
    # A token that came while another was decided on.
    token_wanted: str | None = None
    outlet: AddressOutlet | None = None
    session: DocumentSession | None = None
    expiry: asyncio.TimerHandle | None = None
    # It was asked for its next token, and said nothing since.
    renewal_asked: bool = False
    denied: bool = False

    def stop_timers(self) -> None:
        for timer in (self.deadline, self.expiry):
            if timer is not None:
                timer.cancel()
        self.deadline = self.expiry = None
