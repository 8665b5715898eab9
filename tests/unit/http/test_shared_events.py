"""Events that readers share: found by where a reader stands, only as far as the room is, and bounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ydoc_store.http.yjs_reading import SHARED_EVENTS_MAX, SharedEvents


class Room(SimpleNamespace):
    """A room's head, and nothing else."""

    __hash__ = object.__hash__


def test_a_reader_finds_what_leads_to_the_head_and_nothing_older() -> None:
    shared, room = SharedEvents(), Room(head=5)
    other: Any = Room(head=5)
    found: Any = room
    shared.keep(found, 4, 5, b"event")
    assert shared.find(found, 4) == (5, b"event")
    assert shared.find(found, 3) is None
    assert shared.find(other, 4) is None
    room.head = 6
    assert shared.find(found, 4) is None


def test_a_room_keeps_few_and_all_rooms_together_so_much() -> None:
    shared, rooms = SharedEvents(bytes_max=1_000), [Room(head=100) for _ in range(20)]
    room: Any
    for room in rooms:
        for seq in range(SHARED_EVENTS_MAX + 3):
            shared.keep(room, seq, 100, b"x" * 40)
        kept = [seq for seq in range(SHARED_EVENTS_MAX + 3) if shared.find(room, seq) is not None]
        assert kept[-1] == SHARED_EVENTS_MAX + 2
        assert len(kept) <= SHARED_EVENTS_MAX
    everything = sum(shared.find(room, seq) is not None for room in rooms for seq in range(20))  # type: ignore[arg-type]
    assert everything * 40 <= 1_000
