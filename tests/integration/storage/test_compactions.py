"""What the compactor did, as rows that can be listed."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from tests.log_rows import create_document
from tests.statements import prepare_all
from ydoc_store.storage import compactions
from ydoc_store.storage.compactions import Compaction, insert_compaction, list_compactions, try_lock
from ydoc_store.storage.pool import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, compactions) == [
        "DROP_COMPACTIONS",
        "INSERT_COMPACTION",
        "LIST_COMPACTIONS",
        "LIST_COMPACTIONS_OF",
        "TRY_LOCK",
    ]


async def test_runs_are_listed_newest_first_with_their_document_and_all_that_was_said(
    database: Database, connection: Connection
) -> None:
    document_id = await create_document(connection, "notes")
    done = Compaction(document_id, 12.5, "done", "fold", "rows: 500 of 500", 0, 500, 500, 9_000, 0, 700, 300)
    failed = Compaction(document_id, 1.0, "failed", None, "asked for", 500, error="the worker died")
    elsewhere = Compaction(document_id + 1, 1.0, "lost", None, "age", 3, error="another was first")
    for run in (done, failed, elsewhere):
        await insert_compaction(connection, run)
    listed = await list_compactions(database, document_id)
    assert [(row.tenant, row.name, row.run) for row in listed] == [("t", "notes", failed), ("t", "notes", done)]
    everything = await list_compactions(database, limit=1)
    assert [(row.name, row.run) for row in everything] == [(None, elsewhere)]


async def test_the_start_of_a_run_is_its_duration_before_the_row(connection: Connection) -> None:
    await insert_compaction(connection, Compaction(1, 60_000.0, "lost", None, "rows", 0))
    age_s = await connection.fetchval(
        "SELECT extract(epoch FROM clock_timestamp() - started_at)::float8 FROM ydoc.compactions"
    )
    assert 60 <= age_s < 70


async def test_a_document_is_locked_for_one_transaction_and_others_are_not(
    database: Database, connection: Connection
) -> None:
    async with connection.transaction():
        assert await try_lock(connection, 1)
        async with database.transaction() as other:
            assert not await try_lock(other, 1)
            assert await try_lock(other, 2)
    async with database.transaction() as other:
        assert await try_lock(other, 1)
