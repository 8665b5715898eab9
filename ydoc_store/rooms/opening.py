"""A room made from what the database holds of its document: what its log knows, and its bytes for the first reader.

What cannot be read is never opened as an empty document. Who opens which room, and when, is the registry's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.errors import CorruptDocument, InvalidUpdate, TooLarge
from ydoc_store.rooms.admission import STORED_LIMITS
from ydoc_store.rooms.cache import RoomCache
from ydoc_store.rooms.heavy import digest_tail
from ydoc_store.rooms.presence import Presence
from ydoc_store.rooms.room import Room
from ydoc_store.storage.loader import Absent
from ydoc_store.yjs.lib0 import Malformed
from ydoc_store.yjs.ranges import Knowledge

if TYPE_CHECKING:
    from ydoc_store.rooms.cache import CacheBudget
    from ydoc_store.rooms.heavy import Heavy
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.settings import Settings
    from ydoc_store.storage.loader import StoredDocument


async def make_room(rooms: Rooms, budget: CacheBudget, key: tuple[str, str], stored: StoredDocument | Absent) -> Room:
    """The room of (tenant, name), which nobody has entered yet. Raises CorruptDocument, StorageBusy."""
    cache = RoomCache(budget, rooms.settings.room_cache_bytes_max)
    presence = new_presence(rooms.settings)
    room = Room(*key, rooms.appender, cache, rooms.limits, presence, rooms.metrics.deliver_seconds, rooms)
    try:
        if isinstance(stored, Absent):
            cache.fill(0, b"")
        else:
            await _fill(room, rooms.heavy, stored)
    except (InvalidUpdate, TooLarge, Malformed) as error:
        cache.clear()
        raise CorruptDocument(f"the stored document cannot be read: {error}") from error
    except BaseException:
        cache.clear()
        raise
    return room


def new_presence(settings: Settings) -> Presence:
    """Nobody is in it. One member shows at most a message's worth; a room holds ten such."""
    states_max, bytes_max = settings.awareness_entries_max, settings.awareness_bytes_max
    return Presence(states_max * 10, states_max, bytes_max, is_stamped=settings.has_identities)


async def _fill(room: Room, heavy: Heavy, stored: StoredDocument) -> None:
    snapshot = stored.snapshot
    knowledge = Knowledge.decode(snapshot.state_vector, snapshot.delete_set) if snapshot else Knowledge()
    parts = [snapshot.bytes] if snapshot and snapshot.bytes else []
    room.cache.fill(snapshot.through_seq if snapshot else 0, parts[0] if parts else b"")
    if stored.tail:
        rows = [row.frames for row in stored.tail]
        joined, of_tail = await heavy.run(stored.tail_bytes, digest_tail, rows, STORED_LIMITS)
        knowledge.update(of_tail)
        parts.append(joined)
        room.cache.add(stored.head, joined)
    room.open_stored(stored, knowledge)
    if room.cache.base is None:
        room.cache.lend(stored.head, parts)
