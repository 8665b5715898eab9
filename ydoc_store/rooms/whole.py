"""A document as one update, made once for all who ask for it at the same time.

It counts among what the process may have prepared for readers for as long as any of them holds it. What a reader
of pieces gets, at the pace of its socket, is `first_sync`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from ydoc_store.yjs.join import join
from ydoc_store.yjs.markers import with_marker
from ydoc_store.yjs.merge import EMPTY_UPDATE

if TYPE_CHECKING:
    from ydoc_store.rooms.budgets import Held
    from ydoc_store.rooms.first_sync import FirstSync
    from ydoc_store.rooms.heavy import Heavy
    from ydoc_store.rooms.pace import Pace
    from ydoc_store.rooms.room import Room


class Whole:
    """All updates up to `through_seq`, as one, the epoch's marker with them. Kept alive by who reads it."""

    __slots__ = ("__weakref__", "held", "through_seq", "update")

    def __init__(self, update: bytes, through_seq: int, held: Held):
        """`held` is its share of what may be prepared, which its last reader gives back."""
        self.update = update
        self.through_seq = through_seq
        self.held = held
        held.until_gone(self)

    @contextlib.contextmanager
    def read_by(self, pace: Pace) -> Iterator[Whole]:
        """It is there, and counted, for as long as the block runs."""
        with self.held.read_by(pace):
            yield self


class Wholes:
    """Those of all rooms. `spawn` holds the tasks that several readers share."""

    def __init__(
        self,
        first_sync: FirstSync,
        heavy: Heavy,
        spawn: Callable[[Coroutine[Any, Any, Whole]], asyncio.Task[Whole]],
    ):
        self._first_sync = first_sync
        self._heavy = heavy
        self._spawn = spawn
        self._made: weakref.WeakKeyDictionary[Room, weakref.ref[Whole]] = weakref.WeakKeyDictionary()
        self._making: dict[Room, tuple[int, asyncio.Task[Whole]]] = {}

    async def of(self, room: Room) -> Whole:
        """All that the room has delivered by now, and perhaps more. Raises ServerFull, and as the loader does."""
        wanted_seq = room.head
        if room.document_id is None:
            return Whole(EMPTY_UPDATE, 0, self._first_sync.prepared.take_now(0))
        made = self._made.get(room)
        found = made() if made is not None else None
        if found is not None and found.through_seq >= wanted_seq:
            return found
        making = self._making.get(room)
        if making is None or making[0] < wanted_seq:
            making = self._making[room] = (wanted_seq, self._spawn(self._make(room)))
            making[1].add_done_callback(lambda task: self._ended(room, task))
        return await asyncio.shield(making[1])

    def _ended(self, room: Room, task: asyncio.Task[Whole]) -> None:
        if self._making.get(room, (0, None))[1] is task:
            del self._making[room]

    async def _make(self, room: Room) -> Whole:
        held = await self._first_sync.prepared.take(room.size_bytes)
        try:
            seq, parts = await self._first_sync.parts(room)
            size = sum(map(len, parts))
            update = parts[0] if len(parts) == 1 else await self._heavy.run(size, join, parts or [EMPTY_UPDATE])
            update = update if room.marker is None else with_marker(update, room.marker)
        except BaseException:
            held.resize(0)
            raise
        held.resize(len(update))
        whole = Whole(update, seq, held)
        self._made[room] = weakref.ref(whole)
        return whole
