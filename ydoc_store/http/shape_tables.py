"""The two tables of a shape as a reader follows them: what is new to it, and what its handle still stands for.

Each position is a number that the reader keeps: a document's seq, or the version of its room's presence. Nothing is
kept here about a reader between its requests. How pages become answers is `shapes`'.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ydoc_store.errors import EpochChanged, InvalidRequest, InvalidUpdate
from ydoc_store.http.shape_handles import Handle, Held
from ydoc_store.http.shape_request import ShapeRequest, Start
from ydoc_store.http.shape_rows import Row, awareness_row, update_row
from ydoc_store.yjs.join import join

if TYPE_CHECKING:
    from ydoc_store.rooms.follower import Follower
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.whole import Whole
    from ydoc_store.storage.incarnation import Incarnation

ROWS_MAX: Final = 1_000
"""More updates are joined into one row: a row takes a few microseconds here and there, and others wait meanwhile."""

_PRESENCE_PREFIX: Final = "presence-"


class StaleHandle(Exception):
    """What the reader holds is of this epoch, and may not be in the database any more."""

    def __init__(self, handle: str):
        super().__init__(handle)
        self.handle = handle


@dataclass(frozen=True, slots=True)
class Page:
    """All that is new to the reader by now, and where it stands then."""

    rows: list[Row]
    position: int


class ShapeTable(Protocol):
    """One reader of one table."""

    @property
    def handle(self) -> str:
        """What the reader sends back the next time; another than before where a document was begun meanwhile."""

    @property
    def position(self) -> int: ...

    def page(self) -> contextlib.AbstractAsyncContextManager[Page]:
        """What is new; the reader has it then. Raises as the follower does."""

    async def moved(self, timeout_s: float) -> bool:
        """Whether there is something new, at the latest after this time. Raises as the follower does."""


class UpdatesTable:
    """A document's updates: the snapshot as one row, and the tail behind it. Made by `open_updates`."""

    def __init__(self, follower: Follower, rooms: Rooms, incarnation: Incarnation):
        self._follower = follower
        self._rooms = rooms
        self._incarnation = incarnation
        self.position = 0

    @property
    def now(self) -> Handle:
        room = self._follower.room
        return Handle.of(room.epoch, room.marker, self._incarnation)

    @property
    def handle(self) -> str:
        return str(self.now)

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        snapshot = await self._snapshot()
        seq = self.position if snapshot is None else snapshot.through_seq
        async with contextlib.AsyncExitStack() as stack:
            if snapshot is not None:
                stack.enter_context(snapshot.read_by(self._follower.pace))
            missed = await stack.enter_async_context(self._follower.missed(seq))
            seq = missed.through_seq
            updates = await self._as_few(missed.updates)
            if snapshot is not None:
                updates = [snapshot.update, *updates]
            yield Page([update_row(seq, part, update) for part, update in enumerate(updates)], seq)
            self.position = seq

    async def _snapshot(self) -> Whole | None:
        """The snapshot for a reader behind it, one for all such readers, with the epoch's marker; None where the
        follower has what this one lacks, or where none is handed out."""
        room = self._follower.room
        if room.cache.after(self.position) is not None:
            return None
        through_seq = await self._rooms.snapshots.find(room)
        if through_seq is None or through_seq <= self.position:
            return None
        found = await self._rooms.snapshots.read(room, through_seq)
        self._follower.has_marker = self._follower.has_marker or found is not None
        return found

    async def _as_few(self, updates: list[bytes]) -> list[bytes]:
        if len(updates) <= ROWS_MAX:
            return updates
        try:
            return [await self._rooms.heavy.run(sum(map(len, updates)), join, updates)]
        except InvalidUpdate:
            # Committed is committed: what pycrdt will not join is handed out one by one.
            return updates

    async def moved(self, timeout_s: float) -> bool:
        return await self._follower.moved(self.position, timeout_s)


async def open_updates(follower: Follower, asked: ShapeRequest, rooms: Rooms, incarnation: Incarnation) -> UpdatesTable:
    """The reader where its handle and offset say that it stands.

    Raises StaleHandle; EpochChanged for a reader of another history, over which reading again would merge both.
    Raises InvalidRequest, and as the follower does.
    """
    table = UpdatesTable(follower, rooms, incarnation)
    held = Held.CURRENT
    if asked.handle is not None:
        handle = Handle.parse(asked.handle)
        held = handle.beside(table.now)
        if held is Held.ANOTHER:
            await follower.must_hold(handle.marker)
            held = handle.beside(table.now)
    if asked.offset is Start.NOW:
        table.position = follower.head
    elif not isinstance(asked.offset, Start):
        table.position = asked.offset
    if held is Held.NOTHING and table.position > 0 and asked.offset is not Start.NOW:
        raise InvalidRequest("this handle came with offset 0_0, before anything had been written")
    if held is Held.STALE:
        # It may be this node that has not heard yet of the database of which another one has told the reader.
        await rooms.watch.judge_database()
        if asked.offset is not Start.BEGINNING:
            raise StaleHandle(table.handle)
    if table.position > follower.head:
        try:
            # Another node may have told it so a moment ago; raises where nobody can have.
            async with follower.missed(table.position):
                pass
        except EpochChanged:
            await rooms.watch.judge_database()
            raise
    follower.has_marker = held is Held.CURRENT and table.position > 0
    return table


class AwarenessTable:
    """Who is in the document: a row an editor, the null of one that is gone included.

    A position means something in one life of the room alone, on one node. A reader from another node is given everyone
    once something changes or its wait is over: at once, it would go to and fro between the two without a pause.
    """

    def __init__(self, follower: Follower, asked: ShapeRequest, node: str):
        self._follower = follower
        self._is_live = asked.is_live
        here = f"{_PRESENCE_PREFIX}{node}-"
        self.handle = f"{here}{follower.room.presence.incarnation:x}"
        self.position = asked.offset if asked.handle == self.handle and not isinstance(asked.offset, Start) else 0
        self._may_wait = asked.handle is not None and not asked.handle.startswith(here) and not asked.wants_events

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        presence = self._follower.room.presence
        self._follower.raise_if_ended()
        position = presence.version
        entries = presence.since(self.position) if self.position < position else []
        yield Page([awareness_row(entry, is_new=not self._is_live) for entry in entries], position)
        self.position = position

    async def moved(self, timeout_s: float) -> bool:
        presence = self._follower.room.presence
        deadline_s = time.monotonic() + timeout_s
        seen = presence.version if self._may_wait else self.position
        while presence.version <= seen:
            if not await self._follower.woken(deadline_s - time.monotonic()):
                return False
        return True
