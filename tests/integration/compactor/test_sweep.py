"""A sweep: what is due gets compacted, several share the work, and trouble with one document is its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TypeAlias

import asyncpg
import pytest

from compactor import sweep as sweep_module
from compactor.compaction import Compacted, Outcome, Terms
from compactor.policy import CompactionPolicy
from compactor.sweep import SweepBounds, Sweeper
from compactor.worker import Worker
from tests.log_rows import Writer, append, create_document
from ydoc_store.storage.pool import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

BUSIEST = CompactionPolicy(tail_rows=3)


async def fill(connection: Connection, documents: int, rows: int = 3) -> list[int]:
    updates = Writer().type_each("x" * rows)
    ids = [await create_document(connection, f"doc {number}") for number in range(documents)]
    for document_id in ids:
        await append(connection, document_id, updates)
    return ids


async def tails(connection: Connection) -> dict[int, int]:
    rows = await connection.fetch("SELECT document_id, count(*) FROM ydoc.updates GROUP BY 1 ORDER BY 1")
    return {row[0]: row[1] for row in rows}


async def test_a_sweep_compacts_what_is_due_and_leaves_the_rest(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await fill(connection, 3)
    (small,) = [await create_document(connection, "small")]
    await append(connection, small, Writer().type_each("ab"))
    sweeper = Sweeper(database, worker, replace(terms, policy=BUSIEST), SweepBounds())
    report = await sweeper.sweep()
    assert (report.looked_at, report.due, report.compacted, report.at_end) == (4, 3, 3, True)
    assert (report.backlog_rows, report.rows_merged) == (11, 9)
    assert await tails(connection) == {small: 2}
    assert (await sweeper.sweep()).due == 0


async def test_a_sweep_that_reaches_its_bound_goes_on_with_the_next(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await fill(connection, 5)
    sweeper = Sweeper(database, worker, replace(terms, policy=BUSIEST), SweepBounds(documents_max=2))
    reports = [await sweeper.sweep() for _ in range(3)]
    assert [report.compacted for report in reports] == [2, 2, 1]
    assert [report.at_end for report in reports] == [False, False, True]
    assert await tails(connection) == {}


async def test_pages_are_walked_to_the_end_past_deleted_and_quarantined_documents(
    database: Database, connection: Connection, worker: Worker, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "PAGE_DOCUMENTS", 2)
    ids = await fill(connection, 7)
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = ANY($1)", ids[2:4])
    await connection.execute(
        "INSERT INTO ydoc.quarantines (document_id, failures, reason, quarantined_at) VALUES ($1, 3, 'x', now())",
        ids[5],
    )
    report = await Sweeper(database, worker, replace(terms, policy=BUSIEST), SweepBounds()).sweep()
    assert (report.looked_at, report.due, report.compacted, report.at_end) == (5, 4, 4, True)
    assert list(await tails(connection)) == [ids[2], ids[3], ids[5]]


async def test_compactors_that_sweep_at_once_share_the_work_and_lose_none_of_it(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await fill(connection, 40)
    busiest = replace(terms, policy=BUSIEST)
    async with Worker(timeout_s=60) as second, Worker(timeout_s=60) as third:
        sweepers = [Sweeper(database, own, busiest, SweepBounds()) for own in (worker, second, third)]
        reports = await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
    assert sum(report.compacted for report in reports) == 40
    assert all(report.compacted > 0 for report in reports)
    assert [report.lost + report.failed for report in reports] == [0, 0, 0]
    assert await tails(connection) == {}


async def test_a_document_that_fails_is_passed_over_and_quarantined_at_the_third_sweep(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    good, bad = await fill(connection, 2)
    await connection.execute("UPDATE ydoc.updates SET frames = '\\x0101'  WHERE document_id = $1", bad)
    outcomes: list[Outcome] = []
    sweeper = Sweeper(database, worker, replace(terms, policy=BUSIEST), SweepBounds(), outcomes.append)
    reports = [await sweeper.sweep() for _ in range(4)]
    assert [(report.compacted, report.failed) for report in reports] == [(1, 1), (0, 1), (0, 1), (0, 0)]
    assert len([outcome for outcome in outcomes if isinstance(outcome, Compacted)]) == 1
    assert await tails(connection) == {bad: 3}
    assert good not in await tails(connection)


async def test_a_document_whose_rows_the_database_refuses_does_not_keep_the_sweep_from_the_others(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    ids = await fill(connection, 6)
    bad = ids[0]
    await connection.execute(
        "INSERT INTO ydoc.segments (document_id, after_seq, through_seq, row_count, raw_bytes, bytes) "
        "VALUES ($1, 0, 3, 1, 1, 'x')",
        bad,
    )
    sweeper = Sweeper(database, worker, replace(terms, policy=BUSIEST), SweepBounds())
    reports = [await sweeper.sweep() for _ in range(4)]
    assert [(report.compacted, report.failed) for report in reports] == [(5, 1), (0, 1), (0, 1), (0, 0)]
    assert await tails(connection) == {bad: 3}
    reason = await connection.fetchval("SELECT reason FROM ydoc.quarantines WHERE document_id = $1", bad)
    assert "segments_pkey" in reason


async def test_a_long_tail_is_merged_in_bites_within_one_sweep(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await fill(connection, 1, rows=10)
    bites = replace(terms, policy=CompactionPolicy(tail_rows=1), run_rows_max=4)
    report = await Sweeper(database, worker, bites, SweepBounds()).sweep()
    assert (report.due, report.compacted, report.rows_merged) == (1, 3, 10)
