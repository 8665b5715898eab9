"""Who holds back vacuum: found by the transaction ids that they still need, and by nobody's clock."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from tests.postgres import Cluster
from ydoc_store.storage.horizon import find_oldest_transaction
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


async def spend_transactions(database: Database, count: int = 3) -> None:
    for _ in range(count):
        async with database.transaction() as connection:
            await connection.fetchval("SELECT pg_current_xact_id()")


async def test_a_snapshot_that_others_have_written_behind_is_found_with_who_holds_it(
    database: Database, connection: Connection
) -> None:
    await connection.execute("SET application_name = 'a dump'")
    pid = connection.get_server_pid()
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT 1")
        await spend_transactions(database)
        oldest = await find_oldest_transaction(database)
        assert oldest is not None
        assert oldest.holder == f"process {pid} (a dump)"
        await spend_transactions(database)
        assert await find_oldest_transaction(database) == oldest
    assert await find_oldest_transaction(database) != oldest


async def test_a_writer_that_idles_is_found_by_its_own_id(database: Database, connection: Connection) -> None:
    async with connection.transaction():
        xid = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint % 4294967296")
        await spend_transactions(database)
        oldest = await find_oldest_transaction(database)
        assert oldest is not None
        assert oldest.xid == str(xid)


async def test_a_prepared_transaction_that_everybody_forgot_is_found(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(settings={"max_prepared_transactions": "1"})
    database = await Database.open(cluster.url())
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE noted (number integer)")
    async with database.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO noted VALUES (1)")
        await connection.execute("PREPARE TRANSACTION 'forgotten'")
    await spend_transactions(database)
    oldest = await find_oldest_transaction(database)
    assert oldest is not None
    assert oldest.holder == "prepared transaction forgotten"
    async with database.acquire() as connection:
        await connection.execute("ROLLBACK PREPARED 'forgotten'")
    assert await find_oldest_transaction(database) is None
    await database.close()
