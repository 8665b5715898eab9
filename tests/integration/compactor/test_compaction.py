"""One compaction: exactly the merged rows go, nobody waits, and no crash leaves half of it."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any, TypeAlias

import asyncpg
import pytest

from compactor import compaction
from compactor.compaction import Compacted, Failed, Lost, Skipped, Terms, compact
from compactor.policy import CompactionPolicy
from compactor.worker import Done, Job, JobFailed, Worker
from tests.compacting import at_step, counts
from tests.log_rows import Writer, append, create_document, text_stored
from tests.waiting import until
from ydoc_store.errors import StorageUnavailable
from ydoc_store.storage.loader import read_after
from ydoc_store.storage.pool import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

STEPS = ["after-read", "after-fold", "after-insert", "after-delete", "before-commit"]


async def shown(database: Database, document_id: int) -> str:
    """The text that a reader of the whole document sees; the load checks that nothing is missing (I6)."""
    return text_stored(await read_after(database, document_id, 0))


async def snapshots(connection: Connection, document_id: int) -> list[dict[str, Any]]:
    rows = await connection.fetch(
        "SELECT through_seq, merged_rows, merged_bytes, way, superseded_at IS NULL AS current "
        "FROM ydoc.snapshots WHERE document_id = $1 ORDER BY through_seq",
        document_id,
    )
    return [dict(row) for row in rows]


async def test_exactly_the_merged_rows_go_and_every_reader_sees_the_same_text(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    neighbour = await create_document(connection, "neighbour")
    first = [*writer.type_each("the quick brown fox"), writer.delete(3, 9)]
    await append(connection, document_id, first, a_row=3, actor="ann")
    await append(connection, neighbour, first)
    before = await shown(database, document_id)

    outcome = await compact(database, worker, document_id, terms, forced=True)

    assert isinstance(outcome, Compacted)
    assert (outcome.run.after_seq, outcome.run.through_seq, outcome.run.rows_merged) == (0, 20, 7)
    assert outcome.run.way == "fold"
    assert outcome.run.tail_bytes == sum(map(len, first))
    assert not outcome.more
    assert await shown(database, document_id) == before == str(writer.text)
    assert await counts(connection, document_id) == {
        "updates": 0,
        "snapshots": 1,
        "segments": 1,
        "compactions": 1,
    }
    assert (await counts(connection, neighbour))["updates"] == len(first)


async def test_a_second_compaction_builds_on_the_first_and_the_counters_say_what_is_merged(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    updates = writer.type_each("abc")
    await append(connection, document_id, updates)
    await compact(database, worker, document_id, terms, forced=True)
    more = writer.type_each("def")
    await append(connection, document_id, more, a_row=2)
    outcome = await compact(database, worker, document_id, terms, forced=True)
    assert isinstance(outcome, Compacted)
    current = (await snapshots(connection, document_id))[-1]
    assert current["through_seq"] == 6
    assert current["merged_rows"] == 5
    assert current["merged_bytes"] == sum(map(len, updates + more))
    head = await connection.fetchrow(
        "SELECT accepted_rows, accepted_bytes FROM ydoc.documents WHERE id = $1", document_id
    )
    assert head is not None
    assert tuple(head) == (current["merged_rows"], current["merged_bytes"])
    assert await shown(database, document_id) == "abcdef"


@pytest.mark.parametrize("step", STEPS)
async def test_rows_appended_during_a_compaction_stay_and_their_writer_does_not_wait(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    await append(connection, document_id, writer.type_each("before "))

    async def append_more() -> None:
        async with asyncio.timeout(60):
            await append(connection, document_id, writer.type_each("after"))

    outcome = await compact(database, worker, document_id, at_step(terms, step, append_more), forced=True)
    assert isinstance(outcome, Compacted)
    assert outcome.run.rows_merged == 7
    assert (await counts(connection, document_id))["updates"] == 5
    assert await shown(database, document_id) == "before after"


async def test_a_tail_longer_than_one_run_is_merged_in_several_and_stays_whole(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    await append(connection, document_id, writer.type_each("0123456789"), a_row=2)
    bites = replace(terms, run_rows_max=2)
    seen = []
    for _ in range(3):
        outcome = await compact(database, worker, document_id, bites, forced=True)
        assert isinstance(outcome, Compacted)
        seen.append((outcome.run.through_seq, outcome.more))
        assert await shown(database, document_id) == "0123456789"
    assert seen == [(4, True), (8, True), (10, False)]
    assert await compact(database, worker, document_id, bites, forced=True) == Skipped("the tail is empty")


async def test_a_row_over_the_byte_bound_of_a_run_is_merged_alone(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    await append(connection, document_id, [writer.type("x" * 5_000), writer.type("y" * 5_000), writer.type("z")])
    outcome = await compact(database, worker, document_id, replace(terms, run_bytes_max=100), forced=True)
    assert isinstance(outcome, Compacted)
    assert (outcome.run.rows_merged, outcome.more) == (1, True)


async def test_while_one_compactor_is_at_it_another_passes_by(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    second: list[object] = []

    async def compact_too() -> None:
        second.append(await compact(database, worker, document_id, terms, forced=True))

    first = await compact(database, worker, document_id, at_step(terms, "after-read", compact_too), forced=True)
    assert isinstance(first, Compacted)
    assert second == [Skipped("another compactor is at it")]


@pytest.fixture
def without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Correctness rests on the compare-and-swap: whatever the lock prevents must come to no harm without it."""

    async def always(connection: object, document_id: int) -> bool:
        return True

    monkeypatch.setattr(compaction, "try_lock", always)


