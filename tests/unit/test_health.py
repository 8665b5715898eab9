"""Readiness: what takes a process out of service, and what an operator should merely look at."""

from __future__ import annotations

import asyncio

import pytest

from ydoc_store.errors import StorageUnavailable
from ydoc_store.http import health
from ydoc_store.http.health import Check, DatabaseWatch, Phase, Report, Verdict, judge
from ydoc_store.monitor import Held, Lag
from ydoc_store.storage.backlog import DocumentBacklog
from ydoc_store.storage.horizon import Oldest

GRACE_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def said(verdict: Verdict) -> Check:
    return Check("said", verdict, "so")


async def test_the_worst_check_is_the_verdict() -> None:
    report = await judge([lambda: said(Verdict.READY), lambda: said(Verdict.DEGRADED), lambda: said(Verdict.READY)])
    assert report.verdict is Verdict.DEGRADED
    assert len(report.checks) == 3
    assert await judge([]) == Report(Verdict.READY, ())


async def test_a_process_that_starts_or_drains_is_unready() -> None:
    phase = Phase()
    assert (await phase.check()).verdict is Verdict.UNREADY
    phase.serving()
    assert (await phase.check()).verdict is Verdict.READY
    phase.draining()
    assert (await phase.check()).verdict is Verdict.UNREADY
    phase.serving()
    assert not phase.is_serving, "a drain is never taken back"


async def test_a_database_is_missed_only_after_its_grace() -> None:
    clock, gone = Clock(), True

    async def ping() -> None:
        if gone:
            raise StorageUnavailable("connection refused")

    watch = DatabaseWatch(ping, GRACE_S, clock)
    first = await watch.check()
    assert first.verdict is Verdict.DEGRADED
    assert "connection refused" in first.detail
    clock.now_s += GRACE_S - 1
    assert (await watch.check()).verdict is Verdict.DEGRADED
    clock.now_s += 1
    assert (await watch.check()).verdict is Verdict.UNREADY
    gone = False
    assert (await watch.check()).verdict is Verdict.READY
    gone = True
    assert (await watch.check()).verdict is Verdict.DEGRADED, "an answer ends an outage"


async def test_a_database_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_TIMEOUT_S", 0.01)
    watch = DatabaseWatch(asyncio.Event().wait, GRACE_S)
    assert (await watch.check()).verdict is Verdict.DEGRADED


async def test_a_check_that_fails_itself_degrades_and_says_why() -> None:
    async def broken() -> Check:
        raise StorageUnavailable("no connection is free")

    report = await judge([broken])
    assert report == Report(Verdict.DEGRADED, (Check("broken", Verdict.DEGRADED, "no connection is free"),))


# How long due work waits


def backlog(document_id: int, *, rows: int = 600, age_s: float = 1_000, quarantined: bool = False) -> DocumentBacklog:
    return DocumentBacklog(document_id, "plan", rows, 1_000, age_s, 0, quarantined)


def due(found: DocumentBacklog) -> bool:
    return found.rows >= 500


def test_lag_is_counted_from_the_look_that_first_saw_the_work_due() -> None:
    lag = Lag(due)
    lag.look([backlog(1), backlog(2, rows=3)], 100.0)
    assert (lag.documents, lag.waiting_s) == (1, 0.0), "an old tail may have become due just now"
    lag.look([backlog(1), backlog(2)], 160.0)
    assert (lag.documents, lag.waiting_s) == (2, 60.0)
    lag.look([backlog(2)], 170.0)
    assert (lag.documents, lag.waiting_s) == (1, 10.0)
    lag.look([], 180.0)
    assert (lag.documents, lag.waiting_s) == (0, 0.0)


def test_a_hot_document_that_is_merged_between_two_looks_does_not_lag() -> None:
    lag = Lag(due)
    for now_s in range(0, 3_600, 15):
        lag.look([backlog(1, age_s=9.0)], float(now_s))
    assert lag.waiting_s == 9.0


def test_a_quarantined_document_waits_for_nobody() -> None:
    lag = Lag(due)
    lag.look([backlog(1, quarantined=True)], 0.0)
    assert lag.documents == 0


# Who holds back vacuum


def test_vacuum_is_held_for_as_long_as_the_same_transaction_is_the_oldest() -> None:
    held = Held()
    held.look(Oldest("700", "process 1"), 100.0)
    assert held.held_s == 0.0, "it may have begun just now"
    held.look(Oldest("700", "process 1"), 160.0)
    assert (held.held_s, held.holder) == (60.0, "process 1")
    held.look(Oldest("750", "process 2"), 170.0)
    assert (held.held_s, held.holder) == (0.0, "process 2")
    held.look(Oldest("750", "process 2"), 180.0)
    held.look(None, 190.0)
    assert held.held_s == 0.0


def test_short_transactions_one_after_another_hold_nothing() -> None:
    held = Held()
    for look in range(100):
        held.look(Oldest(str(700 + look), "process 1"), look * 15.0)
        assert held.held_s == 0.0
