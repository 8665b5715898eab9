"""One pass over what is due, bounded in documents and in time.

Candidates are looked up page by page; those that are due are taken in a random order, so that many compactors
share the work instead of queueing for the same documents. A sweep that ends early goes on where it stopped with
the next one. Nothing here knows a scheduler, and nothing here judges a single document.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from compactor.compaction import Compacted, Failed, Lost, Outcome, Skipped, Terms, compact, judged
from compactor.policy import Due, due
from compactor.worker import Worker
from ydoc_store.errors import StorageBusy
from ydoc_store.storage.backlog import BacklogPage, DocumentBacklog, find_backlogs
from ydoc_store.storage.pool import Database

PAGE_DOCUMENTS: Final = 1_000
"""One look costs some 18 µs a document that has a tail: a page holds no connection for long."""

LOOKED_AT_MAX: Final = 20_000
"""A sweep reads at most so many heads; on a larger installation one round takes several sweeps."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep saw and did.

    `backlog_rows` and `backlog_bytes` are of the documents looked at, before any was compacted. `at_end` tells that
    the log's end was reached and the next sweep begins at its start.
    """

    looked_at: int
    due: int
    compacted: int
    skipped: int
    lost: int
    failed: int
    rows_merged: int
    backlog_rows: int
    backlog_bytes: int
    at_end: bool
    duration_s: float


@dataclass(frozen=True, slots=True)
class SweepBounds:
    """Where a sweep ends, so that the next sees what became more urgent meanwhile."""

    documents_max: int = 500
    seconds_max: float = 60.0


class _Tally:
    """What a sweep has seen and done so far."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.looked_at = self.due = self.tried = 0
        self.compacted = self.skipped = self.lost = self.failed = 0
        self.rows_merged = self.backlog_rows = self.backlog_bytes = 0

    def look(self, backlogs: Collection[DocumentBacklog]) -> None:
        self.looked_at += len(backlogs)
        self.backlog_rows += sum(backlog.rows for backlog in backlogs)
        self.backlog_bytes += sum(backlog.bytes for backlog in backlogs)

    def count(self, outcome: Outcome) -> None:
        match outcome:
            case Compacted(run):
                self.compacted += 1
                self.rows_merged += run.rows_merged
            case Skipped():
                self.skipped += 1
            case Lost():
                self.lost += 1
            case Failed():
                self.failed += 1


class Sweeper:
    """Does the sweeps of one process, one at a time; remembers where the last one stopped."""

    def __init__(
        self,
        database: Database,
        worker: Worker,
        terms: Terms,
        bounds: SweepBounds,
        on_outcome: Callable[[Outcome], None] | None = None,
    ):
        self._database = database
        self._worker = worker
        self._terms = terms
        self._bounds = bounds
        self._on_outcome = on_outcome
        self._after_id = 0

    async def sweep(self) -> SweepReport:
        """Compact what is due, from where the last sweep stopped to the end of the log or of the bounds.

        A failing document is counted and passed over. Raises StorageUnavailable where the database is gone,
        WorkerUnavailable where no child process can be started; the next sweep then begins with the same page.
        Cancelling ends it with the document under way rolled back.
        """
        tally = _Tally()
        at_end = False
        while not at_end and tally.looked_at < LOOKED_AT_MAX and not self._spent(tally):
            page = await find_backlogs(self._database, self._after_id, PAGE_DOCUMENTS)
            tally.look(page.backlogs)
            is_whole = await self._compact_due(page, tally)
            # Also past a page that was cut short: its documents come again in the next round, and those behind it
            # must not wait for a first page that is always due.
            self._after_id = page.next_after_id or 0
            if not is_whole:
                break
            at_end = page.next_after_id is None
        return SweepReport(
            looked_at=tally.looked_at,
            due=tally.due,
            compacted=tally.compacted,
            skipped=tally.skipped,
            lost=tally.lost,
            failed=tally.failed,
            rows_merged=tally.rows_merged,
            backlog_rows=tally.backlog_rows,
            backlog_bytes=tally.backlog_bytes,
            at_end=at_end,
            duration_s=time.monotonic() - tally.started_s,
        )

    async def _compact_due(self, page: BacklogPage, tally: _Tally) -> bool:
        """False where the sweep's bounds were reached before the page's end."""
        wanted = [
            backlog.document_id
            for backlog in page.backlogs
            if not backlog.quarantined and isinstance(due(judged(backlog), self._terms.policy), Due)
        ]
        tally.due += len(wanted)
        random.shuffle(wanted)
        for document_id in wanted:
            if self._spent(tally):
                return False
            await self._compact(document_id, tally)
        return True

    async def _compact(self, document_id: int, tally: _Tally) -> None:
        tally.tried += 1
        while True:
            try:
                outcome = await compact(self._database, self._worker, document_id, self._terms)
            except StorageBusy as error:
                outcome = Skipped(f"the database was busy: {error}")
            tally.count(outcome)
            if self._on_outcome is not None:
                self._on_outcome(outcome)
            if not (isinstance(outcome, Compacted) and outcome.more) or self._spent(tally):
                return

    def _spent(self, tally: _Tally) -> bool:
        return (
            tally.tried >= self._bounds.documents_max or time.monotonic() - tally.started_s >= self._bounds.seconds_max
        )
