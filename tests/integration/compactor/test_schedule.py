"""The compactor of a process: sweeps by itself, stops cleanly, and outlives its database's absence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from compactor.schedule import CompactionEvent, Compactor, Event
from compactor.sweep import SweepReport
from tests.log_rows import Writer, append, create_document
from tests.postgres import Cluster
from tests.waiting import until
from ydoc_store.errors import ServerFault
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


INSERTING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE '%INSERT INTO ydoc.snapshots%'
"""


def settings() -> Settings:
    return Settings(compact_tail_rows=2, sweep_interval_s=0.05, sweep_jitter_s=0)


class Events(asyncio.Queue[Event]):
    async def next_compaction(self) -> CompactionEvent:
        async with asyncio.timeout(60):
            while True:
                event = await self.get()
                if isinstance(event, CompactionEvent):
                    return event


async def test_what_becomes_due_is_compacted_without_being_asked_and_told_as_an_event(
    database: Database, connection: Connection
) -> None:
    events = Events()
    document_id = await create_document(connection)
    writer = Writer()
    async with Compactor(database, settings(), events.put_nowait):
        for _ in range(2):
            await append(connection, document_id, writer.type_each("abc"))
            event = await events.next_compaction()
            assert (event.result, event.way, event.rows_merged) == ("done", "fold", 3)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 0


async def test_one_tick_needs_no_scheduler(database: Database, connection: Connection) -> None:
    await append(connection, await create_document(connection), Writer().type_each("abc"))
    compactor = Compactor(database, settings())
    report = await compactor.run_once()
    await compactor.stop()
    assert isinstance(report, SweepReport)
    assert report.compacted == 1


async def test_stopping_in_the_middle_of_a_compaction_rolls_it_back_and_leaves_no_process(
    database: Database, connection: Connection
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    slow = settings().model_copy(update={"failpoints": "compaction.after-insert=pause:60"})

    async def inserting() -> bool:
        return bool(await connection.fetchval(INSERTING))

    compactor = Compactor(database, slow)
    await compactor.start()
    await until(inserting)
    child = compactor._worker.pid
    await compactor.stop()
    await compactor.stop()
    assert child is not None
    assert compactor._worker.pid is None
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 3
    assert await connection.fetchval("SELECT count(*) FROM ydoc.snapshots") == 0


async def test_a_database_that_goes_away_and_comes_back_costs_intervals_and_nothing_else(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster(durable=True)
    cluster.create_template()
    url = cluster.url(cluster.create_database())
    database = await Database.open(url, connect_timeout_s=2)
    events = Events()
    try:
        async with Compactor(database, settings(), events.put_nowait) as compactor:
            await asyncio.to_thread(cluster.kill)
            with pytest.raises(ServerFault):
                await compactor.run_once()
            await asyncio.to_thread(cluster.start)
            connection = await asyncpg.connect(url)
            await append(connection, await create_document(connection), Writer().type_each("abc"))
            assert (await events.next_compaction()).result == "done"
            await connection.close()
    finally:
        await database.close()


async def test_a_wall_clock_that_is_set_back_puts_no_sweep_off(database: Database, connection: Connection) -> None:
    """I20: what the scheduler believes is hours away comes within about an interval."""
    events = Events()
    async with Compactor(database, settings(), events.put_nowait) as compactor:
        assert compactor._scheduler is not None
        (job,) = compactor._scheduler.get_jobs()
        for number in range(2):
            job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=2))
            await append(connection, await create_document(connection, f"doc {number}"), Writer().type_each("abc"))
            assert (await events.next_compaction()).result == "done"
