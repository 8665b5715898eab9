"""A node with its HTTP side on one real port, in this process: what `serve` runs, without its compactor and signals.

Tests reach into the node for its signals, and ask over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import uvicorn

from tests.nodes import Node
from ydoc_store.auth.origins import Origins
from ydoc_store.http.app import Services, application
from ydoc_store.http.connection import KEEP_ALIVE_S, bounded_connection
from ydoc_store.http.health import Phase, Report, judge
from ydoc_store.http.here import Here
from ydoc_store.listening import authority, bind
from ydoc_store.relay import websocket_protocol
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database


class _Server(uvicorn.Server):
    """uvicorn's, that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


class Site(Node):
    """A node that answers HTTP and sockets on `port`. `phase.draining()` tells everyone who waits for news."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(database, settings)
        self.phase = Phase()
        self._web: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.service.start()
        origins = Origins.parse(self.settings.origins)
        service = self.service
        here = Here(
            service.authorizer, self.database, service.rooms, origins, self.settings, self.metrics, self.phase.stopping
        )
        self.app = application(
            Services(self._ready, self.metrics.render, self.settings.has_identities, lambda: here, origins)
        )
        sockets = bind("127.0.0.1", 0, has_identities=self.settings.has_identities)
        self.port = int(authority(sockets).rpartition(":")[2])
        config = uvicorn.Config(
            self.app,
            http=bounded_connection(
                self.settings.handshake_timeout_s, lambda: self.phase.gate, self.settings.slow_member_s
            ),
            ws=websocket_protocol(service),
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._web = _Server(config)
        self._serving = asyncio.create_task(self._web._serve(sockets))
        await self._web.listens.wait()
        self.phase.serving()

    async def _ready(self) -> Report:
        return await judge([self.phase.check])

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.http_url, headers=headers, timeout=30)

    async def stop(self, *, drain_s: float | None = None) -> None:
        if self._web is None or self._serving is None:
            return
        web, self._web = self._web, None
        self.phase.draining()
        if drain_s is not None:
            await self.service.drain(drain_s)
        await self.service.stop()
        web.should_exit = True
        await asyncio.gather(self._serving)
        await self.database.close()


@contextlib.asynccontextmanager
async def running_site(database_url: str, **overrides: object) -> AsyncIterator[Site]:
    """A started site; `overrides` are settings by name."""
    database = await Database.open(database_url, pool_size=6)
    site = Site(database, Settings.load(overrides))
    try:
        await site.start()
        yield site
    finally:
        await site.stop()
