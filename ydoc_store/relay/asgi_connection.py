"""A connection under somebody else's server: messages as ASGI brings them, one task while something is on its way.

ASGI hides the transport. What it tells is that a `send` has returned, and that is all that is known here of what a
peer takes: the outbox is what no `send` was given yet or has not returned from. Reading is paused by not asking for
the next message. What the server holds beyond that (one message and its own buffer) is the server's to bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from ydoc_store.relay.closing import reason_for
from ydoc_store.relay.connection import COUNTED_STEP_BYTES, DRAINING, WRITE_LOW_WATER_BYTES, Connection
from ydoc_store.relay.credentials import select_subprotocol

if TYPE_CHECKING:
    from ydoc_store.errors import YdocError
    from ydoc_store.relay.relay import Relay

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

log = structlog.get_logger(__name__)


class _Headers:
    """The headers as the server holds them all the while, read where they are."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[bytes, bytes]]):
        self._items = items

    def get_all(self, key: str) -> list[str]:
        wanted = key.lower().encode("latin-1")
        return [value.decode("latin-1") for name, value in self._items if name.lower() == wanted]

    def raw_items(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._items)


class AsgiConnection(Connection):
    """One WebSocket of a host, from its handshake to its end."""

    __slots__ = (
        "_end",
        "_goodbye",
        "_is_cut",
        "_may_read",
        "_offered",
        "_peer",
        "_send",
        "_sending",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, relay: Relay, scope: Event, root: str, target: str, send: Send):
        """`target` is the undecoded path, with its parameters, behind the path `root` of the mount."""
        super().__init__(relay)
        self.root = root
        self.path = target
        self.headers = _Headers(scope["headers"])
        self._peer = scope.get("client")
        self._offered: Sequence[str] = scope.get("subprotocols") or ()
        self._send = send
        # There only while something is on its way, so that an idle connection holds neither a task nor a queue.
        self._sending: asyncio.Task[None] | None = None
        self._waiting: deque[bytes] | None = None
        self._waiting_bytes = 0
        self._goodbye: Event | None = None
        self._may_read: asyncio.Future[None] | None = None
        self._end = asyncio.timeout(None)
        self._is_cut = False

    async def run(self, receive: Receive) -> None:
        """Accept it and carry it to its end. Cancelling ends it at once; nothing of it is left then either."""
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        await self._send({"type": "websocket.accept", "subprotocol": select_subprotocol(self._offered)})
        self.is_open = True
        self.relay.connected(self)
        try:
            async with self._end:
                self.relay.upgraded(self)
                await self._read(receive)
        except TimeoutError:
            if not self._is_cut:
                raise
        finally:
            self._over()
            self._waiting = None
            if self._sending is not None:
                # It may wait for a peer that takes nothing, and nobody waits for what it would send.
                self._sending.cancel()
                await asyncio.gather(self._sending, return_exceptions=True)

    async def _read(self, receive: Receive) -> None:
        bytes_max = self.relay.settings.frame_bytes_max
        while True:
            while self._paused_for:
                self._may_read = asyncio.get_running_loop().create_future()
                await self._may_read
            event = await receive()
            if event["type"] == "websocket.disconnect":
                # The server tells no code where the peer said none.
                self._begin_closing(event.get("code") or 1005)
                return
            if self._paused_for & DRAINING:
                # It was asked for before, and could not be committed: the peer brings it again.
                continue
            data = event.get("bytes")
            if data is None:
                self._message(b"", is_text=True)
            elif len(data) > bytes_max:
                self._too_large()
            else:
                self._message(data if type(data) is bytes else bytes(data), is_text=False)

    # To the server

    def encode(self, message: bytes) -> bytes:
        """As it is: the server makes the frame."""
        return message

    def write(self, encoded: bytes) -> None:
        """Live bytes. They wait for their turn; what waits is this member's outbox."""
        if not self.is_closing:
            self._put(encoded)
            if self._written_bytes >= self._look_at_bytes:
                self._look_at_outbox()

    def _put(self, encoded: bytes) -> None:
        self._written_bytes += len(encoded)
        self._waiting_bytes += len(encoded)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(encoded)
        self._see_to_sending()

    def _say_goodbye(self, code: int, reason: str) -> None:
        self._goodbye = {"type": "websocket.close", "code": code, "reason": reason}
        self._see_to_sending()

    def _see_to_sending(self) -> None:
        if self._sending is None and not self._is_cut:
            self._sending = asyncio.create_task(self._send_all())
            # Whether the peer keeps up is not known before a `send` returns, so each counts as slow until then.
            self.pause_writing()
            self._look_at_bytes = self._written_bytes + COUNTED_STEP_BYTES

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                message = self._waiting.popleft()
                await self._send({"type": "websocket.send", "bytes": message})
                self._waiting_bytes -= len(message)
                if self._drained is not None and not self._is_behind:
                    self._wake_writer()
            if self._goodbye is not None:
                await self._send(self._goodbye)
        except OSError:
            # How servers say that the peer is gone.
            self.cut()
        except Exception:
            log.exception("a message could not be sent", connection=self.id)
            self.cut()
        finally:
            self._sending = self._waiting = None
            self._waiting_bytes = 0
            self.resume_writing()

    @property
    def _unsent_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def _is_behind(self) -> bool:
        return self._waiting_bytes > WRITE_LOW_WATER_BYTES

    @property
    def peer(self) -> Any:
        return self._peer

    def is_gone(self, dead_after_s: float) -> bool:
        # The server's own pings tell, where it sends any.
        return False

    def cut(self) -> None:
        if not (self._is_cut or self._ended):
            self._is_cut = True
            if self._waiting is not None:
                self._waiting_bytes -= sum(map(len, self._waiting))
                self._waiting.clear()
            self._end.reschedule(asyncio.get_running_loop().time())

    def _stop(self) -> None:
        """The next message is not asked for while there is a reason."""

    def _go_on(self) -> None:
        if self._may_read is not None:
            if not self._may_read.done():
                self._may_read.set_result(None)
            self._may_read = None


async def refuse(error: YdocError, receive: Receive, send: Send) -> None:
    """Accept a WebSocket and close it with a reason, because a browser cannot see an HTTP status."""
    if (await receive())["type"] == "websocket.connect":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": error.close_code, "reason": reason_for(error)})
