"""A network that misbehaves on command, between a service and its Postgres or between clients and a service.

It can cut every connection, stall in both directions without a reset (a black hole, for new connections too), delay
what passes, and swallow the server's answers, at once or from the moment a client says certain bytes. What has been
forwarded has been done: only the answer is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET_NAME = ".s.PGSQL.5432"
# So much of a delayed connection is under way at once; beyond it the sender waits, as on a real line.
CHUNKS_MAX = 1_024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """What every such network does; a subclass says where it listens and where it leads."""

    def __init__(self) -> None:
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._hung_up_to = 0
        self._delay_s = 0.0
        self._swallows = False
        self._swallows_from: bytes | None = None
        self.swallowing = asyncio.Event()

    async def _listen(self) -> asyncio.Server:
        raise NotImplementedError

    async def _connect(self) -> Streams:
        raise NotImplementedError

    async def open(self) -> None:
        self._server = await self._listen()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    def hang(self) -> None:
        """The connections of now hear nothing any more, for good, as behind a firewall that forgot them.

        New ones work.
        """
        self._hung_up_to = self.connections

    def delay(self, seconds: float) -> None:
        """Whatever is said from now on arrives so much later, in its order; 0 ends that."""
        self._delay_s = seconds

    def swallow_answers(self, after: bytes | None = None) -> None:
        """Pass requests on and no answers: from now on, or from the request that holds `after`."""
        self._swallows, self._swallows_from = after is None, after
        if after is None:
            self.swallowing.set()

    def heal(self) -> None:
        """New connections work, without a delay; those whose answers were swallowed are cut."""
        self._swallows, self._swallows_from = False, None
        self.swallowing.clear()
        self.delay(0)
        self.cut()
        self.resume()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._flowing.wait()
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(server_writer)
        # Cancelled by `close` alone; asyncio's own callback for this task cannot take a cancellation.
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(number, reader, server_writer, is_request=True))
                both.create_task(self._carry(number, server_reader, writer, is_request=False))

    async def _carry(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._take(reader, under_way, is_request=is_request))
                both.create_task(self._pass_on(number, under_way, writer))
        except* OSError:
            # Either end hung up, or was cut.
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _take(
        self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]], *, is_request: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            if is_request and self._swallows_from is not None and self._swallows_from in data:
                await self._flowing.wait()
                self._swallows = True
                self.swallowing.set()
            if is_request or not self._swallows:
                await under_way.put((loop.time() + self._delay_s, data))
        await under_way.put((0.0, b""))

    async def _pass_on(
        self, number: int, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await under_way.get()
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            await self._flowing.wait()
            if number <= self._hung_up_to:
                await asyncio.Event().wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


class Proxy(Link):
    """To a Postgres: `async with Proxy(url) as proxy`, then connect to `proxy.url` instead of to `url`."""

    def __init__(self, url: str):
        super().__init__()
        parts = urlsplit(url)
        self._target = Path(parse_qs(parts.query)["host"][0]) / SOCKET_NAME
        self._folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir="/tmp"))
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}?host={self._folder}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, self._folder / SOCKET_NAME)

    async def _connect(self) -> Streams:
        return await asyncio.open_unix_connection(self._target)

    async def __aenter__(self) -> Proxy:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        shutil.rmtree(self._folder)


class TcpProxy(Link):
    """To a port of the loopback: `async with TcpProxy(service.port) as line`, then connect to `line.port`."""

    def __init__(self, port: int):
        super().__init__()
        self._target = port
        self.port = 0

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._target)

    @property
    def url(self) -> str:
        """What a provider is given: the room's name comes behind it."""
        return f"ws://127.0.0.1:{self.port}/yjs"

    async def __aenter__(self) -> TcpProxy:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
