"""The rooms of this process: opened by their first member, closed behind their last, kept honest by a poll.

This is the shell around the pure rooms: it loads, reads what a hint or a poll says is missing, asks where all open
documents stand once per interval whatever hints came, and discards every room when the database's connection is
lost, because what a room remembers from before may no longer be what the database holds (I11).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from ydoc_store.errors import (
    DocumentDeleted,
    Draining,
    EpochChanged,
    RoomDiscarded,
    ServerFault,
    YdocError,
)
from ydoc_store.rooms.attendance import Attendance
from ydoc_store.rooms.cache import CacheBudget, RoomCache
from ydoc_store.rooms.first_sync import FirstSync, Reader, trimmed
from ydoc_store.rooms.heavy import Heavy, digest_tail
from ydoc_store.rooms.member import Member
from ydoc_store.rooms.presence import Presence
from ydoc_store.rooms.room import STORED_LIMITS, Room, RoomLimits
from ydoc_store.storage.append_batch import Created
from ydoc_store.storage.heads import find_created, read_heads
from ydoc_store.storage.loader import Absent, StoredDocument, load, read_after
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.ranges import Knowledge

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.settings import Settings
    from ydoc_store.storage.appender import Appender
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

# A load's bytes wait this long for the reader that caused it to send its Step1.
FRESH_KEPT_S = 10.0
# Rooms that load at once: a reconnect storm waits its turn instead of taking every connection of the pool.
LOADS_AT_ONCE_MAX = 6

Key = tuple[str, str]


@dataclass(slots=True)
class RoomEvents:
    """Test signals; each is called on the event loop."""

    opened: Callable[[Room], None] = lambda _room: None
    closed: Callable[[Room], None] = lambda _room: None


class Rooms:
    """All rooms of one process, by (tenant, name)."""

    def __init__(
        self, database: Database, appender: Appender, settings: Settings, limits: RoomLimits, metrics: Metrics
    ):
        self.database = database
        self.appender = appender
        self.settings = settings
        self.limits = limits
        self.metrics = metrics
        self.heavy = Heavy()
        self.first_sync = FirstSync(database, self.heavy, settings.sync_piece_bytes_max)
        self.events = RoomEvents()
        self.rooms: dict[Key, Room] = {}
        self.attendance = Attendance(self.rooms, settings.awareness_timeout_s)
        self.by_document_id: dict[int, Room] = {}
        self.last_poll_s = time.monotonic()
        self._budget = CacheBudget(settings.process_cache_bytes_max)
        self._loading: dict[Key, asyncio.Task[Room]] = {}
        self._loads = asyncio.Semaphore(LOADS_AT_ONCE_MAX)
        self._catching_up: set[Room] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        appender.events.connection_lost = self.discard_all

    # Opening and closing

    async def open(self, tenant: str, name: str) -> Room:
        """The room of this document, loaded. Everyone who comes while it loads shares that load.

        Raises DocumentDeleted, CorruptDocument, ServerFault; cancelling one waiter cancels nobody else's load.
        """
        if self._draining:
            raise Draining("this server is stopping")
        key = (tenant, name)
        room = self.rooms.get(key)
        if room is not None:
            return room
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = self.spawn(self._load(key))
            loading.add_done_callback(lambda _task: self._loading.pop(key, None))
        return await asyncio.shield(loading)

    async def _load(self, key: Key) -> Room:
        async with self._loads:
            stored = await load(self.database, *key)
            cache = RoomCache(self._budget, self.settings.room_cache_bytes_max)
            room = Room(
                *key,
                self.appender,
                cache,
                self.limits,
                Presence(self.settings.awareness_entries_max * 10),
                self.metrics.deliver_seconds,
                self.catch_up,
            )
            if isinstance(stored, Absent):
                cache.fill(0, b"")
            else:
                await self._fill(room, stored)
        room.emptied_at_s = time.monotonic()
        self.rooms[key] = room
        if room.document_id is not None:
            self.by_document_id[room.document_id] = room
        self.metrics.rooms = len(self.rooms)
        self.events.opened(room)
        self.attendance.opened(room)
        return room

    async def _fill(self, room: Room, stored: StoredDocument) -> None:
        snapshot = stored.snapshot
        knowledge = Knowledge.decode(snapshot.state_vector, snapshot.delete_set) if snapshot else Knowledge()
        parts = [snapshot.bytes] if snapshot and snapshot.bytes else []
        room.cache.fill(snapshot.through_seq if snapshot else 0, parts[0] if parts else b"")
        if stored.tail:
            rows = [row.frames for row in stored.tail]
            joined, of_tail = await self.heavy.run(stored.tail_bytes, digest_tail, rows, STORED_LIMITS)
            knowledge.update(of_tail)
            parts.append(joined)
            room.cache.add(stored.head, joined)
        room.open_stored(stored, knowledge)
        if room.cache.base is None:
            room.fresh = (stored.head, parts)

    def closed(self, room: Room) -> None:
        """Forget the room. Whoever comes next gets one that is loaded anew."""
        key = (room.tenant, room.name)
        if self.rooms.get(key) is room:
            del self.rooms[key]
            room.cache.clear(room.head)
            self.metrics.rooms = len(self.rooms)
            self.events.closed(room)
        if room.document_id is not None and self.by_document_id.get(room.document_id) is room:
            del self.by_document_id[room.document_id]

    def discard(self, room: Room, error: YdocError) -> None:
        self.closed(room)
        room.discard(error)

    def discard_all(self, error: YdocError) -> None:
        """The database's connection was lost: nothing is acked or shown on what a room remembers from before."""
        for room in list(self.rooms.values()):
            self.discard(room, RoomDiscarded(f"sync again: {error}"))

    # Members

    def sync(self, member: Member, reader: Reader) -> None:
        """Answer a Step1, at once where it is small; a Step1 during a long answer is answered after it."""
        if self.first_sync.at_once(member, reader):
            return
        if member.sync_wanted is not None:
            member.sync_wanted = reader
            return
        member.sync_wanted = reader
        self.spawn(self._sync(member))

    async def _sync(self, member: Member) -> None:
        try:
            while not member.closed and member.sync_wanted is not None:
                reader = member.sync_wanted
                await self.first_sync.paced(member, reader)
                if member.sync_wanted is reader:
                    member.sync_wanted = None
        except YdocError as error:
            member.close(error)

    def left(self, member: Member) -> None:
        """The connection is gone. Its room stays a moment, because reloads come back at once."""
        room = member.room
        room.leave(member)
        if not room.members:
            room.emptied_at_s = time.monotonic()

    # What other nodes, and the poll, say

    def catch_up(self, room: Room) -> None:
        """Read what the room lacks, after a moment in which a hint that was overtaken may still come."""
        if room not in self._catching_up and room.closed_by is None:
            self._catching_up.add(room)
            self.spawn(self._catch_up_soon(room))

    async def _catch_up_soon(self, room: Room) -> None:
        try:
            await asyncio.sleep(self.settings.hint_grace_ms / 1000)
            room.arrived_early()
            await self._read_missing(room)
        except YdocError as error:
            self.discard(room, error if isinstance(error, (DocumentDeleted, EpochChanged)) else _discarded(error))
        finally:
            self._catching_up.discard(room)

    async def _read_missing(self, room: Room) -> None:
        if room.document_id is None:
            stored_or_absent = await load(self.database, room.tenant, room.name)
            if isinstance(stored_or_absent, Absent):
                return
            stored = stored_or_absent
            if room.document_id is None:
                room.adopt(Created(stored.id, stored.epoch, stored.marker))
                self.by_document_id[stored.id] = room
            cursor = 0
        else:
            cursor = room.head
            stored = await read_after(self.database, room.document_id, cursor)
        room.set_size(stored.size_bytes, stored.tail_bytes, stored.accepted_bytes)
        snapshot = stored.snapshot
        if snapshot is not None and snapshot.bytes is not None and snapshot.through_seq > room.head:
            room.arrived_merged(snapshot.through_seq, snapshot.bytes)
        for row in stored.tail:
            skip = room.head - (row.seq - row.count)
            if skip < row.count:
                updates = list(frames(trimmed(row.frames, skip)))
                room.arrived_from_elsewhere(row.seq - len(updates) + 1, row.seq, updates)
        room.arrived_early()

    async def run_poll(self) -> None:
        """Ask where everything stands, every interval, for ever; survives a database that is away."""
        while True:
            await asyncio.sleep(self.settings.poll_interval_s)
            self.tick(time.monotonic())
            try:
                await self.poll()
                self.last_poll_s = time.monotonic()
            except ServerFault as error:
                log.warning("poll failed", error=str(error))

    async def poll(self) -> None:
        """One look at all open documents: what is behind catches up, what is deleted or replaced closes."""
        ids = list(self.by_document_id)
        asked_at = {document_id: room.head for document_id, room in self.by_document_id.items()}
        heads = await read_heads(self.database, ids) if ids else {}
        for document_id in ids:
            room = self.by_document_id.get(document_id)
            if room is None:
                continue
            head = heads.get(document_id)
            if head is None or head.seq < asked_at[document_id]:
                # A restored backup, or a failover to a standby that lagged.
                self.discard(room, RoomDiscarded("the database went back: sync again"))
            elif head.replaced:
                self.discard(room, EpochChanged("this document was recreated or repaired: reload it"))
            elif head.deleted:
                self.discard(room, DocumentDeleted("this document was deleted"))
            else:
                room.set_size(head.size_bytes, head.tail_bytes, head.accepted_bytes)
                if head.seq > room.head and not room.queue.in_flight:
                    self.catch_up(room)
        absent = [room for room in self.rooms.values() if room.document_id is None and room.members]
        if absent:
            for index in await find_created(self.database, [(room.tenant, room.name) for room in absent]):
                self.catch_up(absent[index])

    def tick(self, now_s: float) -> None:
        """Close rooms that have been empty long enough; drop bytes that no reader came for."""
        for room in list(self.rooms.values()):
            if room.document_id is not None and room.document_id not in self.by_document_id:
                self.by_document_id[room.document_id] = room
            if room.is_idle and now_s - room.emptied_at_s >= self.settings.room_idle_s:
                self.closed(room)
            elif room.fresh is not None and now_s - room.emptied_at_s >= FRESH_KEPT_S:
                room.fresh = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that is held until it ends, and stopped with the rooms."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, YdocError):
            log.error("a task of the rooms failed", exc_info=error)

    def refuse_new(self) -> None:
        self._draining = True

    async def stop(self) -> None:
        for room in list(self.rooms.values()):
            self.discard(room, Draining("this server is stopping"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.heavy.stop()


def _discarded(error: YdocError) -> YdocError:
    return error if error.close_code == 1011 else RoomDiscarded(f"sync again: {error}")
