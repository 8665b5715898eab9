"""Somebody else's server in this process: uvicorn or hypercorn on a real port, with an application of theirs or ours.

What is mounted is reached into for its signals; clients ask over real sockets. A host listens before it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets

from ydoc_store.http import create_app
from ydoc_store.mount import Mounted
from ydoc_store.settings import Settings

SERVERS = ("uvicorn", "hypercorn")
END_TIMEOUT_S = 30.0
# Larger than any message of ours may be, as README wants it.
MESSAGE_BYTES_MAX = 32 * 1024 * 1024


@dataclass
class Host:
    """A server that runs. `stop` is what a supervisor's signal would do; it is done once."""

    port: int
    serving: asyncio.Task[None]
    ask_to_stop: Callable[[], None]
    log: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def socket_url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    async def stop(self) -> None:
        self.ask_to_stop()
        async with asyncio.timeout(END_TIMEOUT_S):
            await asyncio.wait([self.serving])


def mounted(database_url: str, *, with_compactor: bool = False, **overrides: object) -> Mounted:
    """The application under test; `overrides` are settings by name."""
    settings = Settings.load({"database_url": database_url, **overrides})
    return create_app(settings, with_compactor=with_compactor)


def fastapi_host(app: Mounted, path: str = "/collab") -> FastAPI:
    """A FastAPI project that mounts it and runs its life inside its own, as README says."""

    @contextlib.asynccontextmanager
    async def lifespan(_host: FastAPI) -> AsyncIterator[None]:
        async with app.running():
            yield

    host = FastAPI(lifespan=lifespan)
    host.mount(path, app)

    @host.get("/own")
    async def own() -> str:
        return "the host's"

    return host


@contextlib.asynccontextmanager
async def hosting(server: str, app: Any, *, lifespan: bool = True, root_path: str = "") -> AsyncIterator[Host]:
    """A started server; stopped with the block, and whatever it failed with raised."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0)
    start = _uvicorn if server == "uvicorn" else _hypercorn
    host = start(app, listening, lifespan, root_path)
    try:
        yield host
    finally:
        await host.stop()
        listening.close()
    host.serving.result()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _uvicorn(app: Any, listening: socket.socket, lifespan: bool, root_path: str) -> Host:
    config = uvicorn.Config(
        app,
        lifespan="on" if lifespan else "off",
        root_path=root_path,
        log_config=None,
        access_log=False,
        ws_max_size=MESSAGE_BYTES_MAX,
        timeout_graceful_shutdown=5,
    )
    running = _Uvicorn(config)

    def stop() -> None:
        running.should_exit = True

    serving = asyncio.create_task(running.serve([listening]))
    return Host(listening.getsockname()[1], serving, stop)


def _hypercorn(app: Any, listening: socket.socket, lifespan: bool, root_path: str) -> Host:
    config = HypercornConfig()
    config.root_path = root_path
    config.websocket_max_message_size = MESSAGE_BYTES_MAX
    config.graceful_timeout = 0.5
    config.errorlog = None
    asked = asyncio.Event()

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        # As Django answers it; hypercorn goes on without.
        if scope["type"] == "lifespan":
            raise ValueError("only http and websocket")
        await app(scope, receive, send)

    asked_for = app if lifespan else without_lifespan
    sockets = Sockets([], [listening], [])
    serving = asyncio.create_task(
        worker_serve(ASGIWrapper(asked_for), config, sockets=sockets, shutdown_trigger=asked.wait)
    )
    return Host(listening.getsockname()[1], serving, asked.set)
