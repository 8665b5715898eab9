"""Dialect B: what stock Hocuspocus providers say. Many documents share a socket, each with a token of its own.

A document is opened when its token was accepted; what its client sends before that waits, within limits. A refusal
that would repeat is told as PermissionDenied and CLOSE, and the socket stays for the other documents; a passing
trouble closes the socket, because this client syncs again only on a new one. What messages do is `session`'s; how
tokens are judged is whoever's that was handed in.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from ydoc_store.auth.access import Asked, Authorize, Granted, Judge
from ydoc_store.auth.stateless import Words
from ydoc_store.errors import (
    Forbidden,
    LimitExceeded,
    ServerFailed,
    ServerFault,
    ServerFull,
    StorageUnavailable,
    TokenEnded,
    Unauthenticated,
    YdocError,
)
from ydoc_store.names import NAME_BYTES_MAX, parse_name
from ydoc_store.rooms.addressed import HOCUSPOCUS, AddressedDocument, AddressOutlet, HocuspocusDialect
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.session import DocumentSession, SocketOutlet, call_at_expiry
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.messages import KEEPALIVE

if TYPE_CHECKING:
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room

log = structlog.get_logger(__name__)

# A session's id is some ten characters; more than this is no address of a stock provider.
ADDRESS_BYTES_MAX: Final = NAME_BYTES_MAX + 128
# A room that loads is waited for this long: beyond it a stock client has given up on the silent socket.
OPEN_TIMEOUT_S: Final = 25.0
FULL: Final = "this document is open as often as it may be"
# A client is asked for its new token this long before the old one ends: its application may have to fetch one.
TOKEN_AHEAD_S: Final = 15.0
# A socket of which nothing was granted yet stays this long for a better token: its client shows the refusal meanwhile.
REFUSED_STAYS_S: Final = 60.0


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
        self._documents: dict[str, AddressedDocument] = {}
        self._answers_ping = False
        # Whether anything was granted, or at least decided on.
        self._is_known = False
        self._was_told = False
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
        message = addressed.message
        document = self._documents.get(addressed.address)
        if isinstance(message, wire.Close):
            if document is not None:
                self._forget(document)
            return
        if document is None:
            if len(self._documents) >= self._settings.socket_documents_max:
                self._refuse(wire.encode_address(addressed.address), LimitExceeded("too many documents on one socket"))
                return
            document = AddressedDocument(
                addressed.address, HocuspocusDialect(addressed.address, wire.encode_address(addressed.address))
            )
            self._documents[addressed.address] = document
            document.deadline = asyncio.get_running_loop().call_later(
                self._settings.token_timeout_s, self._without_token, document
            )
        if isinstance(message, wire.Token):
            self._token(document, message)
        elif document.denied:
            # The stock client goes on sending after a refusal; a new token may follow.
            self._rooms.metrics.ignored("denied")
        else:
            document.waiting.append((message, size))
            self._count_waiting(document, size)
            if document.deadline is not None and not self._settings.has_identities:
                # A provider of version 2 sends no token where its application has none, and nobody needs one here.
                self._begin_deciding(document, "")
            self._hand_over(document)

    def _hand_over(self, document: AddressedDocument) -> None:
        """Give an open document what waits for it, in order; bound what waits for one that is not open yet."""
        waiting, settings = document.waiting, self._settings
        bytes_max = settings.token_queue_bytes_max
        while waiting and document.session is not None and document.outlet is not None and not document.outlet.holds:
            message, size = waiting.popleft()
            self._count_waiting(document, -size)
            if isinstance(message, wire.Stateless):
                self._say(document.session, message.payload)
            else:
                document.session.act(message)
        if waiting and document.session is None and self._rooms.incoming.is_full:
            self.outlet.close(ServerFull("this server is busy: try again later"))
        elif document.waiting_bytes <= bytes_max and len(waiting) <= settings.token_queue_frames_max:
            # Whoever called releases the socket once nobody holds it.
            self._holding.discard(document)
        elif document.session is None and document.deciding is None:
            self._deny(document, Unauthenticated("too much was sent before a token"))
        else:
            # It has shown its token: nothing of it is dropped, and the socket is read no further meanwhile.
            self.hold(document)

    def _count_waiting(self, document: AddressedDocument, size: int) -> None:
        document.waiting_bytes += size
        self._rooms.incoming.early_bytes += size

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

    def _token(self, document: AddressedDocument, token: wire.Token) -> None:
        self._answers_ping = self._answers_ping or token.answers_ping
        if document.deciding is None:
            self._begin_deciding(document, token.token)
        else:
            # The newest says what holds: a downgrade is not overtaken by what it takes back.
            document.token_wanted = token.token

    def _begin_deciding(self, document: AddressedDocument, token: str) -> None:
        if document.deadline is not None:
            document.deadline.cancel()
            document.deadline = None
        document.denied = False
        document.deciding = self._rooms.spawn(self._decide(document, token))

    async def _decide(self, document: AddressedDocument, token: str) -> None:
        try:
            name = parse_name(wire.name_of(document.address))
            asked = replace(self._brought, document=name, token=token or self._brought.token, dialect=HOCUSPOCUS)
            granted = await self._authorize(asked)
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
                self._deny(document, ServerFull(f"{FULL} (YDOC_DOCUMENT_CONNECTIONS_MAX)"))
            else:
                self._grant(document, room, granted)
        except TimeoutError:
            self._refused(document, StorageUnavailable("the document could not be loaded in time"))
        except YdocError as error:
            if isinstance(error, ServerFault):
                log.warning("a document could not be opened", reason=str(error))
            self._refused(document, error)
        except Exception:
            log.exception("a document could not be opened")
            self._refused(document, ServerFailed("this server failed: come back"))
        finally:
            document.deciding = None
            self.stop_holding(document)
        newer, document.token_wanted = document.token_wanted, None
        if newer is not None:
            self._begin_deciding(document, newer)

    def _refused(self, document: AddressedDocument, error: YdocError) -> None:
        self._was_told = True
        if document.session is not None:
            # Nothing that it has queued is accepted either.
            document.session.fail(error)
        else:
            self.end(document.address, error)

    def _grant(self, document: AddressedDocument, room: Room, granted: Granted) -> None:
        document.denied = document.renewal_asked = False
        self._send(document.dialect.prefix + wire.encode_granted(writes=granted.may_write))
        if document.session is None:
            document.outlet = AddressOutlet(self, document.address)
            document.session = DocumentSession(self._rooms, room, document.outlet, document.dialect, granted)
        else:
            document.session.regrant(granted)
        document.stop_timers()
        document.expiry = call_at_expiry(granted, lambda: self._expiring(document), TOKEN_AHEAD_S)
        self._hand_over(document)

    def _expiring(self, document: AddressedDocument) -> None:
        """Ask for a new token while the old one still holds, and look again when it does not."""
        document.expiry = None
        if document.session is not None:
            document.renewal_asked = True
            self._send(document.dialect.prefix + wire.encode_token_wanted())
            document.expiry = call_at_expiry(document.session.granted, self.review)

    def review(self) -> None:
        """Something was taken back, or time has passed: documents that are not allowed any more are denied.

        A provider that was asked for its next token and said nothing (those of version 2 do not know the question) is
        sent away to come back with one instead: it takes a denial for the end.
        """
        for document in list(self._documents.values()):
            session = document.session
            if session is not None:
                try:
                    self._judge(session.granted, session.member.room.name)
                except YdocError as error:
                    ends_at_s = session.granted.expires_at_s
                    if document.renewal_asked and ends_at_s is not None and ends_at_s <= time.time():
                        session.fail(TokenEnded("this token has expired: come back with another"))
                    else:
                        session.fail(error)
                else:
                    if document.renewal_asked:
                        # Timers do not hear of a clock that is set back, nor reach as far as some tokens.
                        document.stop_timers()
                        document.expiry = call_at_expiry(session.granted, self.review)

    def _without_token(self, document: AddressedDocument) -> None:
        """Its client said nothing of a token: what it brought with its upgrade decides, if it brought anything."""
        document.deadline = None
        if document.session is None and document.deciding is None and not document.denied:
            if self._brought.token or self._brought.cookie:
                self._begin_deciding(document, "")
            else:
                self._deny(document, Unauthenticated("no token came in time"))

    def _overdue(self) -> None:
        """Nobody loads, holds or waits for what has not said who it is."""
        for document in list(self._documents.values()):
            if document.deadline is not None:
                document.deadline.cancel()
                self._without_token(document)
        if self._is_known:
            return
        if any(document.deciding is not None for document in self._documents.values()):
            self._look_again_in(self._settings.token_timeout_s)
        elif self._was_told:
            self._was_told = False
            self._look_again_in(REFUSED_STAYS_S)
        else:
            self.outlet.close(Unauthenticated("no token came in time"))

    def _look_again_in(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._overdue)

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

    def _deny(self, document: AddressedDocument, error: YdocError) -> None:
        self._refuse(document.dialect.prefix, error)
        document.denied = True
        self._count_waiting(document, -document.waiting_bytes)
        document.waiting.clear()
        document.stop_timers()
        session, document.session = document.session, None
        if session is not None:
            # The room that ends it is going through its members.
            asyncio.get_running_loop().call_soon(session.closed)
        self._let_go(document)

    def _refuse(self, prefix: bytes, error: YdocError) -> None:
        self._send(prefix + wire.encode_denied(str(error), error.code))
        self._send(prefix + wire.encode_close(str(error)))

    def _forget(self, document: AddressedDocument) -> None:
        del self._documents[document.address]
        self._count_waiting(document, -document.waiting_bytes)
        document.waiting.clear()
        document.token_wanted = None
        document.stop_timers()
        if document.deciding is not None:
            document.deciding.cancel()
        if document.session is not None:
            document.session.closed()
        self._let_go(document)

    def _let_go(self, document: AddressedDocument) -> None:
        outlet, document.outlet = document.outlet, None
        if outlet is not None:
            outlet.is_gone = True
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
        # Not before all had their turn: one of them may hold again.
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
