"""Dialect B: what stock Hocuspocus providers say. Many documents share a socket, each with a token of its own.

A document is opened when its token was accepted; what its client sends before that waits, within limits. A refusal
that would repeat is told as PermissionDenied and CLOSE, and the socket stays for the other documents; a passing
trouble closes the socket, because this client syncs again only on a new one. What messages do is `session`'s; how
tokens are judged is whoever's that was handed in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from ydoc_store.auth.access import Asked, Authorize, Granted, Judge
from ydoc_store.auth.stateless import Words
from ydoc_store.errors import (
    Forbidden,
    ServerFailed,
    ServerFault,
    ServerFull,
    StorageUnavailable,
    Unauthenticated,
    YdocError,
)
from ydoc_store.names import NAME_BYTES_MAX, parse_name
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.session import DocumentSession, SocketOutlet, call_at_expiry
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.messages import (
    KEEPALIVE,
    Message,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)

if TYPE_CHECKING:
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room

log = structlog.get_logger(__name__)

# A session's id is some ten characters; more than this is no address of a stock provider.
ADDRESS_BYTES_MAX: Final = NAME_BYTES_MAX + 128
# A room that loads is waited for this long: beyond it a stock client has given up on the silent socket.
OPEN_TIMEOUT_S: Final = 25.0
# A client is asked for its new token this long before the old one ends: its application may have to fetch one.
TOKEN_AHEAD_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class HocuspocusDialect:
    """Messages behind one address; equal for all members that share it, so that a frame is built once for them."""

    address: str
    prefix: bytes = field(compare=False)
    name: str = field(default="hocuspocus", compare=False)

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


class _AddressOutlet:
    """One document's share of the socket. Holding back what comes in holds the socket, for as long as anyone asks."""

    def __init__(self, socket: HocuspocusSocket, address: str):
        self._socket = socket
        self._address = address
        self.id = socket.outlet.id
        # What this document sent before waits behind a large update of it.
        self.holds = False
        # Left or refused: whoever opens this address next is somebody else, to whom no ack (I1) or piece (I10) belongs.
        self.is_over = False

    def encode(self, message: bytes) -> bytes:
        return self._socket.outlet.encode(message)

    def write(self, encoded: bytes) -> None:
        if not self.is_over:
            self._socket.outlet.write(encoded)

    async def write_paced(self, encoded: bytes) -> bool:
        return not self.is_over and await self._socket.outlet.write_paced(encoded) and not self.is_over

    def close(self, error: YdocError) -> None:
        self._socket.end(self._address, error)

    def pause_reading(self) -> None:
        self._socket.pause(self)

    def resume_reading(self) -> None:
        self._socket.stop_pausing(self)

    def rest_reading(self, seconds: float) -> None:
        self._socket.outlet.rest_reading(seconds)

    def hold_reading(self) -> None:
        self.holds = True
        self._socket.hold(self)

    def release_reading(self) -> None:
        self.holds = False
        self._socket.stop_holding(self)


@dataclass(slots=True, eq=False)
class _Document:
    """One address on the socket: waiting for its token, being decided, open, or denied."""

    address: str
    dialect: HocuspocusDialect
    waiting: deque[Message | wire.Stateless] = field(default_factory=deque)
    waiting_bytes: int = 0
    deciding: asyncio.Task[None] | None = None
    outlet: _AddressOutlet | None = None
    session: DocumentSession | None = None
    expiry: asyncio.TimerHandle | None = None
    denied: bool = False

    def stop_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None


