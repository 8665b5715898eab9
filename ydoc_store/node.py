"""One node over a database that is there: relay, monitor, compactor, and the application that answers beside them.

What `serve` and an application that is mounted elsewhere have in common. Who opens the database, who listens, and
who says when to stop is theirs. Composition only: each part's own rules live with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ydoc_store.auth.origins import Origins
from ydoc_store.errors import Draining, YdocError
from ydoc_store.http.app import Services, application
from ydoc_store.http.health import Check, Phase, Probe, Report, Verdict, judge
from ydoc_store.http.here import Here
from ydoc_store.metrics import Metrics
from ydoc_store.monitor import IsDue, Monitor
from ydoc_store.relay.service import RelayService

if TYPE_CHECKING:
    from ydoc_store.settings import Settings
    from ydoc_store.storage.pool import Database


class RunningCompactor(Protocol):
    """The compactor inside this process."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CompactorParts:
    """What is handed in of the compactor, because hardly anything here may import it."""

    build: Callable[[Database, Settings, Metrics], RunningCompactor]
    is_due: Callable[[Settings], IsDue]


class Node:
    """One life of a node. `application` answers from the start; what needs the database says so until it runs."""

    def __init__(self, settings: Settings, compactor: CompactorParts, *, compacts: bool):
        """Raises SettingInvalid for origins that are none."""
        self.settings = settings
        self.metrics = Metrics()
        self.phase = Phase()
        # Why it did not start, for whoever asks meanwhile.
        self.failure: YdocError | None = None
        self.relay: RelayService | None = None
        self._compactor = compactor
        self._compacts = compacts and not settings.no_compactor and not settings.read_only
        self._probes: list[Probe] = [self.phase.check]
        self._origins = Origins.parse(settings.origins)
        self.application = application(
            Services(self._ready, self.metrics.render, settings.has_identities, self._here, self._origins)
        )

    @contextlib.asynccontextmanager
    async def running(self, database: Database) -> AsyncIterator[RelayService]:
        """It serves until the block ends; what is not drained by then is refused, never half done.

        Raises StorageUnavailable when the database does not take an append connection.
        """
        settings = self.settings
        async with contextlib.AsyncExitStack() as parts:
            relay = RelayService(database, settings, self.metrics)
            parts.push_async_callback(relay.stop)
            await relay.start()
            monitor = Monitor(database, settings, self.metrics, self._compactor.is_due(settings))
            parts.push_async_callback(monitor.stop)
            monitor.start()
            self._probes += [
                monitor.database_watch.check,
                monitor.compactor_check,
                monitor.vacuum_check,
                monitor.changes_check,
                monitor.fanout_check,
            ]
            if settings.read_only:
                self._probes.append(_says_read_only)
            if self._compacts:
                sweeping = self._compactor.build(database, settings, self.metrics)
                parts.push_async_callback(sweeping.stop)
                await sweeping.start()
            self.relay = relay
            parts.callback(self._leave)
            self.phase.serving()
            yield relay

    def _leave(self) -> None:
        self.phase.draining()
        self.relay = None

    async def _ready(self) -> Report:
        return await judge(self._probes)

    def _here(self) -> Here | None:
        relay = self.relay
        if relay is None:
            if self.failure is not None:
                raise self.failure
            if self.phase.gate == "shut":
                raise Draining("this server is stopping: come back, another one serves you")
            return None
        return Here(
            relay.authorizer,
            relay.database,
            relay.rooms,
            self._origins,
            self.settings,
            self.metrics,
            self.phase.stopping,
        )


async def _says_read_only() -> Check:
    # Degraded, and so 200: it serves whom it can, and nobody forgets that it was set.
    return Check("writes", Verdict.DEGRADED, "YDOC_READ_ONLY is set: nothing is stored")
