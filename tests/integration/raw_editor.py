"""A raw sender on the real socket: y-websocket's messages without its document, as fast as the server reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ydoc_store.yjs.messages import (
    SyncStep1,
    SyncStep2,
    Update,
    decode_message,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import walk

EMPTY_STATE_VECTOR = b"\0"
EMPTY_UPDATE = b"\0\0"


class RawEditor:
    """One connection that has had its first sync; `updates` is what it was sent, in order, and `knowledge` its sum."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.updates: list[bytes] = []
        self.knowledge = Knowledge()
        self._arrived = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def handshake(self) -> None:
        await self._socket.send(encode_sync_step1(EMPTY_STATE_VECTOR))
        async for frame in self._socket:
            assert isinstance(frame, bytes)
            match decode_message(frame):
                case SyncStep1():
                    await self._socket.send(encode_sync_step2(EMPTY_UPDATE))
                case Update(update):
                    self._take(update)
                case SyncStep2(update):
                    self._take(update)
                    break
        self._reading = asyncio.create_task(self._read())

    async def send(self, updates: Iterable[bytes]) -> None:
        """All of them, pipelined; waits only where the server does not read. Raises ConnectionClosed."""
        for update in updates:
            await self._socket.send(encode_update(update))

    async def knows(self, clocks: int) -> None:
        """Returns when what it was sent comes to so many clocks of all clients; ends early with the connection."""
        assert self._reading is not None
        while self.clocks < clocks and not self._reading.done():
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def clocks(self) -> int:
        return sum(self.knowledge.state_vector().values())

    async def ended(self) -> None:
        """Returns when the server's end of the connection is gone."""
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._socket:
                assert isinstance(frame, bytes)
                message = decode_message(frame)
                if isinstance(message, Update | SyncStep2):
                    self._take(message.update)
        self._arrived.set()

    def _take(self, update: bytes) -> None:
        self.updates.append(update)
        self.knowledge.add(walk(update))
        self._arrived.set()


@contextlib.asynccontextmanager
async def raw_editor(url: str, room: str) -> AsyncIterator[RawEditor]:
    """A connected raw editor; the connection ends with the block."""
    async with connect(f"{url}/{quote(room)}", max_size=None, compression=None, ping_interval=None) as socket:
        editor = RawEditor(socket)
        await editor.handshake()
        try:
            yield editor
        finally:
            await socket.close()
            await editor.ended()
