"""The monitor's look at a real database: what the gauges and the compactor's check are fed with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ydoc_store.http.health import Verdict
from ydoc_store.metrics import BacklogTotals, Metrics
from ydoc_store.monitor import Monitor
from ydoc_store.postgres import connect, prepare, where_of
from ydoc_store.settings import Settings
from ydoc_store.storage.backlog import DocumentBacklog
from ydoc_store.storage.pool import Database

pytestmark = pytest.mark.pg15

INSERT_DOCUMENT = """
WITH d AS (
    INSERT INTO ydoc.documents (tenant, name, marker, head, accepted_rows, accepted_bytes)
    VALUES ('default', $1, 9007199237963776, $2, $2, $3) RETURNING id
)
INSERT INTO ydoc.updates (document_id, seq, count, accepted_at, frames)
SELECT d.id, n, 1, now() - interval '1 hour', '\\x020000' FROM d, generate_series(1, $2) AS n
"""
QUARANTINE_ALL = """
INSERT INTO ydoc.quarantines (document_id, failures, reason, quarantined_at)
SELECT d.id, 3, 'does not fold', now() FROM ydoc.documents AS d
"""


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings.load(
        {"database_url": database_url, "document_bytes_max": 1_000, "update_bytes_max": 1_000, "pool_size": 2}
    )


@pytest.fixture
async def database(settings: Settings, database_url: str) -> AsyncIterator[Database]:
    database = await connect(database_url, settings)
    await prepare(database, may_migrate=False)
    yield database
    await database.close()


def is_due(backlog: DocumentBacklog) -> bool:
    return backlog.rows >= 5


async def test_one_look_fills_the_gauges(database: Database, settings: Settings) -> None:
    metrics = Metrics()
    monitor = Monitor(database, settings, metrics, is_due)
    assert (await monitor.compactor_check()).verdict is Verdict.READY
    await monitor.look()
    assert metrics.backlog == BacklogTotals(0, 0, 0.0, 0, 0)

    async with database.acquire() as connection:
        await connection.execute(INSERT_DOCUMENT, "small", 2, 4)
        await connection.execute(INSERT_DOCUMENT, "large", 7, 800)
    monitor = Monitor(database, settings, metrics, is_due)
    await monitor.look()
    backlog = metrics.backlog
    assert backlog is not None
    assert (backlog.rows, backlog.bytes, backlog.near_limit, backlog.quarantined) == (9, 804, 1, 0)
    assert 3_600 <= backlog.age_s < 3_700
    check = await monitor.compactor_check()
    assert (check.verdict, check.detail) == (Verdict.READY, "1 documents are due"), "seen due only just now"


async def test_a_quarantined_document_is_degraded_and_not_unready(database: Database, settings: Settings) -> None:
    metrics = Metrics()
    monitor = Monitor(database, settings, metrics, is_due)
    async with database.acquire() as connection:
        await connection.execute(INSERT_DOCUMENT, "plan", 7, 14)
        await connection.execute(QUARANTINE_ALL)
    await monitor.look()
    check = await monitor.compactor_check()
    assert (check.verdict, check.detail) == (Verdict.DEGRADED, "1 documents are quarantined")


async def test_a_transaction_behind_which_the_change_feed_stands_still_is_named(
    database: Database,
) -> None:
    metrics = Metrics()
    monitor = Monitor(database, Settings.load({"changes_held_s_max": 0.001}), metrics, is_due)
    async with database.transaction() as connection:
        await connection.fetchval("SELECT pg_current_xact_id()")
        await monitor.look()
        await monitor.look()
        assert metrics.changes_held_s is not None
        assert metrics.changes_held_s > 0
        check = await monitor.changes_check()
        assert check.verdict is Verdict.DEGRADED
        assert f"process {connection.get_server_pid()}" in check.detail


async def test_the_watch_asks_the_database_itself(database: Database, settings: Settings) -> None:
    monitor = Monitor(database, settings, Metrics(), is_due)
    assert (await monitor.database_watch.check()).verdict is Verdict.READY
    await database.close()
    assert (await monitor.database_watch.check()).verdict is Verdict.DEGRADED


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:hunter2@db.internal:5433/notes", "schema ydoc of database notes at db.internal:5433"),
        ("postgresql://ydoc@/postgres?host=/run/x&password=hunter2", "schema ydoc of database postgres at its socket"),
        ("postgresql://u:hunter2@h:port/d", "schema ydoc of the given database"),
    ],
)
def test_where_the_data_lies_is_told_without_its_password(url: str, told: str) -> None:
    assert where_of(url) == told
