"""A reader that comes for news itself: it holds a cursor and no buffer, so however slow it is, nothing waits for it.

While it is there its room stays open. What it lacks it takes from the room's cache, and behind that from the log,
the snapshot standing for what was merged (decision 12). Every answer holds its share of what the process may have
prepared for readers until the reader has passed it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.errors import Draining, EpochChanged, NoSuchDocument, ServerFull, YdocError
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.first_sync import trimmed
from ydoc_store.rooms.member import Member
from ydoc_store.rooms.pace import Pace
from ydoc_store.rooms.unseen import NO_DIALECT, EndOutlet
from ydoc_store.storage.loader import read_after
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.walker import marker_update

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.rooms.whole import Whole


@dataclass(frozen=True, slots=True)
class Missed:
    """Together with what the cursor stands for, `updates` are the document up to `through_seq`.

    The first of them is the snapshot where `is_substituted`: the cursor lies behind it. Before everything else a reader
    is given the epoch's marker, once. Updates may repeat what it has.
    """

    updates: list[bytes]
    through_seq: int
    is_substituted: bool = False


@contextlib.asynccontextmanager
async def follow(rooms: Rooms, granted: Granted, name: str, *, dialect: str) -> AsyncIterator[Follower]:
    """Be in the document as a reader for as long as the block runs.

    Raises DocumentDeleted, CorruptDocument, ServerFull where it is open as often as it may be, another ServerFault.
    """
    room = await open_granted(rooms, granted, name)
    if room.is_full:
        raise ServerFull("this document is open as often as it may be (YDOC_DOCUMENT_CONNECTIONS_MAX)")
    follower = Follower(rooms, room, granted, dialect)
    try:
        yield follower
    finally:
        follower.leave()


class Follower:
    """One reader. Made by `follow`, whose block is its life."""

    def __init__(self, rooms: Rooms, room: Room, granted: Granted, dialect: str):
        self.room = room
        self._rooms = rooms
        self._ended_by: YdocError | None = None
        # Whether the reader was given the epoch's marker; set it for one that has been here before.
        self.has_marker = False
        self._woken = asyncio.Event()
        # How fast it takes what it is given; whoever passes that on tells.
        self.pace = Pace(rooms.settings.slow_member_s)
        counts = rooms.metrics.dialect(dialect)
        self._member = Member(room, EndOutlet(dialect, self._end), NO_DIALECT, counts, granted.actor, may_write=False)
        rooms.enter(self._member)
        counts.connections += 1
        room.wakers[self._woken.set] = None

    def leave(self) -> None:
        self._member.counts.connections -= 1
        self.room.wakers.pop(self._woken.set, None)
        self._rooms.left(self._member)

    def _end(self, error: YdocError) -> None:
        self._ended_by = error
        self._woken.set()

    @property
    def exists(self) -> bool:
        """Whether anybody has written to the document, as far as this node has heard."""
        return self.room.document_id is not None

    async def must_exist(self) -> None:
        """Raises NoSuchDocument, having asked the database: another node may have made it a moment ago."""
        if not self.exists:
            await self._rooms.watch.read_missing(self.room)
            self.raise_if_ended()
        if not self.exists:
            raise NoSuchDocument(f"no document is named {self.room.name!r}")

    async def must_hold(self, marker: int) -> None:
        """Raises EpochChanged unless the reader's history is this document's, having asked the database."""
        await self._rooms.watch.judge_history(self.room, marker)
        self.raise_if_ended()

    @property
    def head(self) -> int:
        return self.room.head

    def raise_if_ended(self) -> None:
        """Raises what the room ended with (DocumentDeleted, EpochChanged, RoomDiscarded), Draining."""
        if self._ended_by is not None:
            raise self._ended_by
        if self._rooms.is_draining:
            raise Draining("this server is stopping")

    # The document

    @contextlib.asynccontextmanager
    async def whole(self) -> AsyncIterator[Whole]:
        """The document as one update, with all that was accepted before this was asked; shared with other readers."""
        self.raise_if_ended()
        found = await self._rooms.wholes.of(self.room)
        self.raise_if_ended()
        with found.read_by(self.pace):
            yield found

    @contextlib.asynccontextmanager
    async def missed(self, seq: int) -> AsyncIterator[Missed]:
        """What a reader lacks who has everything up to `seq`; nothing where that is all.

        Raises EpochChanged for a cursor ahead of the log: it comes from another history of this document, such as
        one that a restored backup lost.
        """
        room = self.room
        self.raise_if_ended()
        if seq > room.head:
            # This node may be behind another one that has told the reader.
            await self._rooms.watch.read_missing(room)
            self.raise_if_ended()
            if seq > room.head:
                raise EpochChanged("this cursor is ahead of the document: it comes from another history of it")
        if seq == room.head:
            yield Missed([], seq)
            return
        kept = room.cache.after(seq)
        prepared = self._rooms.first_sync.prepared
        if kept is not None:
            through_seq = room.head
            async with prepared.hold(sum(map(len, kept)), self.pace):
                yield Missed(self._marked(kept), through_seq)
            return
        async with prepared.hold(room.size_bytes, self.pace) as held:
            missed = await self._from_log(seq)
            self._marked(missed.updates)
            held.resize(sum(map(len, missed.updates)))
            yield missed

    def _marked(self, updates: list[bytes]) -> list[bytes]:
        if not self.has_marker and self.room.marker is not None and updates:
            self.has_marker = True
            updates.insert(0, marker_update(self.room.marker))
        return updates

    async def _from_log(self, seq: int) -> Missed:
        room = self.room
        async with self._rooms.first_sync.preparing.turn():
            stored = await read_after(self._rooms.database, room.document_id or 0, seq, room.marker)
        updates: list[bytes] = []
        is_substituted = stored.snapshot is not None and stored.snapshot.bytes is not None
        if stored.snapshot is not None and stored.snapshot.bytes is not None:
            updates.append(stored.snapshot.bytes)
            seq = stored.snapshot.through_seq
        for row in stored.tail:
            updates += frames(trimmed(row.frames, seq - (row.seq - row.count)))
        return Missed(updates, stored.head, is_substituted)

    async def moved(self, seq: int, timeout_s: float) -> bool:
        """Whether the head is beyond `seq`, at the latest after `timeout_s`. Raises as `raise_if_ended`."""
        deadline_s = time.monotonic() + timeout_s
        while self.room.head <= seq:
            if not await self.woken(deadline_s - time.monotonic()):
                return False
        self.raise_if_ended()
        return True

    async def woken(self, timeout_s: float) -> bool:
        """Whether anything happened in the room, presence included, since this was last asked; False after the time
        is over. Raises as `raise_if_ended`."""
        self.raise_if_ended()
        if not self._woken.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                self.raise_if_ended()
                return False
        self._woken.clear()
        self.raise_if_ended()
        return True
