"""Reads: one statement, verified; a log that does not hold together is never opened (I6, I10, I11)."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.log_rows import append, create_document
from ydoc_store.errors import CorruptDocument, DocumentDeleted, EpochChanged, RoomDiscarded, YdocError
from ydoc_store.storage.loader import Absent, LogRow, StoredDocument, check_contiguous, load, read_after
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import join_frames

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

UPDATES = [f"u{number}".encode() for number in range(1, 11)]


@pytest.fixture
async def document_id(connection: Connection) -> int:
    """Ten updates in the rows (0, 3], (3, 6], (6, 9], (9, 10]."""
    created = await create_document(connection)
    await append(connection, created, UPDATES, a_row=3)
    return created


@pytest.fixture
async def compacted_id(connection: Connection, document_id: int) -> int:
    """The same, with a snapshot through 6."""
    await connection.execute("DELETE FROM ydoc.updates WHERE seq <= 6")
    await insert_snapshot(connection, document_id, 6)
    return document_id


async def insert_snapshot(connection: Any, document_id: int, through_seq: int) -> None:
    await connection.execute(
        "INSERT INTO ydoc.snapshots"
        " (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way)"
        " VALUES ($1, $2, 'snapshot', 'vector', 'deletes', 2, 12, 'fold')",
        document_id,
        through_seq,
    )


def rows(*bounds: tuple[int, int]) -> list[LogRow]:
    return [LogRow(end, end - start, join_frames(UPDATES[start:end])) for start, end in bounds]


async def test_an_unknown_name_is_absent_and_stores_nothing(database: Database, connection: Connection) -> None:
    assert await load(database, "t", "doc") == Absent("t", "doc")
    assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 0


async def test_a_load_brings_the_whole_log(database: Database, document_id: int) -> None:
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    assert (stored.id, stored.epoch, stored.head, stored.accepted_rows) == (document_id, 1, 10, 4)
    assert stored.snapshot is None
    assert stored.tail == rows((0, 3), (3, 6), (6, 9), (9, 10))
    assert stored.size_bytes == stored.tail_bytes == stored.accepted_bytes == sum(map(len, UPDATES))


async def test_a_load_brings_the_snapshot_and_what_came_after_it(database: Database, compacted_id: int) -> None:
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    assert stored.snapshot is not None
    assert (stored.snapshot.through_seq, stored.snapshot.bytes) == (6, b"snapshot")
    assert (stored.snapshot.state_vector, stored.snapshot.delete_set) == (b"vector", b"deletes")
    assert stored.tail == rows((6, 9), (9, 10))
    assert stored.tail_bytes == sum(map(len, UPDATES)) - 12
    assert stored.size_bytes == len(b"snapshot") + stored.tail_bytes


async def test_a_superseded_snapshot_is_not_read(database: Database, connection: Connection, compacted_id: int) -> None:
    await connection.execute("UPDATE ydoc.snapshots SET superseded_at = now(), bytes = 'old'")
    await connection.execute("DELETE FROM ydoc.updates WHERE seq <= 9")
    await insert_snapshot(connection, compacted_id, 9)
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    assert stored.snapshot is not None
    assert (stored.snapshot.through_seq, stored.snapshot.bytes, len(stored.tail)) == (9, b"snapshot", 1)


async def test_a_document_without_updates_is_empty_and_whole(database: Database, connection: Connection) -> None:
    await create_document(connection)
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    assert (stored.head, stored.tail, stored.snapshot) == (0, [], None)


@pytest.mark.parametrize(
    ("cursor", "has_snapshot", "bounds"),
    [
        (0, True, [(6, 9), (9, 10)]),
        (5, True, [(6, 9), (9, 10)]),
        (6, False, [(6, 9), (9, 10)]),
        (7, False, [(6, 9), (9, 10)]),
        (9, False, [(9, 10)]),
        (10, False, []),
    ],
)
async def test_a_cursor_behind_the_snapshot_is_given_it_and_any_other_the_tail(
    database: Database, compacted_id: int, cursor: int, has_snapshot: bool, bounds: list[tuple[int, int]]
) -> None:
    stored = await read_after(database, compacted_id, cursor)
    assert stored.snapshot is not None
    assert (stored.snapshot.bytes is not None) is has_snapshot
    assert stored.snapshot.size_bytes == len(b"snapshot")
    assert stored.tail == rows(*bounds)


@pytest.mark.parametrize("cursor", [1, 2, 3])
async def test_a_cursor_may_point_inside_a_row(database: Database, document_id: int, cursor: int) -> None:
    stored = await read_after(database, document_id, cursor)
    assert stored.tail[0].seq == (3 if cursor < 3 else 6)


class _Meddled:
    """A pool of one connection; behind each of its statements somebody else commits."""

    def __init__(self, connection: Connection, meddle: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._meddle = meddle

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[_Meddled]:
        yield self

    acquire_in_turn = acquire

    async def fetchrow(self, statement: str, *arguments: object) -> object:
        row = await self._connection.fetchrow(statement, *arguments)
        await self._meddle()
        return row

    async def fetch(self, statement: str, *arguments: object) -> object:
        rows = await self._connection.fetch(statement, *arguments)
        await self._meddle()
        return rows


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_load_is_one_moment_whatever_is_committed_behind_each_of_its_statements(
    database: Database, connection: Connection, document_id: int, by_name: bool
) -> None:
    """I6: snapshot, tail and head belong together, also where a compaction commits in the midst of the load."""

    async def compact() -> None:
        async with database.transaction() as other:
            if await other.fetchval("SELECT count(*) FROM ydoc.snapshots") == 0:
                await other.execute("DELETE FROM ydoc.updates WHERE seq <= 6")
                await insert_snapshot(other, document_id, 6)

    meddled: Any = _Meddled(connection, compact)
    try:
        stored = await (load(meddled, "t", "doc") if by_name else read_after(meddled, document_id, 0))
    except CorruptDocument as error:
        pytest.fail(f"a load saw two moments: {error}")
    assert isinstance(stored, StoredDocument)
    assert stored.snapshot is None
    assert stored.tail == rows((0, 3), (3, 6), (6, 9), (9, 10))


# A log that does not hold together


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ydoc.updates",
        "DELETE FROM ydoc.updates WHERE seq = 3",
        "DELETE FROM ydoc.updates WHERE seq = 6",
        "DELETE FROM ydoc.updates WHERE seq = 10",
        "UPDATE ydoc.updates SET count = 2 WHERE seq = 6",
        "UPDATE ydoc.updates SET count = 4 WHERE seq = 6",
        "UPDATE ydoc.updates SET seq = 11 WHERE seq = 10",
        "UPDATE ydoc.documents SET head = 9",
        "UPDATE ydoc.documents SET head = 11",
    ],
)
async def test_a_damaged_log_is_refused_and_never_an_empty_document(
    database: Database, connection: Connection, document_id: int, damage: str
) -> None:
    await connection.execute(damage)
    with pytest.raises(CorruptDocument):
        await load(database, "t", "doc")
    with pytest.raises(CorruptDocument):
        await read_after(database, document_id, 0)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ydoc.snapshots",
        "DELETE FROM ydoc.updates WHERE seq = 9",
        "UPDATE ydoc.snapshots SET superseded_at = now()",
        "UPDATE ydoc.snapshots SET through_seq = 5",
        "UPDATE ydoc.snapshots SET through_seq = 7",
        "UPDATE ydoc.snapshots SET through_seq = 11",
        "UPDATE ydoc.updates SET count = 4 WHERE seq = 9",
    ],
)
async def test_a_tail_that_does_not_begin_at_the_snapshots_end_is_refused(
    database: Database, connection: Connection, compacted_id: int, damage: str
) -> None:
    await connection.execute(damage)
    with pytest.raises(CorruptDocument):
        await load(database, "t", "doc")
    with pytest.raises(CorruptDocument):
        await read_after(database, compacted_id, 0)


def test_a_row_across_the_snapshots_end_is_refused_for_every_cursor() -> None:
    for cursor in (0, 6, 7):
        with pytest.raises(CorruptDocument):
            check_contiguous(rows((5, 10)), 6, 10, 1, cursor)
    check_contiguous(rows((6, 10)), 6, 10, 1, 8)


def test_a_first_row_that_ends_at_the_cursor_is_refused() -> None:
    with pytest.raises(CorruptDocument):
        check_contiguous(rows((0, 3), (3, 10)), 0, 10, 1, 3)


# Documents that are no longer, and databases that are not the same


@pytest.mark.parametrize(
    ("changed", "by_name", "by_id"),
    [
        ("deleted_at = now()", DocumentDeleted, DocumentDeleted),
        ("replaced_at = now()", None, EpochChanged),
        ("deleted_at = now(), replaced_at = now()", None, EpochChanged),
    ],
)
async def test_a_deleted_document_is_told_from_a_replaced_one(
    database: Database,
    connection: Connection,
    document_id: int,
    changed: str,
    by_name: type[YdocError] | None,
    by_id: type[YdocError],
) -> None:
    await connection.execute(f"UPDATE ydoc.documents SET {changed}")
    with pytest.raises(by_id):
        await read_after(database, document_id, 0)
    if by_name is None:
        assert await load(database, "t", "doc") == Absent("t", "doc")
    else:
        with pytest.raises(by_name):
            await load(database, "t", "doc")


async def test_a_load_reads_the_current_epoch(database: Database, connection: Connection, document_id: int) -> None:
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now()")
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, epoch, marker) VALUES ('t', 'doc', 2, 9007199237963777)"
    )
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    assert (stored.epoch, stored.head) == (2, 0)
    assert stored.id != document_id


async def test_a_cursor_ahead_of_the_head_and_a_document_that_is_gone_mean_another_database(
    database: Database, connection: Connection, document_id: int
) -> None:
    with pytest.raises(RoomDiscarded, match="went back"):
        await read_after(database, document_id, 11)
    with pytest.raises(RoomDiscarded, match="gone"):
        await read_after(database, document_id + 1, 0)


async def test_names_are_compared_byte_for_byte_and_tenants_apart(database: Database, connection: Connection) -> None:
    for tenant, name in [("t", "a"), ("t", "A"), ("ta", ""), ("t", "á"), ("t", "a\u0301")]:
        if name:
            await create_document(connection, name, tenant=tenant)
    stored = [await load(database, "t", name) for name in ("a", "A", "á", "a\u0301")]
    assert len({one.id for one in stored if isinstance(one, StoredDocument)}) == 4
    assert isinstance(await load(database, "ta", "a"), Absent)
    assert isinstance(await load(database, "T", "a"), Absent)


# Size


async def measured(read: Callable[[], Awaitable[object]]) -> tuple[float, int]:
    """Seconds, and the peak of what it allocated."""
    await read()
    started_s = time.perf_counter()
    await read()
    took_s = time.perf_counter() - started_s
    tracemalloc.start()
    await read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return took_s, peak


async def test_a_tail_of_100_000_rows_is_read_in_seconds_and_in_the_memory_of_its_rows(
    database: Database, connection: Connection
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, [bytes(30)] * 100_000)
    took_s, peak = await measured(lambda: load(database, "t", "doc"))
    assert took_s < 15
    # An object of three values a row, and its bytes once more while they are decoded.
    assert peak < 60 * 2**20


async def test_a_snapshot_of_20_mb_is_read_with_few_copies(database: Database, connection: Connection) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, [b"u"])
    await connection.execute(
        "INSERT INTO ydoc.snapshots"
        " (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way)"
        " VALUES ($1, 1, $2, '', '', 1, 1, 'fold')",
        document_id,
        bytes(20 * 2**20),
    )
    await connection.execute("DELETE FROM ydoc.updates")
    took_s, peak = await measured(lambda: load(database, "t", "doc"))
    assert took_s < 15
    assert peak < 90 * 2**20
    stored = await read_after(database, document_id, 1)
    assert stored.snapshot is not None
    assert (stored.snapshot.bytes, stored.snapshot.size_bytes) == (None, 20 * 2**20)
