"""The relay: every WebSocket of this process, from its upgrade to its end, and their common clock.

It decides at the upgrade whether a connection is heard at all and which document it means, opens the room, and
gives the session its connection. One ticking task serves all connections: keepalives, slow peers, presence that
was not renewed. Dialects and rooms live elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from ydoc_store.auth.access import OPEN, Asked, Granted
from ydoc_store.auth.authorizer import Authorizer
from ydoc_store.auth.limits import Allowance
from ydoc_store.auth.open_mode import Refused, refusal
from ydoc_store.auth.origins import Origins
from ydoc_store.auth.proxies import FORWARDED_FOR
from ydoc_store.errors import (
    CorruptDocument,
    Draining,
    Forbidden,
    LimitExceeded,
    ServerFailed,
    ServerFault,
    ServerFull,
    StorageUnavailable,
    UnknownPath,
    YdocError,
)
from ydoc_store.names import DEFAULT_TENANT, HOCUSPOCUS_PATH, YJS_PREFIX, name_from_raw_path
from ydoc_store.relay.asgi_connection import AsgiConnection, Event, Send
from ydoc_store.relay.connection import Connection
from ydoc_store.relay.credentials import fingerprint, read_credentials
from ydoc_store.relay.loops import ORDINARY_CLOSES, Loops, Returning, Said
from ydoc_store.relay.socket_connection import connection_factory
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.hocuspocus import HocuspocusSocket
from ydoc_store.rooms.ywebsocket import YWebsocketSession

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.settings import Settings

log = structlog.get_logger(__name__)

TICK_S = 1.0
# A room that loads is waited for this long: beyond it a stock client has given up on the silent socket.
OPEN_TIMEOUT_S = 25.0
# Whoever gives way to others holds its memory until it is gone.
GIVE_WAY_TIMEOUT_S = 1.0
# Down to here, so that whoever comes next finds room.
ROOM_FOR_OTHERS_SHARE = 3 / 4
# Cutting a socket takes a turn of the event loop.
CUT_TIMEOUT_S = 1.0


class Relay:
    """All connections of this process."""

    def __init__(self, rooms: Rooms, settings: Settings, metrics: Metrics, authorizer: Authorizer):
        self.rooms = rooms
        self.authorizer = authorizer
        authorizer.revocations.changed = self._review
        self._origins = Origins.parse(settings.origins)
        self.settings = settings
        self.metrics = metrics
        self.now_s = time.monotonic()
        # A frozen peer is to be told why; only one that does not even acknowledge is cut without a word.
        self.dead_after_s = 2 * settings.slow_member_s
        self.connections: dict[Connection, None] = {}
        # Only those whose socket does not keep up are looked at by every tick.
        self.outboxes = rooms.outboxes
        # A large part of a message is here, and the rest is not; the one that began first comes first.
        self.half_read: dict[Connection, None] = {}
        self.server_connections: Any = set()
        # By when each is due; one interval for all, so that the order of entering is the order of time.
        self._keepalive_due: dict[Connection, float] = {}
        self._draining = False
        self._said = Said()
        self._loops = Loops()
        self._returning = Returning()
        self._emptied = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()

    def websocket_protocol(self) -> Any:
        """What uvicorn's `ws` setting takes: a factory of one protocol for each upgrade."""
        return connection_factory(self)

    def carried(self, scope: Event, root: str, target: str, send: Send) -> AsgiConnection:
        """One WebSocket of an ASGI server, to be run to its end; `target` is what it asks for behind the mount.

        A relay's connections are all of this kind or none: what is delivered is encoded once for all of them.
        """
        return AsgiConnection(self, scope, root, target, send)

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._tick_for_ever(), name="relay tick")

    # Called by connections

    def connected(self, connection: Connection) -> None:
        self.connections[connection] = None
        self.server_connections.add(connection)
        self._emptied.clear()

    def closing(self, connection: Connection, code: int, reason: str) -> None:
        """A connection begins to close, by either side: counted, and told unless it is a mere leaving.

        Of many that close alike one is told: a database that goes away closes ten thousand.
        """
        self.metrics.closed(code)
        is_news = code not in ORDINARY_CLOSES and self._said.first((code, reason), self.now_s)
        tell = log.info if is_news else log.debug
        tell("connection closed", connection=connection.id, code=code, reason=reason, document=connection.document)
        now_s = time.monotonic()
        lived_s = now_s - connection.opened_at_s
        if reason and 4400 <= code <= 4499:
            self._returning.refused(_returns_as(connection), lived_s, now_s)
        if reason and self._loops.closed(connection.document, code, lived_s, self.now_s):
            self.metrics.reconnect_loops += 1
            peer = connection.peer
            log.warning("reconnect loop", document=connection.document, code=code, reason=reason, peer=peer)

    def disconnected(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.outboxes.forget(connection)
        self.half_read_now(connection, 0)
        self._keepalive_due.pop(connection, None)
        self.server_connections.discard(connection)
        if not self.connections:
            self._emptied.set()

    def upgraded(self, connection: Connection) -> None:
        """Decide what this connection is for, and have whoever comes back again and again wait for it."""
        wait_s = self._returning.wait_s(_returns_as(connection), time.monotonic())
        if wait_s and not self._draining:
            connection.wait_for_session()
            self._spawn(self._decide_later(connection, wait_s))
        else:
            self._decide(connection)

    async def _decide_later(self, connection: Connection, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if connection.is_open and not connection.is_closing:
            connection.opened_at_s = time.monotonic()
            self._decide(connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _decide(self, connection: Connection) -> None:
        """Decide what this connection is for. Every refusal is an accepted socket that is closed with a reason,
        because a browser cannot see an HTTP status."""
        try:
            self._judge(connection)
            if connection.path.partition("?")[0].rstrip("/") == HOCUSPOCUS_PATH:
                self._keepalive_due[connection] = self.now_s + self.settings.keepalive_interval_s
                brought = self._brought(connection, "hocuspocus")
                connection.begin(
                    HocuspocusSocket(self.rooms, connection, brought, self.authorizer.authorize, self.authorizer.judge)
                )
                return
            name = name_from_raw_path(connection.path.encode("latin-1", "replace"), YJS_PREFIX.encode())
        except UnknownPath:
            host = next(iter(connection.headers.get_all("Host")), f"{self.settings.host}:{self.settings.port}")
            connection.close(
                UnknownPath(f"nothing is served here: connect to ws://{host}{connection.root}{YJS_PREFIX}NAME")
            )
            return
        except YdocError as error:
            connection.close(error)
            return
        connection.document = name
        self._keepalive_due[connection] = self.now_s + self.settings.keepalive_interval_s
        if self.authorizer.is_open and (room := self.rooms.rooms.get((DEFAULT_TENANT, name))) is not None:
            self._begin(connection, room, OPEN)
            return
        connection.wait_for_session()
        self._spawn(self._open(connection, name))

    def _judge(self, connection: Connection) -> None:
        if self._draining:
            raise Draining("this server is stopping")
        if len(self.connections) > self.settings.connections_max:
            raise ServerFull("this server has as many connections as it may (YDOC_CONNECTIONS_MAX)")
        address = self.authorizer.addresses.find(self._address(connection))
        if address is not None:
            if not address.connections.holds(1, time.monotonic()):
                self.metrics.limited("address_connections")
                raise LimitExceeded("too many new connections from this address (YDOC_ADDRESS_CONNECTIONS_PER_S)")
            address.connections.take(1, time.monotonic())
        connection.allowance = Allowance(self.settings, address, self.metrics.limited, time.monotonic())
        if not self.authorizer.is_open:
            headers = connection.headers
            self._origins.judge(next(iter(headers.get_all("Origin")), None), next(iter(headers.get_all("Host")), None))
        else:
            verdict = refusal(connection.headers.raw_items())
            if isinstance(verdict, Refused):
                raise Forbidden(verdict.reason)

    async def _open(self, connection: Connection, name: str) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                asked = replace(self._brought(connection, "y-websocket"), document=name)
                granted = await self.authorizer.authorize(asked)
                room = await open_granted(self.rooms, granted, name)
            # It may have been taken back while that loaded.
            self.authorizer.judge(granted, name)
        except TimeoutError:
            connection.close(StorageUnavailable("the document could not be loaded in time"))
        except YdocError as error:
            # An outage concerns every document, a damaged log one; neither is news at every try.
            is_of_it = isinstance(error, CorruptDocument)
            is_news = isinstance(error, ServerFault) and not isinstance(error, ServerFull)
            if is_news and self._said.first((type(error), is_of_it and name), self.now_s):
                log.warning("a document could not be opened", document=name, reason=str(error))
            connection.close(error)
        except Exception:
            log.exception("a document could not be opened")
            connection.close(ServerFailed("this server failed: come back"))
        else:
            # No await since the room was handed out, so that it is still open.
            if connection.is_open and not connection.is_closing:
                self._begin(connection, room, granted)

    def _begin(self, connection: Connection, room: Room, granted: Granted) -> None:
        if room.is_full:
            connection.close(ServerFull("this document is open as often as it may be (YDOC_DOCUMENT_CONNECTIONS_MAX)"))
        else:
            connection.begin(YWebsocketSession(self.rooms, room, connection, granted, self.authorizer.judge))

    def half_read_now(self, connection: Connection, size: int) -> None:
        """So much of a message of this connection is here, and the rest is not."""
        incoming = self.rooms.incoming
        is_more = size > connection.half_read_bytes
        incoming.partial_bytes += size - connection.half_read_bytes
        connection.half_read_bytes = size
        if size:
            self.half_read.setdefault(connection)
        else:
            self.half_read.pop(connection, None)
        if is_more and incoming.is_full:
            self._make_room_for_incoming()

    def _make_room_for_incoming(self) -> None:
        # Whoever has been at it longest gives way: an honest large message is whole within seconds.
        left = self.rooms.incoming.used_bytes - self.rooms.incoming.bytes_max * ROOM_FOR_OTHERS_SHARE
        for connection in list(self.half_read):
            if left <= 0:
                break
            if not connection.is_closing:
                connection.close(ServerFull("this server is busy: try again later"), GIVE_WAY_TIMEOUT_S)
            left -= connection.half_read_bytes

    def _brought(self, connection: Connection, dialect: str) -> Asked:
        found = read_credentials(connection.path, connection.headers, self._address(connection))
        return Asked("", found.token, found.cookie, found.origin, found.address, dialect)

    def _address(self, connection: Connection) -> str | None:
        return self.authorizer.proxies.client_address(_host(connection), connection.headers.get_all(FORWARDED_FOR))

    def _review(self) -> None:
        """Something was taken back: everyone who is here is judged again."""
        self.authorizer.forget()
        for connection in list(self.connections):
            if connection.session is not None:
                connection.session.review()

    # The common clock

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(time.monotonic())
            except Exception:
                log.exception("a tick failed")

    def tick(self, now_s: float) -> None:
        """Keep alive who is due, close who takes nothing, or too little of what others wait for, forget whose presence
        was not renewed."""
        self.now_s = now_s
        self.outboxes.check_progress(now_s, self.settings.slow_member_s)
        for shares in self.rooms.shares:
            shares.make_room(now_s)
        due = self._keepalive_due
        while due and due[connection := next(iter(due))] <= now_s:
            del due[connection]
            due[connection] = now_s + self.settings.keepalive_interval_s
            self._keep_alive(connection)
        self.rooms.attendance.expire(now_s)
        self.metrics.reconnect_loops, ended = self._loops.look(now_s)
        for loop in ended:
            log.info("reconnect loop over", document=loop.document, code=loop.code)

    def _keep_alive(self, connection: Connection) -> None:
        if connection.is_gone(self.dead_after_s):
            connection.cut()
            return
        # Stock clients drop a socket on which no data message came for 30 s; pings do not count.
        message = connection.session.keepalive() if connection.session is not None else None
        if message is not None:
            connection.write(connection.encode(message))

    # The end

    def stop_reading(self) -> None:
        """Accept nothing more: what is read from now on could not be committed."""
        self._draining = True
        for connection in self.connections:
            connection.stop_reading()

    async def say_goodbye(self, timeout_s: float) -> None:
        """Empty the outboxes, then close every socket with 1001; whoever does not follow in time is cut."""
        for connection in list(self.connections):
            # The close frame goes behind what the outbox still holds.
            connection.close(Draining("this server is stopping: come back, another one serves you"), timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                if self.connections:
                    await self._emptied.wait()
        except TimeoutError:
            log.warning("connections cut at the end of the drain", connections=len(self.connections))
        await self._cut()

    async def _cut(self) -> None:
        for connection in list(self.connections):
            connection.cut()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_TIMEOUT_S):
                    await self._emptied.wait()

    async def stop(self) -> None:
        """Cut whatever is still connected; returns when the last connection has been cleaned up."""
        self._draining = True
        tasks = [*self._opening, *([self._ticking] if self._ticking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._cut()


def _returns_as(connection: Connection) -> int:
    return fingerprint(connection.path, connection.headers, _host(connection))


def _host(connection: Connection) -> str | None:
    peer = connection.peer
    return peer[0] if peer else None
