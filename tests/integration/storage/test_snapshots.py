"""A snapshot takes over only from the one that it was made of."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from tests.log_rows import create_document
from tests.statements import prepare_all
from ydoc_store.storage import snapshots
from ydoc_store.storage.snapshots import NewSnapshot, take_over

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def snapshot(document_id: int, through_seq: int) -> NewSnapshot:
    return NewSnapshot(document_id, through_seq, b"\0\0", b"\0", b"\0", through_seq, 10, "fold")


async def standing(connection: Connection) -> list[tuple[int, bool]]:
    rows = await connection.fetch("SELECT through_seq, superseded_at IS NULL FROM ydoc.snapshots ORDER BY 1")
    return [(row[0], row[1]) for row in rows]


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, snapshots) == [
        "DELETE_SUPERSEDED",
        "INSERT_SNAPSHOT",
        "SUPERSEDE_AS_BASE",
    ]


async def test_the_first_snapshot_takes_over_from_nothing_and_only_once(connection: Connection) -> None:
    document_id = await create_document(connection)
    assert await take_over(connection, snapshot(document_id, 5), 0, keep_base=True)
    assert not await take_over(connection, snapshot(document_id, 5), 0, keep_base=True)
    assert not await take_over(connection, snapshot(document_id, 7), 0, keep_base=True)
    assert await standing(connection) == [(5, True)]


async def test_a_snapshot_made_of_one_that_is_no_longer_current_is_refused(connection: Connection) -> None:
    document_id = await create_document(connection)
    assert await take_over(connection, snapshot(document_id, 5), 0, keep_base=True)
    assert await take_over(connection, snapshot(document_id, 8), 5, keep_base=True)
    for through_seq in (8, 9):
        assert not await take_over(connection, snapshot(document_id, through_seq), 5, keep_base=True)
        assert not await take_over(connection, snapshot(document_id, through_seq), 7, keep_base=False)
    assert await standing(connection) == [(5, False), (8, True)]


async def test_without_history_the_superseded_one_is_deleted(connection: Connection) -> None:
    document_id = await create_document(connection)
    await take_over(connection, snapshot(document_id, 5), 0, keep_base=False)
    assert await take_over(connection, snapshot(document_id, 8), 5, keep_base=False)
    assert await standing(connection) == [(8, True)]


async def test_a_snapshot_is_dated_after_the_moment_its_transaction_began(connection: Connection) -> None:
    document_id = await create_document(connection)
    async with connection.transaction():
        await connection.execute("SELECT pg_sleep(0.01)")
        await take_over(connection, snapshot(document_id, 5), 0, keep_base=True)
        assert await connection.fetchval("SELECT created_at > now() FROM ydoc.snapshots")
