"""When: a sweep now and then, for as long as the process lives. The only importer of APScheduler.

One sweep at a time and none made up for: what a late sweep missed, the next one finds. A database that is away, or
a child that cannot be started, costs a log line and the next interval. `Compactor.run_once` is one tick without
any scheduler. What is due, and how it is merged, is decided below.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from compactor.compaction import Compacted, Failed, Outcome, Skipped, Terms
from compactor.farewell import Farewell
from compactor.policy import CompactionPolicy
from compactor.retention import Retention
from compactor.sweep import SweepBounds, Sweeper, SweepReport
from compactor.worker import Worker
from ydoc_store.errors import ServerFault
from ydoc_store.failpoints import Failpoints
from ydoc_store.logs import logger
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database

SWEEP_SECONDS_MAX: Final = 60.0
log = logger(__name__)


@dataclass(frozen=True, slots=True)
class CompactionEvent:
    """One run, for metrics: `result` is done, failed or lost; `way` is fold, join, merge, or none unless done."""

    result: str
    way: str
    duration_s: float
    rows_merged: int


Event = CompactionEvent | SweepReport


def terms_of(settings: Settings) -> Terms:
    """The terms of every compaction, as the settings have them."""
    return Terms(
        policy=CompactionPolicy(
            tail_rows=settings.compact_tail_rows,
            tail_bytes=settings.compact_tail_bytes,
            tail_age_s=settings.compact_tail_age_s,
        ),
        run_rows_max=settings.compact_run_rows_max,
        run_bytes_max=settings.compact_run_bytes_max,
        history_days=settings.history_days,
        failures_max=settings.compact_failures_max,
        timeout_s=settings.compact_timeout_s,
        failpoints=Failpoints.parse(settings.failpoints),
    )


def worker_of(settings: Settings) -> Worker:
    """A child process, not started yet, as the settings bound it."""
    return Worker(memory_bytes_max=settings.compact_worker_memory_bytes_max, timeout_s=settings.compact_timeout_s)


class Compactor:
    """The compactor of one process: `serve` holds one, `ydoc-compactor run` is one.

    `on_event` is called on the event loop after every run and every sweep, and must not block.
    """

    def __init__(self, database: Database, settings: Settings, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event
        self._interval_s = settings.sweep_interval_s
        # A jitter near the interval itself would put the next moment into the past.
        self._jitter_s = min(settings.sweep_jitter_s, settings.sweep_interval_s / 2)
        self._worker = worker_of(settings)
        bounds = SweepBounds(settings.sweep_documents_max, SWEEP_SECONDS_MAX)
        self._sweeper = Sweeper(database, self._worker, terms_of(settings), bounds, self._tell_outcome)
        self._retention = Retention(database, history_days=settings.history_days, bases_min=settings.history_bases_min)
        self._farewell = Farewell(database, kept_days=settings.deleted_kept_days)
        self._scheduler: AsyncIOScheduler | None = None
        self._following_clock: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Sweep from now on, the first time after one interval. Returns at once."""
        scheduler = AsyncIOScheduler(timezone="UTC")
        job = scheduler.add_job(
            self._tick,
            # Without a jitter, compactors started by one deployment would keep looking at the same moments.
            IntervalTrigger(seconds=self._interval_s, jitter=self._jitter_s or None, timezone="UTC"),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        scheduler.start()
        self._scheduler = scheduler
        self._following_clock = asyncio.create_task(self._follow_clock(job), name="compactor's clock")

    async def stop(self) -> None:
        """No sweep begins any more; the one under way is rolled back, its child ended. Safe to call twice."""
        following, self._following_clock = self._following_clock, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)
        sweeping = self._sweeping
        if sweeping is not None:
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping
        await self._worker.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def run_once(self) -> SweepReport:
        """One sweep and a piece of the retention passes, now. Raises StorageUnavailable or WorkerUnavailable."""
        report = await self._sweeper.sweep()
        retained = await self._retention.drop_some()
        if retained.has_dropped:
            log.info(
                "history_dropped",
                segments=retained.segments,
                bases=retained.bases,
                bytes=retained.bytes,
                commits=retained.commits,
                streams=retained.streams,
                tombstones=retained.tombstones,
            )
        await self._farewell.purge_some()
        if self._on_event is not None:
            self._on_event(report)
        return report

    async def _follow_clock(self, job: Job) -> None:
        """The next sweep is never more than an interval away, though APScheduler goes by the wall clock.

        One that is set back by an hour would otherwise put it, and every compaction, an hour off.
        """
        while True:
            await asyncio.sleep(self._interval_s)
            now = datetime.now(UTC)
            if job.next_run_time - now > timedelta(seconds=self._interval_s + self._jitter_s):
                log.warning("the wall clock went back", sweep_was_due=job.next_run_time.isoformat())
                job.modify(next_run_time=now)

    async def _tick(self) -> None:
        self._sweeping = asyncio.create_task(self._sweep_or_wait())
        try:
            await self._sweeping
        finally:
            self._sweeping = None

    async def _sweep_or_wait(self) -> None:
        try:
            report = await self.run_once()
        except ServerFault as error:
            # Expected now and then (a failover, a restart): appends go on or fail on their own, and so do we.
            log.warning("sweep_failed", reason=str(error))
        except Exception:
            # A fault of ours must not end compaction for good: the next sweep may meet other documents.
            log.exception("sweep_broken")
        else:
            if report.due:
                log.info(
                    "swept",
                    due=report.due,
                    compacted=report.compacted,
                    failed=report.failed,
                    rows_merged=report.rows_merged,
                    duration_s=round(report.duration_s, 3),
                )

    def _tell_outcome(self, outcome: Outcome) -> None:
        match outcome:
            case Failed(run, failures, quarantined):
                log.error(
                    "document_quarantined" if quarantined else "compaction_failed",
                    document_id=run.document_id,
                    failures=failures,
                    reason=run.error,
                )
            case Compacted(run, _) if run.error is not None:
                log.warning("fold_in_doubt", document_id=run.document_id, reason=run.error)
        if self._on_event is not None and not isinstance(outcome, Skipped):
            run = outcome.run
            self._on_event(CompactionEvent(run.result, run.way or "none", run.duration_ms / 1_000, run.rows_merged))
