"""A Postgres whose network misbehaves on command: a Unix socket that forwards to a real one, until told not to.

It can cut every connection, stall in both directions without a reset (a black hole, for new connections too), and
swallow the server's answers, at once or from the moment a client says certain bytes. What has been forwarded has
been done: only the answer is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET_NAME = ".s.PGSQL.5432"


class Proxy:
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead of to `url`."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self._target = Path(parse_qs(parts.query)["host"][0]) / SOCKET_NAME
        self._folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir="/tmp"))
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}?host={self._folder}"
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallows = False
        self._swallows_from: bytes | None = None
        self.swallowing = asyncio.Event()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_unix_server(self._serve, self._folder / SOCKET_NAME)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder)

    def cut(self) -> None:
        """End every connection, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stall(self) -> None:
        """Pass nothing on, in either direction; new connections are taken and hear nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def swallow_answers(self, after: bytes | None = None) -> None:
        """Pass requests on and no answers: from now on, or from the request that holds `after`."""
        self._swallows, self._swallows_from = after is None, after
        if after is None:
            self.swallowing.set()

    def heal(self) -> None:
        """New connections work; those whose answers were swallowed are cut."""
        self._swallows, self._swallows_from = False, None
        self.swallowing.clear()
        self.cut()
        self.resume()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._flowing.wait()
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
            self._writers.add(server_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, server_writer, is_request=True))
                both.create_task(self._pass_on(server_reader, writer, is_request=False))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if is_request and self._swallows_from is not None and self._swallows_from in data:
                    self._swallows = True
                    self.swallowing.set()
                if is_request or not self._swallows:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)
