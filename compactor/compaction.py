"""One document, one transaction: its tail becomes a snapshot, and exactly the merged rows go.

Everything that makes a compaction right stands in `_merge_and_replace`: the compare-and-swap, the verified merge,
the counted DELETE, the history. A crash at any step has no effect or the whole effect (I8). What runs before and
after it here only decides whether, and writes down what came of it. No SQL text, and no merging in this process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from compactor.policy import Backlog, CompactionPolicy, NotDue, due
from compactor.worker import Done, Job, JobFailed, Worker
from ydoc_store.errors import ServerFault
from ydoc_store.failpoints import Failpoints
from ydoc_store.storage.backlog import DocumentBacklog, read_backlog
from ydoc_store.storage.commits import note
from ydoc_store.storage.compactions import Compaction, go_idle, insert_compaction, try_lock
from ydoc_store.storage.pool import Database
from ydoc_store.storage.quarantine import clear_failures, record_failure
from ydoc_store.storage.segments import insert_segment
from ydoc_store.storage.snapshots import NewSnapshot, take_over
from ydoc_store.storage.tail import Mergeable, delete_merged, read_for_merge

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

FORCED: Final = "asked for"
_IDLE_MARGIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What every compaction of a process goes by."""

    policy: CompactionPolicy = field(default_factory=CompactionPolicy)
    run_rows_max: int = 100_000
    run_bytes_max: int = 16 * 2**20
    history_days: int = 7
    failures_max: int = 3
    timeout_s: float = 120.0
    failpoints: Failpoints | None = None


