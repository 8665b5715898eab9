"""Nodes of the relay in this process, on real sockets and a real Postgres, and a strict editor that speaks to them.

A node is what `serve` runs without HTTP in front: tests reach into it for its signals. An editor is one pycrdt
document behind one WebSocket; it fails a test that is sent what a stock client would stumble over. Everything waits
for signals: a frame, a closed socket, a room's event.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, Self

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ydoc_store.metrics import Metrics
from ydoc_store.relay.service import RelayService
from ydoc_store.relay.socket_connection import connection_factory
from ydoc_store.rooms.admission import STORED_LIMITS
from ydoc_store.rooms.room import Room
from ydoc_store.settings import Settings
from ydoc_store.storage.loader import read_after
from ydoc_store.storage.pool import Database
from ydoc_store.yjs import messages
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import merge, state_vector_of
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

WAIT_TIMEOUT_S = 60.0


class Node:
    """One node on a port of its own. `rooms_closed` and `rooms_opened` grow as its rooms come and go."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.metrics = Metrics()
        self.service = RelayService(database, settings, self.metrics)
        self.rooms_opened: list[Room] = []
        self.rooms_closed: list[Room] = []
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.service.rooms.events.opened = lambda room: self._note(self.rooms_opened, room)
        self.service.rooms.events.closed = lambda room: self._note(self.rooms_closed, room)

    def _note(self, events: list[Room], room: Room) -> None:
        events.append(room)
        self._changed.set()

    async def start(self) -> None:
        await self.service.start()
        state = SimpleNamespace(connections=set())
        make = connection_factory(self.service.relay)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: make(None, state, None), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def url(self, name: str) -> str:
        return f"ws://127.0.0.1:{self.port}/yjs/{name}"

    def room(self, name: str) -> Room:
        return self.service.rooms.rooms["default", name]

    async def room_closed(self, room: Room) -> None:
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while room not in self.rooms_closed:
                self._changed.clear()
                await self._changed.wait()

    def count(self, sample: str) -> float:
        """The value of one sample of /metrics, 0 where it is missing."""
        for line in self.metrics.render().decode().splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def stop(self, *, drain_s: float | None = None) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            if drain_s is not None:
                await self.service.drain(drain_s)
            await self.service.stop()
            await self.database.close()


@contextlib.asynccontextmanager
async def running_node(database_url: str, **overrides: object) -> AsyncIterator[Node]:
    """A started node; `overrides` are settings by name. Stopped without a drain unless the test has drained it."""
    database = await Database.open(database_url, pool_size=4)
    node = Node(database, Settings.load(overrides))
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


