"""What the service counts, and how Prometheus reads it.

Hot paths add to plain attributes of these objects; one collector turns them into samples when somebody scrapes,
because a library counter takes a lock for every increment, and 24,000 updates a second would pay it several times
each. One thread, the event loop's, writes. No label holds a document, a user or a tenant: labels are closed sets.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

# A peer may close with any code; those that the protocols and we ourselves use are told apart.
_CLOSE_CODES = frozenset(
    [*range(1000, 1004), *range(1005, 1016), 4400, 4401, 4403, 4404, 4409, 4413],
)


# From the start, because an alert on a series that is not there yet is silent.
_SERVED_DIALECTS = ("y-websocket", "hocuspocus")
_LIMITS = (
    "connection_messages",
    "connection_bytes",
    "address_messages",
    "address_bytes",
    "address_connections",
    "address_failures",
)
_AUDITED = ("blank run", "delete ahead")


class Distribution:
    """A histogram for one thread. `observe` costs a bisection and three additions."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
        family = HistogramMetricFamily(name, documentation)
        family.add_metric([], buckets, self._sum)
        return family


class DialectCounts:
    """One dialect's share, held by its sessions, which add to the attributes directly.

    `accepted` are updates whose COMMIT is known; `nothing_new` were acked and not stored; `refused` is the
    sender's fault; `failed` is ours, an unknown COMMIT included; `read_only` came while nothing is stored here.
    """

    __slots__ = ("accepted", "connections", "failed", "nothing_new", "read_only", "refused")

    def __init__(self) -> None:
        self.connections = 0
        self.accepted = 0
        self.nothing_new = 0
        self.refused = 0
        self.failed = 0
        self.read_only = 0


class BacklogTotals(NamedTuple):
    """What waits for the compactor in the whole database, as last asked for."""

    rows: int
    bytes: int
    age_s: float
    quarantined: int
    near_limit: int