class HocuspocusSocket:
    """One connection and the documents on it, from its upgrade to its end."""

    def __init__(self, rooms: Rooms, outlet: SocketOutlet, brought: Asked, authorize: Authorize, judge: Judge):
        self.outlet = outlet
        self._pausing: set[object] = set()
        self._holding: set[object] = set()
        self._rooms = rooms
        self._settings = rooms.settings
        self._brought = brought
        self._authorize = authorize
        self._judge = judge
        # (tenant, actor): whoever came first; a socket never changes it.
        self._principal: tuple[str, str | None] | None = None
        self._documents: dict[str, _Document] = {}
        self._answers_ping = False
        self._is_known = False
        self._deadline = asyncio.get_running_loop().call_later(self._settings.token_timeout_s, self._overdue)

    # From the socket

    def receive(self, frame: bytes) -> None:
        """Act on one binary frame. One that is no message closes the socket, anything else its document at most."""
        try:
            addressed = wire.decode_frame(frame, address_bytes_max=ADDRESS_BYTES_MAX)
            if isinstance(addressed, wire.Addressed):
                self._take(addressed, len(frame))
            elif isinstance(addressed, wire.Ping):
                self._send(wire.PONG)
        except YdocError as error:
            self.outlet.close(error)

    def _take(self, addressed: wire.Addressed, size: int) -> None:
        address, message = addressed.address, addressed.message
        document = self._documents.get(address)
        if isinstance(message, wire.Close):
            if document is not None:
                self._forget(document)
            return
        if document is None:
            if len(self._documents) >= self._settings.socket_documents_max:
                self._refuse(wire.encode_address(address), "too many documents on one socket")
                return
            document = _Document(address, HocuspocusDialect(address, wire.encode_address(address)))
            self._documents[address] = document
            loop = asyncio.get_running_loop()
            document.expiry = loop.call_later(self._settings.token_timeout_s, self._overdue, document)
        if isinstance(message, wire.Token):
            self._token(document, message)
        elif document.denied:
            # The stock client goes on sending after a refusal; a new token may follow.
            self._rooms.metrics.ignored("denied")
        else:
            document.waiting.append(message)
            self._count_waiting(document, document.waiting_bytes + size)
            self._hand_over(document)

    def _hand_over(self, document: _Document) -> None:
        """Give an open document what waits for it, in order; bound what waits for one that is not open yet."""
        waiting, settings = document.waiting, self._settings
        while waiting and document.session is not None and document.outlet is not None and not document.outlet.holds:
            message = waiting.popleft()
            if isinstance(message, wire.Stateless):
                self._say(document.session, message.payload)
            else:
                document.session.act(message)
        if not waiting:
            self._count_waiting(document, 0)
        elif document.session is None and self._rooms.incoming.is_full:
            self.outlet.close(ServerFull("this server is busy: try again later"))
        elif document.waiting_bytes > settings.token_queue_bytes_max or len(waiting) > settings.token_queue_frames_max:
            if document.session is None and document.deciding is None:
                self._deny(document, Unauthenticated("too much was sent before a token"))
            else:
                # It has shown its token: nothing of it is dropped, and the socket is read no further meanwhile.
                self.hold(document)

    def _count_waiting(self, document: _Document, size: int) -> None:
        self._rooms.incoming.early_bytes += size - document.waiting_bytes
        document.waiting_bytes = size

    def _say(self, session: DocumentSession, payload: str) -> None:
        """Words go to the application, and those of a writer to the others where that is set."""
        if len(payload.encode()) > self._settings.stateless_bytes_max:
            self._rooms.metrics.ignored("stateless, too long")
            return
        room, granted = session.member.room, session.granted
        self._rooms.stateless.say(Words(room.tenant, room.name, granted.actor, payload))
        if self._settings.stateless_relay and granted.may_write:
            self._rooms.attendance.said(room, payload, session.member)

    # Who may

    def _token(self, document: _Document, token: wire.Token) -> None:
        self._answers_ping = self._answers_ping or token.answers_ping
        if document.deciding is None:
            document.denied = False
            document.deciding = self._rooms.spawn(self._decide(document, token.token))

    async def _decide(self, document: _Document, token: str) -> None:
        try:
            name = parse_name(wire.name_of(document.address))
            granted = await self._authorize(replace(self._brought, document=name, token=token or self._brought.token))
            principal = granted.tenant, granted.actor
            if self._principal not in (None, principal):
                raise Forbidden("this socket belongs to somebody else")
            self._principal = principal
            self._is_known = True
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                room = await open_granted(self._rooms, granted, name)
            # No await from here on, so that the room is still open. It may have been taken back while that loaded.
            self._judge(granted, name)
            document.deciding = None
            if document.session is None and room.is_full:
                # Closing the socket would send its other documents' clients back for this one, again and again.
                self._deny(
                    document, ServerFull("this document is open as often as it may be (YDOC_DOCUMENT_CONNECTIONS_MAX)")
                )
                return
            self._send(document.dialect.prefix + wire.encode_granted(writes=granted.may_write))
            if document.session is None:
                self._open(document, room, granted)
            else:
                document.session.regrant(granted)
            document.stop_expiry()
            document.expiry = call_at_expiry(granted, lambda: self._expiring(document), TOKEN_AHEAD_S)
            self._hand_over(document)
        except TimeoutError:
            self.end(document.address, StorageUnavailable("the document could not be loaded in time"))
        except YdocError as error:
            if isinstance(error, ServerFault):
                log.warning("a document could not be opened", reason=str(error))
            self.end(document.address, error)
        except Exception:
            log.exception("a document could not be opened")
            self.end(document.address, ServerFailed("this server failed: come back"))
        finally:
            document.deciding = None
            self.stop_holding(document)

    def _open(self, document: _Document, room: Room, granted: Granted) -> None:
        document.outlet = _AddressOutlet(self, document.address)
        document.session = DocumentSession(self._rooms, room, document.outlet, document.dialect, granted)

    def _expiring(self, document: _Document) -> None:
        """Ask for a new token while the old one still holds, and look again when it does not."""
        document.expiry = None
        if document.session is not None:
            self._send(document.dialect.prefix + wire.encode_token_wanted())
            document.expiry = call_at_expiry(document.session.granted, self.review)

    def review(self) -> None:
        """Something was taken back, or time has passed: documents that are not allowed any more are denied."""
        for document in list(self._documents.values()):
            session = document.session
            if session is not None:
                try:
                    self._judge(session.granted, session.member.room.name)
                except YdocError as error:
                    session.fail(error)

    def _overdue(self, document: _Document | None = None) -> None:
        """Nobody holds or waits for what has not said who it is, whatever else its socket has shown."""
        error = Unauthenticated("no token came in time")
        if document is not None:
            if document.session is None and document.deciding is None:
                self._deny(document, error)
        elif not self._is_known:
            self.outlet.close(error)

    # Endings

    def end(self, address: str, error: YdocError) -> None:
        """A document's part is over: told to its client for good, or by the socket's close to come back."""
        document = self._documents.get(address)
        if document is None:
            return
        if 4400 <= error.close_code <= 4499:
            self._deny(document, error)
        else:
            self.outlet.close(error)

    def _deny(self, document: _Document, error: YdocError) -> None:
        self._refuse(document.dialect.prefix, str(error))
        document.denied = True
        document.waiting.clear()
        self._count_waiting(document, 0)
        document.stop_expiry()
        session, document.session = document.session, None
        if session is not None:
            # The room that ends it is going through its members.
            asyncio.get_running_loop().call_soon(session.closed)
        self._let_go(document)

    def _refuse(self, prefix: bytes, reason: str) -> None:
        self._send(prefix + wire.encode_denied(reason))
        self._send(prefix + wire.encode_close(reason))

    def _forget(self, document: _Document) -> None:
        del self._documents[document.address]
        self._count_waiting(document, 0)
        document.stop_expiry()
        if document.deciding is not None:
            document.deciding.cancel()
        if document.session is not None:
            document.session.closed()
        self._let_go(document)

    def _let_go(self, document: _Document) -> None:
        outlet, document.outlet = document.outlet, None
        if outlet is not None:
            outlet.is_over = True
        self.stop_pausing(outlet)
        self._holding.discard(outlet)
        self.stop_holding(document)

    def closed(self) -> None:
        """The socket is gone: so is the presence of all its documents."""
        self._deadline.cancel()
        for document in list(self._documents.values()):
            self._forget(document)

    # The socket, shared: it is read while nobody wants it not to be

    def pause(self, who: object) -> None:
        self._pausing.add(who)
        self.outlet.pause_reading()

    def stop_pausing(self, who: object) -> None:
        self._pausing.discard(who)
        if not self._pausing:
            self.outlet.resume_reading()

    def hold(self, who: object) -> None:
        self._holding.add(who)
        self.outlet.hold_reading()

    def stop_holding(self, who: object) -> None:
        self._holding.discard(who)
        for document in list(self._documents.values()):
            if document.waiting:
                self._hand_over(document)
        if not self._holding:
            self.outlet.release_reading()

    def keepalive(self) -> bytes | None:
        """The message that keeps a stock client from taking a silent server for a dead one; None: nobody to tell."""
        if self._answers_ping:
            return wire.PING
        opened = next((one for one in self._documents.values() if one.session is not None), None)
        return None if opened is None else opened.dialect.prefix + KEEPALIVE

    def _send(self, message: bytes) -> None:
        self.outlet.write(self.outlet.encode(message))
