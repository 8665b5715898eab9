"""Snapshots that are handed out: read once, kept within bounds, and no longer given when they are superseded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.waiting import until
from ydoc_store.rooms import snapshots as module
from ydoc_store.rooms.admission import STORED_LIMITS
from ydoc_store.rooms.budgets import Shares
from ydoc_store.rooms.pace import Pace
from ydoc_store.rooms.snapshots import Snapshots
from ydoc_store.rooms.whole import Whole
from ydoc_store.yjs.markers import with_marker
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

MARKER = RESERVED_CLIENT_ID_MIN + 7
EMPTY = b"\0\0"


class Room:
    """What a snapshot is looked up by."""

    def __init__(self, document_id: int | None = 1) -> None:
        self.document_id = document_id
        self.marker = MARKER if document_id is not None else None
        self.size_bytes = 100


class Store:
    """The database: the current snapshot of each document, and how often it was asked."""

    def __init__(self) -> None:
        self.current: dict[int, tuple[int, bytes]] = {}
        self.looks = 0
        self.reads = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def find(self, _database: Any, document_id: int, _marker: int) -> int | None:
        self.looks += 1
        await asyncio.sleep(0)
        found = self.current.get(document_id)
        return None if found is None else found[0]

    async def read(self, _database: Any, document_id: int, _marker: int, through_seq: int) -> bytes | None:
        self.reads += 1
        await self.answers.wait()
        found = self.current.get(document_id)
        return found[1] if found is not None and found[0] == through_seq else None


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(module, "find_snapshot", store.find)
    monkeypatch.setattr(module, "read_snapshot", store.read)
    return store


def spawn(work: Coroutine[Any, Any, Whole | None]) -> asyncio.Task[Whole | None]:
    return asyncio.create_task(work)


@pytest.fixture
def prepared() -> Shares:
    return Shares(1_000, 1, 1)


@pytest.fixture
def snapshots(prepared: Shares) -> Any:
    return Snapshots(None, prepared, 60, spawn)  # type: ignore[arg-type] # the store stands for it


async def test_readers_that_come_together_and_later_ones_share_one_read(store: Store, snapshots: Any) -> None:
    store.current[1] = 5, EMPTY
    room = Room()
    found = await asyncio.gather(*(snapshots.read(room, 5) for _ in range(20)))
    assert {one.update for one in found} == {with_marker(EMPTY, MARKER)}
    assert walk(found[0].update, STORED_LIMITS).reserved_clients()
    await snapshots.read(room, 5)
    assert store.reads == 1


async def test_one_that_is_superseded_is_not_given_and_not_kept(store: Store, snapshots: Any) -> None:
    store.current[1] = 5, EMPTY
    room = Room()
    assert await snapshots.read(room, 5) is not None
    store.current[1] = 9, EMPTY
    # Another node has told of it: it is looked for, though what is current was asked a moment ago.
    assert await snapshots.read(room, 9) is not None
    assert await snapshots.read(room, 5) is None
    assert snapshots.kept_bytes == len(with_marker(EMPTY, MARKER))


async def test_another_database_may_have_another_snapshot_of_the_same_seq(store: Store, snapshots: Any) -> None:
    """I11: a restored backup gives ids and seqs again; its rooms are new, and nothing read for the old ones is kept."""
    store.current[1] = 5, EMPTY
    before = await snapshots.read(Room(), 5)
    snapshots.discard_all()
    store.current[1] = 5, EMPTY + b"another"
    after = await snapshots.read(Room(), 5)
    assert after.update != before.update
    assert snapshots.kept_bytes == len(after.update)


async def test_what_was_being_read_when_the_database_was_lost_is_nobodys(store: Store, snapshots: Any) -> None:
    store.current[1] = 5, EMPTY
    room = Room()
    await snapshots.find(room)
    store.answers.clear()
    reading = asyncio.create_task(snapshots.read(room, 5))
    await until(lambda: store.reads == 1)
    snapshots.discard_all()
    store.answers.set()
    assert await reading is None
    assert snapshots.kept_bytes == 0


async def test_what_is_current_is_asked_now_and_then(store: Store, snapshots: Any) -> None:
    store.current[1] = 5, EMPTY
    room = Room()
    assert [await snapshots.find(room) for _ in range(5)] == [5] * 5
    assert store.looks == 1
    store.current[1] = 6, EMPTY
    snapshots.forget(room)
    assert await snapshots.find(room) == 6


async def test_who_comes_too_late_for_one_is_told_of_the_next_at_once(store: Store, snapshots: Any) -> None:
    store.current[1] = 5, EMPTY
    room = Room()
    assert await snapshots.find(room) == 5
    store.current[1] = 9, EMPTY
    assert await snapshots.read(room, 5) is None
    assert await snapshots.find(room) == 9


async def test_a_document_that_was_never_written_has_none(store: Store, snapshots: Any) -> None:
    assert await snapshots.find(Room(None)) is None
    assert await snapshots.read(Room(None), 0) is None
    assert store.looks == 0


async def test_only_so_much_is_kept_and_what_is_too_large_counts_until_its_readers_are_done(
    store: Store, snapshots: Any, prepared: Shares, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 400)
    for document_id in range(1, 21):
        store.current[document_id] = 5, EMPTY + b"x" * 60
        assert await snapshots.read(Room(document_id), 5) is not None
    assert 300 < snapshots.kept_bytes <= 400
    assert prepared.used == 0
    store.current[30] = 5, EMPTY + b"x" * 200
    large = await snapshots.read(Room(30), 5)
    assert snapshots.kept_bytes <= 400
    assert prepared.used == len(large.update)
    del large
    await asyncio.sleep(0)
    assert prepared.used == 0


async def test_one_that_is_no_longer_kept_counts_while_somebody_reads_it(
    store: Store, snapshots: Any, prepared: Shares, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I15: slow readers of ever other documents would hold them all."""
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 400)
    pace = Pace(30)
    store.current[1] = 5, EMPTY + b"x" * 60
    first = await snapshots.read(Room(1), 5)
    with first.read_by(pace):
        size = len(first.update)
        assert prepared.used == 0
        for document_id in range(2, 10):
            store.current[document_id] = 5, EMPTY + b"x" * 60
            await snapshots.read(Room(document_id), 5)
        assert prepared.used == size
        del first
        await asyncio.sleep(0)
        assert prepared.used == size
    await asyncio.sleep(0)
    assert prepared.used == 0


async def test_a_read_that_fails_gives_back_what_it_held(
    store: Store, snapshots: Any, prepared: Shares, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.current[1] = 5, EMPTY

    async def fails(*_arguments: Any) -> bytes:
        raise OSError("gone")

    monkeypatch.setattr(module, "read_snapshot", fails)
    with pytest.raises(OSError, match="gone"):
        await snapshots.read(Room(), 5)
    assert prepared.used == 0
