"""The rooms of this process: opened by their first member, closed behind their last, discarded with the connection.

This is the shell around the pure rooms. It loads, holds the tasks that send first syncs, and closes what is empty.
Losing the database's connection discards every room and every load that began before, because what they hold may
no longer be what the database holds (I11). `watch` keeps open rooms level with the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from ydoc_store.auth.stateless import Stateless
from ydoc_store.errors import (
    Draining,
    RoomDiscarded,
    ServerFailed,
    ServerFull,
    YdocError,
)
from ydoc_store.rooms.attendance import Attendance
from ydoc_store.rooms.audits import Audits
from ydoc_store.rooms.budgets import Incoming, Outboxes
from ydoc_store.rooms.cache import CacheBudget
from ydoc_store.rooms.feed import Feeds
from ydoc_store.rooms.first_sync import FirstSync, FirstSyncLimits, Reader
from ydoc_store.rooms.heavy import Heavy
from ydoc_store.rooms.opening import make_room, new_presence
from ydoc_store.rooms.snapshots import Snapshots
from ydoc_store.rooms.watch import Watch
from ydoc_store.rooms.whole import Wholes
from ydoc_store.storage.loader import load
from ydoc_store.storage.turns import Turns
from ydoc_store.streams.registry import PAGES_ALL_BYTES_MAX, Streams
from ydoc_store.yjs.merge import EMPTY_UPDATE

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.rooms.admission import RoomLimits
    from ydoc_store.rooms.keeper import Audited
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.room import Room
    from ydoc_store.settings import Settings
    from ydoc_store.storage.appender import Appender
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

# A load's bytes wait this long for the reader that caused it to send its Step1.
LOADED_KEPT_S = 10.0
# What is made of documents for one reader alone, JSON or a difference, and is not taken yet. Whoever waits for it holds
# the document, so that it is an account of its own.
MADE_ALL_BYTES_MAX = 128 * 1024 * 1024
# Empty rooms that wait for somebody to come back; beyond that the one empty for longest is closed.
EMPTY_ROOMS_MAX = 1_000

Key = tuple[str, str]


@dataclass(slots=True)
class RoomEvents:
    """Test signals; each is called on the event loop."""

    opened: Callable[[Room], None] = lambda _room: None
    closed: Callable[[Room], None] = lambda _room: None


class Rooms:
    """All rooms of one process, by (tenant, name). None of `rooms` is discarded: whoever finds one may enter it."""

    def __init__(
        self, database: Database, appender: Appender, settings: Settings, limits: RoomLimits, metrics: Metrics
    ):
        self.database = database
        self.appender = appender
        self.settings = settings
        self.limits = limits
        self.metrics = metrics
        self.heavy = Heavy(memory_bytes_max=settings.sync_worker_memory_bytes_max)
        self.outboxes = Outboxes(settings.process_outbox_bytes_max)
        self.incoming = Incoming(appender, settings.process_incoming_bytes_max)
        limits_of_readers = FirstSyncLimits.of(settings)
        self.first_sync = FirstSync(
            database, self.heavy, limits_of_readers, lambda: self.outboxes.is_crowded, self.spawn
        )
        pages = limits_of_readers.shares(PAGES_ALL_BYTES_MAX)
        self.streams = Streams(database, appender, settings, self.spawn, pages.take)
        # What readers wait for while others hold it.
        self.made = limits_of_readers.shares(MADE_ALL_BYTES_MAX)
        self.shares = (self.first_sync.sending, self.first_sync.prepared, pages, self.made)
        self.wholes = Wholes(self.first_sync, self.heavy, self.spawn)
        self.snapshots = Snapshots(database, self.first_sync.prepared, settings.poll_interval_s, self.spawn)
        self.events = RoomEvents()
        self.rooms: dict[Key, Room] = {}
        self.by_document_id: dict[int, Room] = {}
        # Open here under a name that nobody has written to yet, as far as this node knows.
        self.absent: dict[Room, None] = {}
        self.attendance = Attendance(self.rooms, settings.awareness_timeout_s, lambda: new_presence(settings))
        self.stateless = Stateless(None, metrics.ignored)
        self.watch = Watch(self)
        self.feeds = Feeds(database, settings.poll_interval_s, self.spawn)
        # Of all rooms, as of the last tick.
        self.known_ranges = 0
        self._budget = CacheBudget(settings.process_cache_bytes_max)
        # In the order in which they were emptied.
        self._empty: dict[Room, None] = {}
        self._loading: dict[Key, asyncio.Task[Room]] = {}
        self._loads = Turns(settings.loads_at_once_max)
        # Counts the connections that were lost: a load that began under another number is not trusted.
        self.generation = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._audits = Audits(metrics)
        self._draining = False
        appender.events.connection_lost = self.discard_all
        appender.events.connected_again = self._connected_again

    # Opening and closing

    async def open(self, tenant: str, name: str) -> Room:
        """The room of this document, loaded, for the caller to enter before its next await.

        Everyone who comes while it loads shares that load. Raises DocumentDeleted, CorruptDocument, ServerFault
        (ServerFull where as many rooms are open as may be, and somebody is in each);
        cancelling one waiter cancels nobody else's load.
        """
        key = (tenant, name)
        while not self._draining:
            room = self.rooms.get(key)
            if room is not None:
                return room
            loading = self._loading.get(key)
            if loading is None:
                self._make_room()
                loading = self._loading[key] = self.spawn(self._load(key))
                loading.add_done_callback(lambda _task: self._loading.pop(key, None))
            room = await asyncio.shield(loading)
            # Between the load's end and now, the room may have been discarded, or closed for being empty.
            if self.rooms.get(key) is room:
                return room
        raise Draining("this server is stopping")

    def _make_room(self) -> None:
        is_crowded = self.known_ranges > self.settings.process_ranges_max
        left = len(self.rooms) + len(self._loading) + 1 - self.settings.rooms_max
        for room in list(self._empty):
            if left <= 0 and not is_crowded:
                break
            if room.is_idle:
                self.known_ranges -= room.ranges_at_most
                self.close(room)
                left -= 1
        if left > 0:
            raise ServerFull("this server has as many documents open as it may (YDOC_ROOMS_MAX)")
        if self.known_ranges > self.settings.process_ranges_max:
            raise ServerFull("the documents that are open here are as much as may be (YDOC_PROCESS_RANGES_MAX)")

    async def _load(self, key: Key) -> Room:
        async with self._loads.turn():
            while True:
                # A room rests on its lane's connection: without one nobody would tell it of a failover (I11).
                await self.appender.connect_again(*key)
                generation = self.generation
                room = await make_room(self, self._budget, key, await load(self.database, *key))
                if generation == self.generation:
                    break
                room.cache.clear()
        room.emptied_at_s = time.monotonic()
        self.rooms[key] = room
        self._empty[room] = None
        if room.document_id is not None:
            self.by_document_id[room.document_id] = room
        else:
            self.absent[room] = None
        self.metrics.rooms = len(self.rooms)
        self.events.opened(room)
        self.attendance.opened(room)
        return room

    def close(self, room: Room) -> None:
        """Forget the room. Whoever comes next gets one that is loaded anew."""
        key = (room.tenant, room.name)
        if self.rooms.get(key) is room:
            del self.rooms[key]
            self._empty.pop(room, None)
            if room.closed_by is None:
                # A read that is still under way for it must not fill its cache again.
                room.closed_by = RoomDiscarded("closed for being empty")
            room.cache.clear()
            self.metrics.rooms = len(self.rooms)
            self.events.closed(room)
        self.absent.pop(room, None)
        if room.document_id is not None and self.by_document_id.get(room.document_id) is room:
            del self.by_document_id[room.document_id]

    def discard_all(self, error: YdocError) -> None:
        """The database's connection was lost, or it is another database: nothing is acked or shown on what a room
        remembers from before."""
        self.generation += 1
        self.database.drop_connections()
        self._forget_what_was_read()
        self.streams.discard_all()
        log.warning("rooms discarded", rooms=len(self.rooms), reason=str(error))
        told = str(error) if isinstance(error, RoomDiscarded) else "the database's connection was lost"
        for room in list(self.rooms.values()):
            room.discard(RoomDiscarded(f"{told}: sync again"))

    def _connected_again(self) -> None:
        # What was loaded while the lane had no connection, or is being loaded, may be another server's.
        self.generation += 1
        self._forget_what_was_read()
        if self.rooms or self.streams.ids:
            self.discard_all(RoomDiscarded("this was loaded while the append connection was lost"))

    def _forget_what_was_read(self) -> None:
        # Found by numbers that a restored backup gives again.
        self.snapshots.discard_all()
        self.feeds.discard_all()

    @property
    def cache_bytes(self) -> int:
        """What all rooms' caches hold."""
        return self._budget.used_bytes

    # What rooms ask for

    def catch_up(self, room: Room) -> None:
        self.watch.catch_up(room)

    def identified(self, room: Room) -> None:
        self.absent.pop(room, None)
        if room.document_id is not None and self.rooms.get((room.tenant, room.name)) is room:
            self.by_document_id[room.document_id] = room

    def discarded(self, room: Room) -> None:
        self.close(room)

    def audited(self, room: Room, member: Member, what: Audited, seq: int | None) -> None:
        self._audits.note(room, member, what, seq)

    def follow(self, member: Member, seq: int) -> None:
        member.is_live = False
        member.syncing = True
        self.spawn(self._sync(member, seq))

    # Members

    def enter(self, member: Member) -> None:
        member.room.enter(member)
        self._empty.pop(member.room, None)

    def left(self, member: Member) -> None:
        """The connection is gone. Its room stays a moment, because reloads come back at once."""
        room = member.room
        room.leave(member)
        if not room.members and self.rooms.get((room.tenant, room.name)) is room:
            room.emptied_at_s = time.monotonic()
            self._empty[room] = None
            # Somebody without a socket may be shown in it, and look again in a moment.
            if room.document_id is None and room.is_idle and not room.presence:
                self.close(room)
            self._close_idle(room.emptied_at_s)

    def sync(self, member: Member, reader: Reader) -> None:
        """Answer a Step1, at once where it is small; a Step1 during a long answer is answered after it."""
        if member.syncing:
            member.sync_superseded += member.sync_wanted is not None
            member.sync_wanted = reader
        elif not self.first_sync.at_once(member, reader):
            member.syncing = True
            member.sync_wanted = reader
            self.spawn(self._sync(member, None))

    async def _sync(self, member: Member, follow_from: int | None) -> None:
        try:
            if follow_from is not None:
                await self.first_sync.follow(member, follow_from)
            while not member.closed and (reader := member.sync_wanted) is not None:
                member.sync_wanted = None
                superseded, member.sync_superseded = member.sync_superseded, 0
                # What is delivered meanwhile would wait in the outbox, behind pieces that may take minutes.
                member.is_live = False
                await self.first_sync.paced(member, reader)
                for _ in range(superseded):
                    # Every Step1 has its Step2: some clients count them.
                    member.send(member.dialect.step2(EMPTY_UPDATE))
        except YdocError as error:
            member.close(error)
        except Exception:
            log.exception("a first sync failed")
            member.close(ServerFailed("this server failed: come back"))
        finally:
            member.syncing = False

    # The clock, and the end

    def tick(self, now_s: float) -> None:
        """Close rooms that have been empty long enough; drop bytes that no reader came for; count what is known."""
        self._close_idle(now_s)
        self.streams.tick(now_s)
        self.known_ranges = 0
        for room in self.rooms.values():
            room.tidy_count()
            self.known_ranges += room.ranges_at_most
            if room.cache.loaded is not None and now_s - room.emptied_at_s >= LOADED_KEPT_S:
                room.cache.drop_loaded()

    def _close_idle(self, now_s: float) -> None:
        for room in list(self._empty):
            is_young = now_s - room.emptied_at_s < self.settings.room_idle_s
            if is_young and len(self._empty) <= EMPTY_ROOMS_MAX:
                break
            if room.is_idle:
                self.close(room)

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

    @property
    def is_draining(self) -> bool:
        return self._draining

    def refuse_new(self) -> None:
        self._draining = True
        for room in self.rooms.values():
            # Readers at their own pace are told now, and not when their wait is over.
            room.wake_followers()

    async def stop(self) -> None:
        self.refuse_new()
        for room in list(self.rooms.values()):
            room.discard(Draining("this server is stopping"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.heavy.stop()
