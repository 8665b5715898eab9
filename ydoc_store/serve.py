"""The service put together: port, Postgres, relay, compactor; and taken apart again in the opposite order.

The port is taken first, so that a taken one costs nothing. It is listened on when the service can serve, so that
the first connection finds it ready; a start that takes longer than a moment answers `unready` meanwhile.
SIGTERM and Ctrl-C drain: sockets are closed when what they sent is committed and what they were sent is out; the
second one, unless it comes with the first, does not wait. Composition only: each part's own rules live with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn
from uvicorn.config import Config

from ydoc_store import __version__, postgres
from ydoc_store.auth.origins import Origins
from ydoc_store.http.app import Services, create_app
from ydoc_store.http.connection import bounded_connection
from ydoc_store.http.health import Check, Phase, Probe, Report, Verdict, judge
from ydoc_store.http.here import Here
from ydoc_store.listening import AcceptWatch, authority, bind, raise_file_limit
from ydoc_store.logs import logger
from ydoc_store.metrics import Metrics
from ydoc_store.monitor import IsDue, Monitor
from ydoc_store.relay import websocket_protocol
from ydoc_store.relay.service import RelayService
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database

log = logger(__name__)

# A database that answers is ready sooner than this; one that is made first, or that recovers, is not.
LISTEN_ANYWAY_S = 0.5
# A shell or a wrapper that is told to stop passes it on, and we have heard it from the terminal or the group already.
SAME_REQUEST_S = 1.0
# What the kernel holds for us in a reconnect storm, and how often asyncio tries to accept before others have a turn:
# it takes one number for both, and goes on trying so many times when no file is left.
BACKLOG = 4096
ACCEPTED_A_TURN = 128


class RunningCompactor(Protocol):
    """The compactor inside `serve`."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CompactorParts:
    """What the composition root hands in, because nothing else here may import the compactor."""

    build: Callable[[Database, Settings, Metrics], RunningCompactor]
    is_due: Callable[[Settings], IsDue]


@dataclass(frozen=True, slots=True)
class Started:
    """What a person is told once the service is up."""

    authority: str
    data: str
    how_to_delete: str
    is_open: bool
    read_only: bool = False


async def serve(settings: Settings, compactor: CompactorParts, announce: Callable[[Started], None]) -> bool:
    """Run until a signal says stop and everything is drained; False when asked again and so not drained.

    Raises SettingInvalid (port, address), EmbeddedPostgresFailed, StorageUnavailable, SchemaMismatch, all of them
    before anyone could connect.
    """
    sockets = bind(settings.host, settings.port, has_identities=settings.has_identities)
    settings = _within_files(settings)
    asyncio.get_running_loop().set_exception_handler(AcceptWatch())
    with _stopping_on_signals() as stop:
        try:
            await _run(settings, compactor, sockets, stop, announce)
        except asyncio.CancelledError:
            # asked to stop while it started, or asked again while it drained
            if not stop.is_asked:
                raise
        finally:
            for taken in sockets:
                taken.close()
    return not stop.is_asked_again


def _within_files(settings: Settings) -> Settings:
    connections_max = raise_file_limit(settings.connections_max)
    if connections_max == settings.connections_max:
        return settings
    log.warning("the file limit allows fewer connections", connections_max=connections_max)
    return settings.model_copy(update={"connections_max": connections_max})


