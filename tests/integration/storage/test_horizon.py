"""Who holds back vacuum, and the change feed: found by transaction ids, and by nobody's clock."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from tests.postgres import Cluster
from ydoc_store.storage.beginnings import create_with_content
from ydoc_store.storage.feed import find_newest
from ydoc_store.storage.horizon import find_oldest_transaction, find_oldest_writer
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


async def test_the_change_feed_waits_for_writers_of_every_database_and_for_no_reader(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster()
    cluster.create_template()
    database = await Database.open(cluster.url("migrated"))
    elsewhere = await asyncpg.connect(cluster.url(), server_settings={"application_name": "somebody else's import"})
    async with elsewhere.transaction(isolation="repeatable_read"):
        await elsewhere.fetchval("SELECT count(*) FROM pg_class")
        assert await find_oldest_writer(database) is None
        await elsewhere.execute("CREATE TEMPORARY TABLE imported ()")
        oldest = await find_oldest_writer(database)
        assert oldest is not None
        assert oldest.holder == f"process {elsewhere.get_server_pid()} (somebody else's import)"
        await create_with_content(database, "t", "a", b"u", None)
        # The feed's own answer agrees.
        assert (await find_newest(database, ["t"]))["t"].is_held
    assert await find_oldest_writer(database) is None
    assert not (await find_newest(database, ["t"]))["t"].is_held
    await elsewhere.close()
    await database.close()
