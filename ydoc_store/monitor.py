"""The look at the database that no edit causes: does it answer, what waits for whom, and for how long.

One task, one look each interval, shared by the gauges and the health check. It only watches; nothing here decides
when to compact. Which tail is due is the compactor's policy, handed in, because this package may not import it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ydoc_store.errors import YdocError
from ydoc_store.fanout.postgres import QUEUE_USAGE_MAX
from ydoc_store.http.health import Check, DatabaseWatch, Verdict
from ydoc_store.logs import logger
from ydoc_store.metrics import BacklogTotals, Metrics
from ydoc_store.settings import Settings
from ydoc_store.storage.backlog import DocumentBacklog, find_backlogs
from ydoc_store.storage.health import answer, count_larger_than
from ydoc_store.storage.horizon import Oldest, find_oldest_transaction, find_oldest_writer
from ydoc_store.storage.pool import Database
from ydoc_store.storage.quarantine import count_quarantined

DOCUMENTS_A_LOOK = 1_000
# Sizes change slowly and counting them looks at every document's head: once for this many looks.
LOOKS_A_COUNT = 20

IsDue = Callable[[DocumentBacklog], bool]

log = logger(__name__)


class Lag:
    """How long due work has been waiting, from one look to the next. Pure but for the clock that it is given."""

    def __init__(self, is_due: IsDue) -> None:
        self._is_due = is_due
        self._due_since: dict[int, float] = {}
        self.waiting_s = 0.0
        self.documents = 0

    def is_waiting(self, backlog: DocumentBacklog) -> bool:
        """Whether this one is worth telling `look` about."""
        return not backlog.quarantined and self._is_due(backlog)

    def look(self, backlogs: list[DocumentBacklog], now_s: float) -> None:
        """Take in every backlog that is waiting at the moment `now_s`, in monotonic seconds.

        A tail whose oldest row came since it was first seen due was merged in between: its wait began anew.
        """
        waiting: dict[int, float] = {}
        for backlog in backlogs:
            if self.is_waiting(backlog):
                since = self._due_since.get(backlog.document_id, now_s)
                waiting[backlog.document_id] = max(since, now_s - backlog.age_s)
        self._due_since = waiting
        self.documents = len(waiting)
        self.waiting_s = max((now_s - since for since in waiting.values()), default=0.0)


class Held:
    """For how long the same transaction has been the oldest, from one look to the next. Pure, like `Lag`."""

    def __init__(self) -> None:
        self._xid: str | None = None
        self._since_s = 0.0
        self.held_s = 0.0
        self.holder = ""

    def look(self, oldest: Oldest | None, now_s: float) -> None:
        """Take in who was the oldest at the moment `now_s`, in monotonic seconds; None when nothing is held back."""
        xid = oldest.xid if oldest is not None else None
        if xid != self._xid:
            self._xid, self._since_s = xid, now_s
        self.holder = oldest.holder if oldest is not None else ""
        self.held_s = now_s - self._since_s if oldest is not None else 0.0


class Monitor:
    """Looks once every `metrics_refresh_interval_s` until it is stopped; fills `metrics.backlog`."""

    def __init__(self, database: Database, settings: Settings, metrics: Metrics, is_due: IsDue) -> None:
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._lag = Lag(is_due)
        self._vacuum = Held()
        self._changes = Held()
        self._near_limit = 0
        self._looks = 0
        self._task: asyncio.Task[None] | None = None
        self.database_watch = DatabaseWatch(lambda: answer(database), settings.database_grace_s)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="monitor")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Refresh the gauges. Raises ServerFault when the database does not answer."""
        # Every document that was edited lately has a backlog; only what is due is kept beyond its page.
        due: list[DocumentBacklog] = []
        rows = size = 0
        age_s = 0.0
        after_id: int | None = 0
        while after_id is not None:
            page = await find_backlogs(self._database, after_id, DOCUMENTS_A_LOOK)
            for backlog in page.backlogs:
                rows += backlog.rows
                size += backlog.bytes
                age_s = max(age_s, backlog.age_s)
            due += filter(self._lag.is_waiting, page.backlogs)
            after_id = page.next_after_id
        if self._looks % LOOKS_A_COUNT == 0:
            self._near_limit = await count_larger_than(self._database, self._settings.document_warn_bytes)
        self._looks += 1
        self._metrics.backlog = BacklogTotals(
            rows=rows,
            bytes=size,
            age_s=age_s,
            quarantined=await count_quarantined(self._database),
            near_limit=self._near_limit,
        )
        self._lag.look(due, time.monotonic())
        self._vacuum.look(await find_oldest_transaction(self._database), time.monotonic())
        self._metrics.vacuum_held_s = self._vacuum.held_s
        self._changes.look(await find_oldest_writer(self._database), time.monotonic())
        self._metrics.changes_held_s = self._changes.held_s

    async def compactor_check(self) -> Check:
        """Ready while due work is done in time and nothing is quarantined."""
        backlog = self._metrics.backlog
        if backlog is None:
            return Check("compactor", Verdict.READY, "not looked at yet")
        lag = self._lag
        if lag.waiting_s > self._settings.compact_lag_s_max:
            return Check(
                "compactor",
                Verdict.DEGRADED,
                f"{lag.documents} documents are due, for up to {lag.waiting_s:.0f} s: is a compactor running?",
            )
        if backlog.quarantined:
            return Check("compactor", Verdict.DEGRADED, f"{backlog.quarantined} documents are quarantined")
        return Check("compactor", Verdict.READY, f"{lag.documents} documents are due")

    async def vacuum_check(self) -> Check:
        """Ready unless one transaction has kept vacuum from freeing anything for too long."""
        held = self._vacuum
        if held.held_s < self._settings.vacuum_held_s_max:
            return Check("vacuum", Verdict.READY, "frees what is deleted")
        words = f"{held.holder} has held it back for {held.held_s:.0f} s: tables only grow until that ends"
        return Check("vacuum", Verdict.DEGRADED, words)

    async def changes_check(self) -> Check:
        """Ready unless one transaction has kept the change feed from telling anything new for too long."""
        held = self._changes
        if held.held_s < self._settings.changes_held_s_max:
            return Check("changes", Verdict.READY, "are told as they come")
        words = f"{held.holder} has held them back for {held.held_s:.0f} s: followers hear of nothing until that ends"
        return Check("changes", Verdict.DEGRADED, words)

    async def fanout_check(self) -> Check:
        """Ready while there is room for hints between nodes; editors on other nodes wait for the poll otherwise."""
        usage = self._metrics.notification_queue_usage
        if usage < QUEUE_USAGE_MAX:
            return Check("fan-out", Verdict.READY, "hints are sent")
        words = f"the notification queue is {usage:.0%} full: some session listens in an open transaction"
        return Check("fan-out", Verdict.DEGRADED, words)

    async def _run(self) -> None:
        while True:
            # the watch has to see an outage even when nobody asks for /health/ready
            if (await self.database_watch.check()).verdict is Verdict.READY:
                try:
                    await self.look()
                except YdocError as error:
                    log.warning("monitor_failed", reason=str(error))
            await asyncio.sleep(self._settings.metrics_refresh_interval_s)
