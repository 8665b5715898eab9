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
from typing import Any

import uvicorn
from uvicorn.config import Config

from ydoc_store import __version__, postgres
from ydoc_store.http.connection import KEEP_ALIVE_S, bounded_connection
from ydoc_store.listening import AcceptWatch, authority, bind, raise_file_limit
from ydoc_store.logs import logger
from ydoc_store.node import CompactorParts, Node
from ydoc_store.relay import websocket_protocol
from ydoc_store.settings import Settings

log = logger(__name__)

# A database that answers is ready sooner than this; one that is made first, or that recovers, is not.
LISTEN_ANYWAY_S = 0.5
# A shell or a wrapper that is told to stop passes it on, and we have heard it from the terminal or the group already.
SAME_REQUEST_S = 1.0
# What the kernel holds for us in a reconnect storm, and how often asyncio tries to accept before others have a turn:
# it takes one number for both, and goes on trying so many times when no file is left.
BACKLOG = 4096
ACCEPTED_A_TURN = 128


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
    node = Node(settings, compactor, compacts=True)
    async with contextlib.AsyncExitStack() as running:
        running.callback(node.phase.draining)
        listen = await running.enter_async_context(_web(node, sockets))
        found = await running.enter_async_context(postgres.postgres(settings, share=False, creating=True))
        database = await postgres.connect(found.url, settings)
        running.push_async_callback(database.close)
        await postgres.prepare(database, may_migrate=found.is_ours and not settings.read_only)
        relay = await running.enter_async_context(node.running(database))
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
        node.phase.draining()
        log.info("draining", timeout_s=settings.drain_timeout_s)
        await relay.drain(settings.drain_timeout_s)
    log.info("stopped")


@contextlib.asynccontextmanager
async def _web(node: Node, sockets: list[socket.socket]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    def upgrade(config: Config, server_state: Any, app_state: dict[str, Any]) -> asyncio.Protocol:
        # The phase lets nobody upgrade before the relay is there, or when it is gone.
        assert node.relay is not None  # noqa: S101
        build: Callable[..., asyncio.Protocol] = websocket_protocol(node.relay)
        return build(config=config, server_state=server_state, app_state=app_state)

    server = _Server(
        uvicorn.Config(
            node.application,
            http=bounded_connection(
                node.settings.handshake_timeout_s, lambda: node.phase.gate, node.settings.slow_member_s
            ),
            ws=upgrade,  # type: ignore[arg-type] # called with the same keywords as the class that it stands for
            lifespan="off",
            log_config=None,
            access_log=False,
            # headers of a proxy must never change who the caller seems to be
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_S,
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
