"""Stored snapshots as they are handed out, byte for byte the same to everyone who asks for one.

A snapshot never changes and is superseded by the next, so its bytes are kept for the next reader, and which one is
current is asked anew only as often as everything else about a document is. In another database, such as a restored
backup, the same document may have another one through the same seq. What a reader of the whole document gets, tail
included, is `whole`'s.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from ydoc_store.rooms.whole import Whole
from ydoc_store.storage.loader import find_snapshot, read_snapshot
from ydoc_store.yjs.markers import with_marker

if TYPE_CHECKING:
    from ydoc_store.rooms.budgets import Shares
    from ydoc_store.rooms.room import Room
    from ydoc_store.storage.pool import Database

KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Some hundred documents that are opened all day; a reader beyond those waits for the database."""
KEPT_SHARE_MAX: Final = 4
"""One snapshot takes a quarter of that at most: a larger one would put all others out."""

_Key = tuple[int, int, int, int]
"""Generation, document id, marker, seq."""


class Snapshots:
    """Those of all rooms. `spawn` holds the reads that several readers share."""

    def __init__(
        self,
        database: Database,
        prepared: Shares,
        current_for_s: float,
        spawn: Callable[[Coroutine[Any, Any, Whole | None]], asyncio.Task[Whole | None]],
    ):
        self._database = database
        self._prepared = prepared
        self._current_for_s = current_for_s
        self._spawn = spawn
        # Up to which seq the current one reaches, and since when that is known.
        self._found: weakref.WeakKeyDictionary[Room, tuple[int | None, float]] = weakref.WeakKeyDictionary()
        # The one used longest ago first.
        self._kept: dict[_Key, Whole] = {}
        self.kept_bytes = 0
        self._read: weakref.WeakValueDictionary[_Key, Whole] = weakref.WeakValueDictionary()
        self._reading: dict[_Key, asyncio.Task[Whole | None]] = {}
        # Counts the databases that were lost: what a read brings that began under another number is nobody's.
        self._generation = 0

    async def find(self, room: Room, *, unless: int | None = None) -> int | None:
        """Up to which seq the document's snapshot reaches, as of the last poll interval; None where it has none.

        Asked anew where the answer would not be `unless`. Raises ServerFault.
        """
        if room.document_id is None or room.marker is None:
            return None
        found = self._found.get(room)
        is_known = found is not None and time.monotonic() - found[1] < self._current_for_s
        if found is None or not is_known or unless not in (None, found[0]):
            asked_at_s = time.monotonic()
            found = self._found[room] = await find_snapshot(self._database, room.document_id, room.marker), asked_at_s
        return found[0]

    def forget(self, room: Room) -> None:
        """Ask anew at the next reader: the document is known to have been compacted."""
        self._found.pop(room, None)

    def discard_all(self) -> None:
        """The database's connection was lost, or it is another database: what was read before is not handed out."""
        self._generation += 1
        while self._kept:
            self._forget(next(iter(self._kept)))

    async def read(self, room: Room, through_seq: int) -> Whole | None:
        """The snapshot through this seq with the epoch's marker in it, while it is the current one; else None.

        Raises ServerFault, ServerFull where too much is being handed out.
        """
        # Another node may have told the reader of a newer one.
        if through_seq != await self.find(room, unless=through_seq) or room.document_id is None or room.marker is None:
            return None
        key = (self._generation, room.document_id, room.marker, through_seq)
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept[key] = kept
            return kept
        shared = self._read.get(key)
        if shared is not None:
            return shared
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = self._spawn(self._from_log(key, room.size_bytes))
            reading.add_done_callback(lambda _task: self._reading.pop(key, None))
        found = await asyncio.shield(reading)
        if found is None:
            # Superseded since: whoever asks now is told of the next one.
            self.forget(room)
        return found if key[0] == self._generation else None

    async def _from_log(self, key: _Key, size_at_most: int) -> Whole | None:
        generation, document_id, marker, through_seq = key
        held = await self._prepared.take(size_at_most)
        try:
            stored = await read_snapshot(self._database, document_id, marker, through_seq)
            if stored is None:
                held.resize(0)
                return None
            snapshot = Whole(with_marker(stored, marker), through_seq, held)
        except BaseException:
            held.resize(0)
            raise
        self._read[key] = snapshot
        if len(snapshot.update) <= KEPT_BYTES_MAX // KEPT_SHARE_MAX and generation == self._generation:
            held.resize(0)
            self._keep(key, snapshot)
        else:
            held.resize(len(snapshot.update))
        return snapshot

    def _keep(self, key: _Key, snapshot: Whole) -> None:
        for other in [other for other in self._kept if other[:3] == key[:3]]:
            # Superseded: nobody will be given it any more.
            self._forget(other)
        self._kept[key] = snapshot
        self.kept_bytes += len(snapshot.update)
        while self.kept_bytes > KEPT_BYTES_MAX:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        snapshot = self._kept.pop(key)
        self.kept_bytes -= len(snapshot.update)
        # Those who are still reading it hold it from now on; where nobody is, this is its end.
        snapshot.held.resize(len(snapshot.update))