@dataclass(frozen=True, slots=True)
class Compacted:
    """The snapshot stands and the rows are gone. `more` tells that the tail was longer than one run takes."""

    run: Compaction
    more: bool


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was tried: not due any more, empty, quarantined, or another compactor is at it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Another compactor's snapshot was first; this run's work is wasted and had no effect."""

    run: Compaction


@dataclass(frozen=True, slots=True)
class Failed:
    """The document could not be compacted; nothing changed but the count of its failures."""

    run: Compaction
    failures: int
    quarantined: bool


Outcome = Compacted | Skipped | Lost | Failed


class _Lost(Exception):
    """Rolls the transaction back; never leaves this module."""


class _Failed(Exception):
    """Likewise."""


async def compact(
    database: Database, worker: Worker, document_id: int, terms: Terms, *, forced: bool = False
) -> Outcome:
    """Merge the oldest of the document's tail, at most one run's worth, if it is due or `forced`.

    Readers and writers of the document never wait for it. Raises StorageUnavailable or StorageBusy where the
    database failed (the outcome is then none or all of it, and the next run sees which), WorkerUnavailable where
    no child can be started. Cancelling rolls back, unless the COMMIT was under way.
    """
    attempt = _Attempt(document_id)
    try:
        async with database.transaction() as connection:
            if not await try_lock(connection, document_id):
                return Skipped("another compactor is at it")
            backlog = await read_backlog(connection, document_id)
            if backlog is None:
                return Skipped("the tail is empty")
            why = _wanted(backlog, terms, forced)
            if isinstance(why, NotDue):
                return Skipped(why.reason)
            attempt.why = why
            done = await _merge_and_replace(connection, worker, attempt, terms)
    except _Lost as error:
        return await _record_lost(database, attempt.failed("lost", str(error)))
    except _Failed as error:
        return await _record_failed(database, attempt.failed("failed", str(error)), terms)
    except ServerFault as error:
        if type(error) is not ServerFault:
            raise
        # Postgres is there and refuses this document's rows (a damaged page, a constraint). A sweep that ended with
        # it would never get behind it, and no other document would be compacted any more.
        return await _record_failed(database, attempt.failed("failed", str(error)), terms)
    await _reach(terms, "after-commit")
    return done


async def _merge_and_replace(
    connection: Connection, worker: Worker, attempt: _Attempt, terms: Terms
) -> Compacted | Skipped:
    document_id = attempt.document_id
    found = await read_for_merge(connection, document_id, rows_max=terms.run_rows_max, bytes_max=terms.run_bytes_max)
    if found is None:
        return Skipped("the tail is empty")
    attempt.after_seq = found.after_seq
    await go_idle(connection, terms.timeout_s + _IDLE_MARGIN_S)
    await _reach(terms, "after-read")

    # One transaction, idle while the child folds, and not two around it. In READ COMMITTED nothing is held between
    # statements that vacuum would wait for: no snapshot (xmin), and no transaction id before the first write.
    # Neither are any rows locked. In return the advisory lock ends with the transaction, however that ends, also
    # behind a pooler that gives each transaction another session.
    result = await worker.run(
        Job(
            snapshot=found.snapshot,
            packed_rows=found.packed_rows,
            after_seq=found.after_seq,
            keep_deleted=found.keep_deleted,
            keep_history=terms.history_days > 0,
        )
    )
    if isinstance(result, JobFailed):
        raise _Failed(result.reason)
    if (result.row_count, result.through_seq) != (found.row_count, found.through_seq):
        raise _Failed(f"{found.row_count} rows were read and {result.row_count} merged")
    await _reach(terms, "after-fold")

    if not await take_over(
        connection, _new_snapshot(document_id, found, result), found.after_seq, keep_base=terms.history_days > 0
    ):
        raise _Lost("another compactor's snapshot was first")
    await _reach(terms, "after-insert")
    deleted = await delete_merged(connection, document_id, found.after_seq, found.through_seq)
    if deleted != found.row_count:
        raise _Failed(f"{found.row_count} rows were merged and {deleted} would have been deleted")
    await _reach(terms, "after-delete")
    if terms.history_days > 0:
        await insert_segment(
            connection,
            document_id,
            found.after_seq,
            found.through_seq,
            row_count=found.row_count,
            raw_bytes=len(found.packed_rows),
            stored=result.segment,
        )
    run = attempt.done(found, result)
    await insert_compaction(connection, run)
    await clear_failures(connection, document_id)
    merged = found.through_seq - found.after_seq
    await note(connection, "compacted", document_id, seq=found.through_seq, count=merged)
    await _reach(terms, "before-commit")
    return Compacted(run, more=found.through_seq < found.head)


def _new_snapshot(document_id: int, found: Mergeable, result: Done) -> NewSnapshot:
    return NewSnapshot(
        document_id=document_id,
        through_seq=found.through_seq,
        content=result.snapshot,
        state_vector=result.state_vector,
        delete_set=result.delete_set,
        merged_rows=found.merged_rows + found.row_count,
        merged_bytes=found.merged_bytes + result.update_bytes,
        way=result.way,
    )


def _wanted(backlog: DocumentBacklog, terms: Terms, forced: bool) -> str | NotDue:
    if forced:
        return FORCED
    if backlog.quarantined:
        return NotDue("quarantined")
    verdict = due(judged(backlog), terms.policy)
    return verdict if isinstance(verdict, NotDue) else verdict.reason


def judged(backlog: DocumentBacklog) -> Backlog:
    """A stored backlog as the policy judges it."""
    return Backlog(backlog.rows, backlog.bytes, backlog.age_s, backlog.snapshot_bytes)


async def _record_lost(database: Database, run: Compaction) -> Lost:
    async with database.transaction() as connection:
        await insert_compaction(connection, run)
    return Lost(run)


async def _record_failed(database: Database, run: Compaction, terms: Terms) -> Failed:
    async with database.transaction() as connection:
        await insert_compaction(connection, run)
        counted = await record_failure(connection, run.document_id, run.error or "", terms.failures_max)
    return Failed(run, counted.failures, counted.quarantined)


async def _reach(terms: Terms, step: str) -> None:
    if terms.failpoints is not None:
        await terms.failpoints.reach(f"compaction.{step}")


class _Attempt:
    """What is known of a run so far, for the row that it leaves however it ends."""

    def __init__(self, document_id: int):
        self.document_id = document_id
        self.why = FORCED
        self.after_seq = 0
        self._started_s = time.perf_counter()

    def _duration_ms(self) -> float:
        return (time.perf_counter() - self._started_s) * 1_000

    def failed(self, result: Literal["failed", "lost"], error: str) -> Compaction:
        return Compaction(self.document_id, self._duration_ms(), result, None, self.why, self.after_seq, error=error)

    def done(self, found: Mergeable, result: Done) -> Compaction:
        return Compaction(
            document_id=self.document_id,
            duration_ms=self._duration_ms(),
            result="done",
            way=result.way,
            why=self.why,
            after_seq=found.after_seq,
            through_seq=found.through_seq,
            rows_merged=found.row_count,
            tail_bytes=result.update_bytes,
            snapshot_bytes_before=len(found.snapshot or b""),
            snapshot_bytes_after=len(result.snapshot),
            history_bytes=len(result.segment),
            error=result.doubt,
        )
