"""The service as one ASGI application of somebody else's process: when it starts, what it is asked, when it stops.

There is no port, no signal and no Postgres of our own here: those are the host's. Hosts that run no lifespan, or keep
it from what is mounted in them, have the first request start it. Composition only, as `serve` is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Self

from ydoc_store import postgres
from ydoc_store.compacting import COMPACTOR
from ydoc_store.errors import Draining, SettingInvalid, YdocError
from ydoc_store.http.broken_off import ending_whole
from ydoc_store.http.place import inside, place_of
from ydoc_store.logs import logger, through_standard_library
from ydoc_store.node import Node
from ydoc_store.relay.asgi_connection import Event, Receive, Send, refuse
from ydoc_store.settings import Settings

log = logger(__name__)

_LIVE: Final = b"/health/live"
_STOPPED: Final = "this server is stopping: come back, another one serves you"


class Mounted:
    """An ASGI application. One event loop at a time runs it; it can be started again after it was stopped."""

    def __init__(self, settings: Settings | None = None, *, with_compactor: bool = False):
        """Raises SettingInvalid. Nothing is opened here."""
        self.settings = Settings.load() if settings is None else settings
        if self.settings.database_url is None:
            raise SettingInvalid(
                "a mounted application needs YDOC_DATABASE_URL: only `ydoc-store serve` brings a Postgres of its own"
            )
        self._with_compactor = with_compactor
        self._node = self._new_node()
        self._loop: asyncio.AbstractEventLoop | None = None
        # The one start that everybody waits for, and the one end; whoever stopped it wants no request to start it.
        self._starting: asyncio.Task[contextlib.AsyncExitStack] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._is_stopped = False
        through_standard_library()

    def _new_node(self) -> Node:
        return Node(self.settings, COMPACTOR, compacts=self._with_compactor)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._carry(scope, receive, send)
        else:
            place = place_of(scope)
            # Whether the process lives does not depend on a database.
            if place.raw_path != _LIVE:
                with contextlib.suppress(YdocError):
                    await self._until_started()
            await ending_whole(self._node.application, inside(scope, place), receive, send)

    # From start to end

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """It serves for as long as the block runs. For a host's own lifespan, which a mount is not told of.

        Raises what `start` raises; drains at its end, as `stop` does.
        """
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open the database and serve; nothing if it does. Cancelling leaves the start to whoever else waits for it.

        Raises StorageUnavailable, SchemaMismatch, SettingInvalid.
        """
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
        self._is_stopped = False
        await self._until_started()

    async def stop(self) -> None:
        """Take nothing more, commit and deliver what was taken, close every socket, and leave nothing behind.

        At most `YDOC_DRAIN_TIMEOUT_S` and a moment. Cancelling does not break it off. A host that has more sockets to
        close than ours may call it before it stops its server: editors then hear 1001, and not what the server says.
        """
        self._is_stopped = True
        if self._starting is not None and self._is_elsewhere():
            # What ran there has ended with its loop.
            self._starting = self._stopping = None
        if self._stopping is None and self._starting is not None:
            self._stopping = asyncio.create_task(self._stop(self._starting))
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _until_started(self) -> None:
        if self._starting is None or self._is_elsewhere():
            if self._is_stopped:
                raise Draining(_STOPPED)
            self._begin_start()
        starting = self._starting
        assert starting is not None  # noqa: S101 # it was there, or was made
        if starting.done():
            return
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Draining(_STOPPED) from None
            raise

    def _is_elsewhere(self) -> bool:
        """Whether it was started on an event loop that has ended since. Raises RuntimeError where that one lives."""
        if self._loop is asyncio.get_running_loop():
            return False
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this application runs on another event loop of this process")
        return True

    def _begin_start(self) -> None:
        if self._node.relay is not None or self._node.phase.gate == "shut":
            # Its loop has ended without a word, or it was stopped: this is another life.
            self._node = self._new_node()
        self._loop = asyncio.get_running_loop()
        self._starting = self._loop.create_task(self._start(), name="ydoc-store start")
        # Everybody who waited for it may have gone meanwhile.
        self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _start(self) -> contextlib.AsyncExitStack:
        url, settings = self.settings.database_url, self.settings
        assert url is not None  # noqa: S101 # judged when this was made
        try:
            async with contextlib.AsyncExitStack() as parts:
                database = await postgres.connect(url.get_secret_value(), settings)
                parts.push_async_callback(database.close)
                await postgres.prepare(database, may_migrate=False)
                await parts.enter_async_context(self._node.running(database))
                log.info("serving inside another application", is_open=not settings.has_identities)
                return parts.pop_all()
        except BaseException as error:
            # The next request tries again.
            self._starting = self._loop = None
            self._node = self._new_node()
            if isinstance(error, YdocError):
                self._node.failure = error
                log.warning("could not start", reason=str(error))
            raise

    async def _stop(self, starting: asyncio.Task[contextlib.AsyncExitStack]) -> None:
        try:
            starting.cancel()
            await asyncio.wait([starting])
            if starting.cancelled() or starting.exception() is not None:
                return
            async with starting.result():
                self._node.phase.draining()
                if self._node.relay is not None:
                    await self._node.relay.drain(self.settings.drain_timeout_s)
            log.info("stopped")
        finally:
            self._starting = self._stopping = self._loop = None

    # What a server asks

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                try:
                    await self.start()
                except YdocError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _carry(self, scope: Event, receive: Receive, send: Send) -> None:
        try:
            await self._until_started()
            relay = self._node.relay
            if relay is None:
                raise Draining(_STOPPED)
        except YdocError as error:
            await refuse(error, receive, send)
            return
        place = place_of(scope)
        await relay.relay.carried(scope, place.root, place.target(scope), send).run(receive)