class Editor:
    """A document and its connection. `text` is the root text `text`; `messages` is everything that came, decoded."""

    def __init__(self, socket: ClientConnection, doc: Doc[Any]) -> None:
        self.socket = socket
        self.doc = doc
        self.messages: list[messages.Message] = []
        self.presence: dict[int, AwarenessEntry] = {}
        self.is_synced = False
        self.close_code: int | None = None
        self.close_reason = ""
        self._changed = asyncio.Event()
        self._waiting: list[bytes] = []
        self._applying = False
        self._observed = doc.observe(self._edited)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, doc: Doc[Any] | None = None, **options: Any) -> Self:
        """Connect and send Step1; `synced` tells when the answer is here."""
        editor = cls(await connect_raw(url, **options), doc if doc is not None else new_doc())
        await editor.say(messages.encode_sync_step1(editor.doc.get_state()))
        return editor

    @classmethod
    async def open_synced(cls, url: str, doc: Doc[Any] | None = None, **options: Any) -> Self:
        editor = await cls.open(url, doc, **options)
        await editor.synced()
        return editor

    # Saying

    async def say(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(frame)

    def _edited(self, event: Any) -> None:
        if not self._applying:
            self._waiting.append(event.update)

    async def send_edits(self) -> list[bytes]:
        """Send what was edited since; returns those updates."""
        updates, self._waiting = self._waiting, []
        for update in updates:
            await self.say(messages.encode_update(update))
        return updates

    async def type(self, text: str, at: int | None = None) -> bytes:
        """Insert, by default at the end, in one update."""
        root = self.root
        root.insert(len(root) if at is None else at, text)
        return (await self.send_edits())[-1]

    async def erase(self, start: int, length: int) -> bytes:
        del self.root[start : start + length]
        return (await self.send_edits())[-1]

    async def show(self, clock: int, state: str | None = '{"name":"Ann"}', client_id: int | None = None) -> None:
        entry = AwarenessEntry(self.doc.client_id if client_id is None else client_id, clock, state)
        await self.say(messages.encode_awareness(encode_awareness_entries([entry])))

    # Hearing

    @property
    def root(self) -> Text:
        return self.doc.get("text", type=Text)

    @property
    def text(self) -> str:
        return str(self.root)

    @property
    def marker(self) -> int | None:
        """The epoch's marker that this document carries."""
        clients = {client for client, _, _ in walk(self.doc.get_update(), STORED_LIMITS).structs}
        return next((client for client in clients if client >= RESERVED_CLIENT_ID_MIN), None)

    async def _read(self) -> None:
        try:
            async for frame in self.socket:
                assert isinstance(frame, bytes), "a text frame"
                await self._take(messages.decode_message(frame))
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self.socket.close_code or 1006
            self.close_reason = self.socket.close_reason or ""
            self._changed.set()

    async def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.SyncStep1):
            await self.say(messages.encode_sync_step2(self.doc.get_update(message.state_vector)))
        elif isinstance(message, messages.SyncStep2 | messages.Update):
            self._applying = True
            self.doc.apply_update(message.update)
            self._applying = False
            self.is_synced = self.is_synced or isinstance(message, messages.SyncStep2)
        elif isinstance(message, messages.Awareness):
            for entry in decode_awareness(message.payload, entries_max=10_000, bytes_max=2**24, json_depth_max=64):
                self.presence[entry.client_id] = entry
        self.messages.append(message)
        self._changed.set()

    def received(self, *kinds: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kinds)]

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns when it holds after some frame; AssertionError when the socket is closed before."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while not holds():
                assert self.close_code is None, f"closed with {self.close_code} {self.close_reason}"
                self._changed.clear()
                await self._changed.wait()

    async def synced(self) -> None:
        await self.until(lambda: self.is_synced)

    async def shows(self, text: str) -> None:
        await self.until(lambda: self.text == text)

    async def sees(self, client_id: int, state: str | None) -> None:
        await self.until(lambda: client_id in self.presence and self.presence[client_id].state_json == state)

    async def closed(self) -> tuple[int, str]:
        """Returns code and reason when the other side has closed."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            await asyncio.wait([self._reading])
        self._reading.result()
        assert self.close_code is not None
        return self.close_code, self.close_reason

    async def state(self) -> bytes:
        """Everything that it has, as one update; what cannot be applied yet is not in it."""
        return self.doc.get_update()

    async def leave(self) -> None:
        await self.socket.close()
        await asyncio.wait([self._reading])

    async def vanish(self) -> None:
        """As a process that is killed: the socket ends without a word."""
        self.socket.transport.abort()
        await asyncio.wait([self._reading])


def new_doc() -> Doc[Any]:
    return Doc(client_id=random.randrange(1, 2**32))


async def connect_raw(url: str, **options: Any) -> ClientConnection:
    """A WebSocket without anything said on it, of a program that was never here: one that comes back waits."""
    settings: dict[str, Any] = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 2}
    settings["open_timeout"] = WAIT_TIMEOUT_S
    settings["user_agent_header"] = f"test {random.getrandbits(64):x}"
    return await connect(url, **(settings | options))


async def closed_at_once(url: str, **options: Any) -> tuple[int, str]:
    """With which code and reason a socket that says nothing is closed."""
    socket = await connect_raw(url, **options)
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        await socket.wait_closed()
    return socket.close_code or 1006, socket.close_reason or ""


async def stored_rows(database: Database, name: str) -> list[tuple[int, int]]:
    """(seq, count) of each row of a document's log."""
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT u.seq, u.count FROM ydoc.updates AS u JOIN ydoc.documents AS d ON d.id = u.document_id"
            " WHERE d.name = $1 ORDER BY u.seq",
            name,
        )
    return [(row[0], row[1]) for row in rows]


async def count_stored(database: Database, name: str) -> int:
    """How many updates are stored; AssertionError unless their seqs are 1, 2, 3…"""
    at = 0
    for seq, count in await stored_rows(database, name):
        assert seq - count == at, f"a hole before {seq}"
        at = seq
    return at


async def replace_log_by_snapshot(node: Node, room: Room) -> None:
    """As a compaction leaves it: a snapshot with the state vector of what can be applied, and no tail."""
    stored = await read_after(node.database, room.document_id or 0, 0)
    merged = merge([update for row in stored.tail for update in frames(row.frames)])
    async with node.database.transaction() as connection:
        await connection.execute("DELETE FROM ydoc.updates WHERE document_id = $1", stored.id)
        await connection.execute(
            "INSERT INTO ydoc.snapshots (document_id, through_seq, bytes, state_vector, delete_set, merged_rows,"
            " merged_bytes, way) VALUES ($1, $2, $3, $4, $5, $6, $7, 'merge')",
            stored.id,
            stored.head,
            merged,
            state_vector_of(merged),
            b"\0",
            stored.accepted_rows,
            stored.accepted_bytes,
        )