class Metrics(Collector):
    """Every number that `/metrics` tells. A process has one, with a registry of its own that tests never share."""

    def __init__(self) -> None:
        self.rooms = 0
        self.read_only = False
        self.reconnect_loops = 0
        self.commit_seconds = Distribution(_SECONDS)
        self.deliver_seconds = Distribution(_SECONDS)
        self.append_batch_updates = Distribution(_BATCH)
        # What this process holds, by what for; asked when somebody scrapes.
        self.held_bytes: dict[str, Callable[[], float]] = {}
        self.known_ranges: Callable[[], float] = lambda: 0
        # None until the first look at the database: a zero would be a lie
        self.backlog: BacklogTotals | None = None
        self.vacuum_held_s: float | None = None
        self.changes_held_s: float | None = None
        # How full the server's queue is, as the listener was last told; 1 is full.
        self.notification_queue_usage = 0.0
        self._dialects = {name: DialectCounts() for name in _SERVED_DIALECTS}
        self._closes: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._audited: Counter[str] = Counter(dict.fromkeys(_AUDITED, 0))
        self._limited: Counter[str] = Counter(dict.fromkeys(_LIMITS, 0))
        self._hints: Counter[str] = Counter()
        self._compactions: Counter[tuple[str, str]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def dialect(self, name: str) -> DialectCounts:
        """The counts of one dialect, always the same object. `name` is one of ours, never a peer's."""
        counts = self._dialects.get(name)
        if counts is None:
            counts = self._dialects[name] = DialectCounts()
        return counts

    def closed(self, code: int) -> None:
        """A socket was closed, by either side; codes that nobody of us uses count as `other`."""
        self._closes[str(code) if code in _CLOSE_CODES else "other"] += 1

    def ignored(self, reason: str) -> None:
        """A frame was ignored by rule. `reason` is one of ours, never a peer's words."""
        self._ignored[reason] += 1

    def audited(self, reason: str) -> None:
        """An update was accepted that may harm somebody's work, and says so in the log. `reason` is one of ours."""
        self._audited[reason] += 1

    def limited(self, limit: str) -> None:
        """A limit made somebody wait, or sent them away for a while. `limit` is one of ours."""
        self._limited[limit] += 1

    def hint(self, result: str) -> None:
        """A hint between nodes was sent, left out, used, late, …: `result` is one of a fixed few words."""
        self._hints[result] += 1

    def compacted(self, way: str | None, result: str) -> None:
        """A compaction ended. `way` is None when it made no snapshot."""
        self._compactions[way or "none", result] += 1

    def render(self) -> bytes:
        """All samples in Prometheus's text form."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The samples of now; called by the registry."""
        yield from self._of_dialects()
        yield GaugeMetricFamily("ydoc_rooms", "Documents open in this process", value=self.rooms)
        yield GaugeMetricFamily(
            "ydoc_read_only", "1 while YDOC_READ_ONLY keeps this process from storing", value=self.read_only
        )
        yield GaugeMetricFamily(
            "ydoc_reconnect_loops", "Documents to which somebody returns to be sent away", value=self.reconnect_loops
        )
        held = GaugeMetricFamily("ydoc_held_bytes", "Bytes held in this process, by what for", labels=["what"])
        for what, measure in sorted(self.held_bytes.items()):
            held.add_metric([what], measure())
        yield held
        yield GaugeMetricFamily("ydoc_known_ranges", "Runs of clocks that rooms remember", value=self.known_ranges())
        yield GaugeMetricFamily("ydoc_tasks", "Tasks of this process's event loop", value=_count_tasks())
        yield self.commit_seconds.family("ydoc_commit_seconds", "From an append batch's start to its COMMIT")
        yield self.deliver_seconds.family(
            "ydoc_deliver_seconds", "From an update's arrival to its delivery to the room"
        )
        yield self.append_batch_updates.family("ydoc_append_batch_updates", "Updates in one group commit")
        yield from self._of_backlog()
        yield _counter("ydoc_closes", "Sockets closed, by code", "code", self._closes)
        yield _counter("ydoc_frames_ignored", "Frames ignored by rule", "reason", self._ignored)
        yield _counter("ydoc_updates_audited", "Updates accepted that may harm others", "reason", self._audited)
        yield _counter("ydoc_limited", "Times that a limit bit", "limit", self._limited)
        yield _counter("ydoc_hints", "Hints between nodes", "result", self._hints)
        compactions = CounterMetricFamily("ydoc_compactions", "Compactions ended", labels=["way", "result"])
        for (way, result), count in sorted(self._compactions.items()):
            compactions.add_metric([way, result], count)
        yield compactions

    def _of_dialects(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily("ydoc_connections", "Open sockets", labels=["dialect"])
        updates = CounterMetricFamily("ydoc_updates", "Updates received", labels=["dialect", "result"])
        for name, counts in sorted(self._dialects.items()):
            connections.add_metric([name], counts.connections)
            updates.add_metric([name, "accepted"], counts.accepted)
            updates.add_metric([name, "nothing_new"], counts.nothing_new)
            updates.add_metric([name, "refused"], counts.refused)
            updates.add_metric([name, "failed"], counts.failed)
            updates.add_metric([name, "read_only"], counts.read_only)
        yield connections
        yield updates

    def _of_backlog(self) -> Iterator[Metric]:
        backlog = self.backlog
        for name, documentation, value in (
            ("ydoc_backlog_rows", "Accepted rows not yet in a snapshot", backlog and backlog.rows),
            ("ydoc_backlog_bytes", "Bytes of those rows", backlog and backlog.bytes),
            ("ydoc_backlog_age_seconds", "Age of the oldest of those rows", backlog and backlog.age_s),
            ("ydoc_quarantined_documents", "Documents left alone after failures", backlog and backlog.quarantined),
            ("ydoc_documents_near_limit", "Documents near their size limit", backlog and backlog.near_limit),
            ("ydoc_vacuum_held_seconds", "For how long one transaction has held back vacuum", self.vacuum_held_s),
            ("ydoc_changes_held_seconds", "For how long one transaction has held back the feed", self.changes_held_s),
            ("ydoc_notification_queue_usage", "Share of Postgres's queue in use", self.notification_queue_usage),
        ):
            family = GaugeMetricFamily(name, documentation)
            if value is not None:
                family.add_metric([], value)
            yield family


def _count_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        # Rendered outside an event loop.
        return 0


def _counter(name: str, documentation: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
