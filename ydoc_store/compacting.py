"""What the rest of the package may know of the compactor: how it is built, and which tail is due.

Of all modules here, only this one and the command line import it.
"""

from __future__ import annotations

from compactor.compaction import judged
from compactor.policy import Due, due
from compactor.schedule import CompactionEvent, Compactor, Event, terms_of
from ydoc_store.metrics import Metrics
from ydoc_store.monitor import IsDue
from ydoc_store.node import CompactorParts
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database


def _build(database: Database, settings: Settings, metrics: Metrics) -> Compactor:
    def on_event(event: Event) -> None:
        if isinstance(event, CompactionEvent):
            metrics.compacted(event.way, event.result)

    return Compactor(database, settings, on_event)


def _due_by(settings: Settings) -> IsDue:
    policy = terms_of(settings).policy
    return lambda backlog: isinstance(due(judged(backlog), policy), Due)


COMPACTOR = CompactorParts(_build, _due_by)
