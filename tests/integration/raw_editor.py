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
    """One connection that has had its first sync. What it was sent since is `updates`, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.server_vector = b""
        self.updates: list[bytes] = []
        self._arrived = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def handshake(self) -> None:
        await self._socket.send(encode_sync_step1(EMPTY_STATE_VECTOR))
        async for frame in self._socket:
            assert isinstance(frame, bytes)
            match decode_message(frame):
                case SyncStep1(vector):
                    self.server_vector = vector
                    await self._socket.send(encode_sync_step2(EMPTY_UPDATE))
                case Update(update):
                    self.updates.append(update)
                case SyncStep2(update):
                    self.updates.append(update)
                    break
        self._reading = asyncio.create_task(self._read())

    async def send(self, updates: Iterable[bytes]) -> None:
        """All of them, pipelined; waits only where the server does not read. Raises ConnectionClosed."""
        for update in updates:
            await self._socket.send(encode_update(update))

    async def knows(self, clocks: int) -> None:
        """Returns when what it was sent comes to so many clocks of all clients; ends early with the connection."""
        knowledge, looked_at = Knowledge(), 0
        while sum(knowledge.state_vector().values()) < clocks and self._reading is not None:
            self._arrived.clear()
            for update in self.updates[looked_at:]:
                knowledge.add(walk(update))
            looked_at = len(self.updates)
            if self._reading.done():
                return
            if sum(knowledge.state_vector().values()) < clocks:
                await self._arrived.wait()

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
                    self.updates.append(message.update)
                    self._arrived.set()
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