async def _run(
    settings: Settings,
    compactor: CompactorParts,
    sockets: list[socket.socket],
    stop: _Stop,
    announce: Callable[[Started], None],
) -> None:
    metrics, phase = Metrics(), Phase()
    probes: list[Probe] = [phase.check]
    relays: list[RelayService] = []
    async with contextlib.AsyncExitStack() as running:
        running.callback(phase.draining)
        listen = await running.enter_async_context(_web(settings, sockets, metrics, phase, probes, relays))
        found = await running.enter_async_context(postgres.postgres(settings, share=False, creating=True))
        database = await postgres.connect(found.url, settings)
        running.push_async_callback(database.close)
        await postgres.prepare(database, may_migrate=found.is_ours and not settings.read_only)
        relay = RelayService(database, settings, metrics)
        running.push_async_callback(relay.stop)
        await relay.start()
        relays.append(relay)
        monitor = Monitor(database, settings, metrics, compactor.is_due(settings))
        running.push_async_callback(monitor.stop)
        monitor.start()
        probes += [
            monitor.database_watch.check,
            monitor.compactor_check,
            monitor.vacuum_check,
            monitor.fanout_check,
        ]
        if settings.read_only:
            probes.append(_says_read_only)
        elif not settings.no_compactor:
            sweeping = compactor.build(database, settings, metrics)
            running.push_async_callback(sweeping.stop)
            await sweeping.start()
        phase.serving()
        await listen()
        place = authority(sockets)
        is_open = not settings.has_identities
        log.info(
            "serving",
            version=__version__,
            pid=os.getpid(),
            address=place,
            host=settings.host,
            is_open=is_open,
            read_only=settings.read_only,
            data=found.where,
        )
        announce(Started(place, found.where, found.how_to_delete, is_open, settings.read_only))
        await stop.wait()
        phase.draining()
        log.info("draining", timeout_s=settings.drain_timeout_s)
        await relay.drain(settings.drain_timeout_s)
    log.info("stopped")


async def _says_read_only() -> Check:
    # Degraded, and so 200: it serves whom it can, and nobody forgets that it was set.
    return Check("writes", Verdict.DEGRADED, "YDOC_READ_ONLY is set: nothing is stored")


def _here(relay: RelayService, origins: Origins, phase: Phase) -> Here:
    return Here(relay.authorizer, relay.database, relay.rooms, origins, relay.settings, relay.metrics, phase.stopping)


@contextlib.asynccontextmanager
async def _web(
    settings: Settings,
    sockets: list[socket.socket],
    metrics: Metrics,
    phase: Phase,
    probes: list[Probe],
    relays: list[RelayService],
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    async def ready() -> Report:
        return await judge(probes)

    def upgrade(config: Config, server_state: Any, app_state: dict[str, Any]) -> asyncio.Protocol:
        # `phase` lets nobody upgrade before the relay is there
        build: Callable[..., asyncio.Protocol] = websocket_protocol(relays[0])
        return build(config=config, server_state=server_state, app_state=app_state)

    def here() -> Here | None:
        return _here(relays[0], origins, phase) if relays else None

    origins = Origins.parse(settings.origins)
    app = create_app(Services(ready, metrics.render, settings.has_identities, here, origins))
    server = _Server(
        uvicorn.Config(
            app,
            http=bounded_connection(settings.handshake_timeout_s, lambda: phase.gate),
            ws=upgrade,  # type: ignore[arg-type] # called with the same keywords as the class that it stands for
            lifespan="off",
            log_config=None,
            access_log=False,
            # headers of a proxy must never change who the caller seems to be
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            backlog=ACCEPTED_A_TURN,
        )
    )
    can_serve = asyncio.Event()

    async def run() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(can_serve.wait(), LISTEN_ANYWAY_S)
        await server.serve(sockets=sockets)

    task = asyncio.create_task(run(), name="http")

    async def listen() -> None:
        can_serve.set()
        listening = asyncio.create_task(server.is_started.wait())
        await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            listening.cancel()
            task.result()

    try:
        yield listen
    finally:
        server.should_exit = True
        if not server.is_started.is_set():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn's, that leaves signals to us and says when it listens."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.is_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)
        self.is_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stop:
    """Asked for by a signal. Until the service is up, and when asked again, whatever runs is cancelled instead.

    Once only: a third signal would break off what the second one left, stopping our own Postgres.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._asked = asyncio.Event()
        self._first_s = 0.0
        self._is_awaited = False
        self.is_asked_again = False

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        if not self._asked.is_set():
            self._first_s = time.monotonic()
            self._asked.set()
            if not self._is_awaited:
                self._task.cancel()
        elif not self.is_asked_again and time.monotonic() - self._first_s >= SAME_REQUEST_S:
            self.is_asked_again = True
            log.warning("asked again: stopping without the drain")
            self._task.cancel()

    async def wait(self) -> None:
        self._is_awaited = True
        await self._asked.wait()


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[_Stop]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 # a coroutine always runs in a task
    stop, loop = _Stop(task), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
