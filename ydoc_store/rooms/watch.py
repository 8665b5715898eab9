"""Keeps open rooms level with the log, whatever became of the hints.

A gap is read from the log after a moment in which the hint that was overtaken may still come; and once an interval
one query asks where all open documents stand, so that a lost, doubled, late or reordered hint costs latency and
nothing else (I5). A document that was deleted or replaced closes its room, and a database that is no longer the one
it was closes all of them (I11). How rooms come and go is the registry's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from ydoc_store.errors import (
    CorruptDocument,
    DocumentDeleted,
    DocumentRenamed,
    EpochChanged,
    InvalidUpdate,
    RoomDiscarded,
    ServerFailed,
    ServerFault,
    StorageBusy,
    StorageUnavailable,
    TooLarge,
    YdocError,
)
from ydoc_store.rooms.admission import STORED_LIMITS
from ydoc_store.rooms.first_sync import trimmed
from ydoc_store.rooms.heavy import knowledge_of
from ydoc_store.storage.creating import Created
from ydoc_store.storage.heads import Head, find_created, read_heads
from ydoc_store.storage.incarnation import Incarnation, show_incarnation
from ydoc_store.storage.loader import Absent, LogRow, SnapshotRow, load, read_after
from ydoc_store.storage.timelines import note_timeline
from ydoc_store.storage.turns import NoneFree
from ydoc_store.yjs.lib0 import Malformed, frames

if TYPE_CHECKING:
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room

log = structlog.get_logger(__name__)

# Updates walked before other documents have their turn: some 10 ms.
UPDATES_A_TURN = 1_000

RENAMED = "this document has another name now: open it under that"


class Watch:
    """Reads what rooms lack, and polls where their documents stand."""

    def __init__(self, rooms: Rooms):
        self._rooms = rooms
        # The database that the rooms were loaded from, from the first poll on.
        self._incarnation: Incarnation | None = None
        # How often a connection had been lost by then: behind the next loss there may be another database.
        self._generation = 0
        # The one whose timeline was seen to: it is noted once, and not with every poll.
        self._noted: Incarnation | None = None
        self._catching_up: set[Room] = set()
        self._finding = False

    # What one room lacks

    def catch_up(self, room: Room) -> None:
        """Read what the room lacks, soon; asking again while that is under way is fine."""
        if room not in self._catching_up and room.closed_by is None:
            self._catching_up.add(room)
            self._rooms.spawn(self._catch_up_soon(room))

    async def _catch_up_soon(self, room: Room) -> None:
        try:
            while room.closed_by is None:
                await asyncio.sleep(self._rooms.settings.hint_grace_ms / 1000)
                room.arrived_early()
                await self.read_missing(room)
                # What came too early while the log was read was told to nobody: this task was under way.
                if not room.has_gap:
                    break
        except (DocumentDeleted, EpochChanged, CorruptDocument) as error:
            room.discard(error)
        except (InvalidUpdate, TooLarge, Malformed) as error:
            room.discard(CorruptDocument(f"the log cannot be read: {error}"))
        except NoneFree as error:
            # What the room knows still holds; the next poll finds it behind again.
            log.warning("a room waits to catch up", reason=str(error))
        except YdocError as error:
            log.warning("a room could not catch up", reason=str(error))
            room.discard(RoomDiscarded("the log could not be read: sync again"))
        except Exception:
            # Its members would stay, and be shown nothing of what follows.
            log.exception("a room could not catch up")
            room.discard(ServerFailed("this server failed: come back"))
        finally:
            self._catching_up.discard(room)

    async def read_missing(self, room: Room) -> None:
        """Look in the log now, and deliver what the room lacks. Raises as the loader does."""
        database = self._rooms.database
        if room.document_id is None:
            loaded = await load(database, room.tenant, room.name)
            if isinstance(loaded, Absent):
                return
            stored = loaded
        else:
            stored = await read_after(database, room.document_id, room.head, room.marker)
        # A room that was discarded meanwhile takes nothing more.
        if room.closed_by is None:
            room.adopt(Created(stored.id, stored.epoch, stored.marker))
            room.set_size(stored.size_bytes, stored.tail_bytes, stored.accepted_bytes)
            await self._take_snapshot(room, stored.snapshot)
            await _take_rows(room, stored.tail)

    async def _take_snapshot(self, room: Room, snapshot: SnapshotRow | None) -> None:
        if snapshot is not None and snapshot.bytes is not None and snapshot.through_seq > room.head:
            size = len(snapshot.bytes)
            knowledge = await self._rooms.heavy.run(size, knowledge_of, snapshot.bytes, STORED_LIMITS)
            room.arrived_merged(snapshot.through_seq, snapshot.bytes, knowledge)

    async def judge_history(self, room: Room, marker: int) -> None:
        """Whether somebody who holds the history of this marker, 0 where nothing was there yet, is in the right room.
        Raises EpochChanged where it is another one. It may be the room that is behind, where another node has made or
        replaced the document a moment ago: the database is asked first, and RoomDiscarded is raised then, and as the
        loader does.
        """
        if _is_history(room, marker):
            return
        try:
            await self.read_missing(room)
        except EpochChanged as replaced:
            room.discard(replaced)
            raise RoomDiscarded("this document was replaced a moment ago: come back") from None
        if not _is_history(room, marker):
            raise EpochChanged("this document was recreated or repaired: reload it")

    async def which_database(self) -> Incarnation:
        """The one that the rooms are of: as of the last poll, or asked for now where there was none since a connection
        was lost."""
        if self._incarnation is None or self._generation != self._rooms.generation:
            return await show_incarnation(self._rooms.database)
        return self._incarnation

    async def judge_database(self) -> None:
        """Raises RoomDiscarded, as all rooms then are, where the database is another one by now than they are of."""
        if await show_incarnation(self._rooms.database) != await self.which_database():
            await self.poll()
            raise RoomDiscarded("the database was restored, or another one took over")

    # Where all documents stand

    async def run(self) -> None:
        """Ask every interval, for ever; survives a database that is away, and whatever else goes wrong."""
        is_failing = False
        while True:
            await asyncio.sleep(self._rooms.settings.poll_interval_s)
            try:
                self._rooms.tick(time.monotonic())
                await self.poll()
                if is_failing:
                    is_failing = False
                    log.info("poll works again")
            except ServerFault as error:
                # Told once an outage, whose end is told as well.
                if not is_failing:
                    is_failing = True
                    log.warning("poll failed", reason=str(error))
            except Exception:
                log.exception("poll failed")

    async def poll(self) -> None:
        """One look at all open documents: what is behind catches up, what is deleted or replaced closes."""
        asked = {document_id: (room, room.head) for document_id, room in self._rooms.by_document_id.items()}
        streams = self._rooms.streams.heads_then()
        generation = self._rooms.generation
        incarnation, heads = await read_heads(self._rooms.database, [*asked, *streams])
        if generation != self._rooms.generation:
            # Another look, or a lost connection, was first: this is what the database before it said.
            return
        before, self._incarnation, self._generation = self._incarnation, incarnation, generation
        if before not in (None, incarnation):
            # Before any head is looked at: one that was written over may stand where it stood, or further on.
            self._rooms.discard_all(RoomDiscarded("the database was restored, or another one took over"))
            return
        for document_id, (room, head_then) in asked.items():
            if room.closed_by is None:
                self._judge(room, head_then, heads.get(document_id))
        self._rooms.streams.polled(streams, heads)
        await self._find_created()
        if self._noted != incarnation:
            await self._note(incarnation)

    async def _note(self, incarnation: Incarnation) -> None:
        try:
            await note_timeline(self._rooms.database, incarnation)
        except (StorageUnavailable, StorageBusy):
            raise
        except ServerFault as error:
            # The role's rights are of a release before: who reads the feed hears of it, and editors need not.
            log.warning("timeline not noted", reason=str(error))
        self._noted = incarnation

    def unknown_moved(self) -> None:
        """A hint names a document that is not open here by its id: it may have been created under a name that is."""
        if self._rooms.absent and not self._finding:
            self._finding = True
            self._rooms.spawn(self._find_created_soon())

    async def _find_created_soon(self) -> None:
        try:
            # One look for all hints that come within a moment of each other.
            await asyncio.sleep(self._rooms.settings.hint_grace_ms / 1000)
            self._finding = False
            await self._find_created()
        except YdocError as error:
            log.warning("created documents were not looked for", reason=str(error))
        finally:
            self._finding = False

    async def _find_created(self) -> None:
        absent = [room for room in self._rooms.absent if room.members]
        if absent:
            names = [(room.tenant, room.name) for room in absent]
            for index in await find_created(self._rooms.database, names):
                self.catch_up(absent[index])

    def _judge(self, room: Room, head_then: int, head: Head | None) -> None:
        if head is None or head.seq < head_then or head.marker != room.marker:
            # A restored backup, or a failover to a standby that lagged.
            room.discard(RoomDiscarded("the database went back: sync again"))
        elif head.replaced:
            room.discard(EpochChanged("this document was recreated or repaired: reload it"))
        elif head.deleted:
            room.discard(DocumentDeleted("this document was deleted"))
        elif head.name != room.name:
            room.discard(DocumentRenamed(RENAMED))
        else:
            room.set_size(head.size_bytes, head.tail_bytes, head.accepted_bytes)
            # While a commit of ours is under way its answer says where the log stands, and finds any gap.
            if head.seq > room.head and not room.queue.in_flight:
                self.catch_up(room)


def _is_history(room: Room, marker: int) -> bool:
    # What was begun where nothing was is the first epoch.
    return room.marker == marker if marker else room.epoch <= 1


async def _take_rows(room: Room, tail: list[LogRow]) -> None:
    walked = 0
    for row in tail:
        skip = room.head - (row.seq - row.count)
        if skip < row.count:
            updates = list(frames(trimmed(row.frames, skip)))
            room.arrived_from_elsewhere(row.seq - len(updates) + 1, row.seq, updates)
            walked += len(updates)
            if walked >= UPDATES_A_TURN:
                walked = 0
                await asyncio.sleep(0)
    room.arrived_early()