@pytest.mark.usefixtures("without_the_lock")
@pytest.mark.parametrize("earlier", ["", "an earlier snapshot "])
async def test_a_compactor_that_was_paused_while_another_finished_changes_nothing(
    database: Database, connection: Connection, worker: Worker, terms: Terms, earlier: str
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    if earlier:
        await append(connection, document_id, writer.type_each(earlier))
        await compact(database, worker, document_id, terms, forced=True)
    await append(connection, document_id, writer.type_each("abc"))
    winners: list[object] = []

    async def be_overtaken() -> None:
        winners.append(await compact(database, worker, document_id, terms, forced=True))
        winners.append(await counts(connection, document_id))
        winners.append(await snapshots(connection, document_id))

    outcome = await compact(database, worker, document_id, at_step(terms, "after-fold", be_overtaken), forced=True)
    assert isinstance(outcome, Lost)
    winner, counted, rows = winners
    assert isinstance(winner, Compacted)
    assert isinstance(counted, dict)
    counted["compactions"] += 1
    assert [await counts(connection, document_id), await snapshots(connection, document_id)] == [counted, rows]
    assert await shown(database, document_id) == earlier + "abc"


@pytest.mark.usefixtures("without_the_lock")
@pytest.mark.parametrize("earlier", ["", "an earlier snapshot "])
async def test_of_two_compactors_that_write_at_the_same_moment_one_loses(
    database: Database, connection: Connection, worker: Worker, terms: Terms, earlier: str
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    if earlier:
        await append(connection, document_id, writer.type_each(earlier))
        await compact(database, worker, document_id, terms, forced=True)
    await append(connection, document_id, writer.type_each("abc"))
    both_folded = asyncio.Barrier(2)

    async def meet() -> None:
        await both_folded.wait()

    racing = at_step(terms, "after-fold", meet)
    async with Worker(timeout_s=60) as other_worker:
        outcomes = await asyncio.gather(
            compact(database, worker, document_id, racing, forced=True),
            compact(database, other_worker, document_id, racing, forced=True),
        )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Compacted", "Lost"]
    assert await shown(database, document_id) == earlier + "abc"
    assert [row["current"] for row in await snapshots(connection, document_id)].count(True) == 1


@pytest.mark.parametrize("step", STEPS)
async def test_a_connection_that_dies_at_any_step_has_no_effect_and_the_next_run_succeeds(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    await append(connection, document_id, writer.type_each("first "))
    await compact(database, worker, document_id, terms, forced=True)
    await append(connection, document_id, writer.type_each("second"))
    before = [await counts(connection, document_id), await snapshots(connection, document_id)]

    async def terminate() -> None:
        killed = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        assert killed == 1

    with pytest.raises(StorageUnavailable):
        await compact(database, worker, document_id, at_step(terms, step, terminate), forced=True)
    assert [await counts(connection, document_id), await snapshots(connection, document_id)] == before
    assert await shown(database, document_id) == "first second"
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)
    assert await shown(database, document_id) == "first second"


@pytest.mark.parametrize("step", STEPS)
async def test_a_compaction_cancelled_at_any_step_has_no_effect(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    before = await counts(connection, document_id)
    reached = asyncio.Event()

    async def wait_here() -> None:
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(compact(database, worker, document_id, at_step(terms, step, wait_here), forced=True))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await counts(connection, document_id) == before
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)


@pytest.mark.parametrize("step", ["after-read", "after-fold"])
async def test_while_the_child_folds_nothing_is_held_that_vacuum_or_a_writer_waits_for(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    held: list[asyncpg.Record] = []

    async def look() -> None:
        held.extend(
            await connection.fetch(
                "SELECT backend_xmin, backend_xid FROM pg_stat_activity "
                "WHERE datname = current_database() AND state = 'idle in transaction'"
            )
        )

    await compact(database, worker, document_id, at_step(terms, step, look), forced=True)
    assert [tuple(row) for row in held] == [(None, None)]


async def test_a_hole_in_the_log_is_never_merged_and_quarantines_the_document_at_the_third_failure(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abcdef"))
    await connection.execute("DELETE FROM ydoc.updates WHERE document_id = $1 AND seq = 3", document_id)
    before = await counts(connection, document_id)
    verdicts = []
    for _ in range(3):
        outcome = await compact(database, worker, document_id, terms, forced=True)
        assert isinstance(outcome, Failed)
        verdicts.append((outcome.failures, outcome.quarantined))
    assert verdicts == [(1, False), (2, False), (3, True)]
    assert (await counts(connection, document_id))["updates"] == before["updates"]
    due_now = replace(terms, policy=CompactionPolicy(tail_rows=1))
    assert await compact(database, worker, document_id, due_now) == Skipped("quarantined")
    reason = await connection.fetchval("SELECT reason FROM ydoc.quarantines WHERE document_id = $1", document_id)
    assert "the log has a hole: row 4 begins at 3, not at 2" in reason


async def test_a_success_forgets_the_failures_before_it(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    await connection.execute("UPDATE ydoc.updates SET count = 2 WHERE document_id = $1 AND seq = 3", document_id)
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Failed)
    await connection.execute("UPDATE ydoc.updates SET count = 1 WHERE document_id = $1 AND seq = 3", document_id)
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.quarantines") == 0


async def test_a_child_that_dies_fails_its_document_and_the_next_run_has_a_new_one(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    outcome = await compact(database, _DyingWorker(), document_id, terms, forced=True)
    assert isinstance(outcome, Failed)
    assert outcome.run.error == "the worker died (signal 9) while it merged this document"
    assert (await counts(connection, document_id))["updates"] == 3
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)


async def test_rows_that_vanish_while_they_are_merged_fail_the_compaction(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))

    async def delete_one() -> None:
        await connection.execute("DELETE FROM ydoc.updates WHERE document_id = $1 AND seq = 2", document_id)

    outcome = await compact(database, worker, document_id, at_step(terms, "after-fold", delete_one), forced=True)
    assert isinstance(outcome, Failed)
    assert outcome.run.error == "3 rows were merged and 2 would have been deleted"
    assert (await counts(connection, document_id))["snapshots"] == 0


async def test_a_document_with_keep_deleted_is_joined_and_keeps_its_deleted_text(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection, keep_deleted=True)
    await append(connection, document_id, [*writer.type_each("secret"), writer.delete(0, 6)])
    outcome = await compact(database, worker, document_id, terms, forced=True)
    assert isinstance(outcome, Compacted)
    assert outcome.run.way == "join"
    assert b"secret" in await connection.fetchval("SELECT bytes FROM ydoc.snapshots")


async def test_without_a_history_window_neither_segment_nor_superseded_snapshot_stays(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    none_kept = replace(terms, history_days=0)
    document_id = await create_document(connection)
    for text in ("abc", "def"):
        await append(connection, document_id, writer.type_each(text))
        await compact(database, worker, document_id, none_kept, forced=True)
    counted = await counts(connection, document_id)
    assert (counted["snapshots"], counted["segments"]) == (1, 0)
    assert await shown(database, document_id) == "abcdef"


async def test_what_is_not_due_is_not_touched(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    outcome = await compact(database, worker, document_id, terms)
    assert isinstance(outcome, Skipped)
    assert outcome.reason.startswith("3 rows of 500")
    assert (await counts(connection, document_id))["updates"] == 3


async def test_a_deleted_document_is_left_alone(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abc"))
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = $1", document_id)
    assert await compact(database, worker, document_id, terms, forced=True) == Skipped("the tail is empty")


async def test_eight_writers_and_two_compactors_lose_and_double_nothing(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    writers = [Writer(client_id) for client_id in range(1, 9)]
    busy = replace(terms, policy=CompactionPolicy(tail_rows=1, tail_bytes=1, amplification_max=1e9))
    done = asyncio.Event()

    async def write(writer: Writer) -> None:
        own = await asyncpg.connect(database.url)
        try:
            for number in range(40):
                await append(own, document_id, [writer.type(f"{writer.doc.client_id}:{number};")])
        finally:
            await own.close()

    async def keep_compacting(own_worker: Worker) -> int:
        merged = 0
        while not done.is_set():
            outcome = await compact(database, own_worker, document_id, busy)
            if isinstance(outcome, Compacted):
                merged += outcome.run.rows_merged
            assert not isinstance(outcome, Failed)
        return merged

    async with Worker(timeout_s=60) as other_worker:
        compactors = [asyncio.create_task(keep_compacting(own)) for own in (worker, other_worker)]
        await asyncio.gather(*map(write, writers))
        done.set()
        merged = sum(await asyncio.gather(*compactors))
    assert merged > 0
    text = await shown(database, document_id)
    for writer in writers:
        assert str(writer.text) in text
    assert len(text) == sum(len(str(writer.text)) for writer in writers)
    assert (await read_after(database, document_id, 0)).head == 320


class _DyingWorker(Worker):
    """Its child is killed as soon as it has a job."""

    async def run(self, job: Job) -> Done | JobFailed:
        running = asyncio.create_task(super().run(job))
        await until(lambda: self.pid is not None)
        os.kill(self.pid or 0, signal.SIGKILL)
        return await running
