"""Durable Streams over HTTP: many readers of one document, and how fast a snapshot is downloaded.

`python -m tests.bench.durable_streams` prints each figure beside what it has to reach. A download is a ratio to a file
of the same bytes that the same uvicorn serves with starlette's FileResponse, in turns in one run. Needs two cores with
nothing else on them and `pip install -e '.[embedded,test,bench]'`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import signal
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import click
import uvloop
from pycrdt import Doc, Text

from tests.bench.load import LOAD_CLIENT_ID, Typist, markers, now_s, percentile
from tests.bench.servers import LOAD_CORE, SERVER_CORE, Server, cpu_s_of, server
from tests.service import free_port
from ydoc_store.yjs.lib0 import join_frames

READERS: Final = 200
UPDATES_PER_S: Final = 20
READING_S: Final = 15.0
P99_MAX_MS: Final = 50.0
SIZES: Final = {"250 kB": 250_000, "5 MB": 5_000_000}
RATIO_MIN: Final = 0.8
ROUNDS: Final = 6
ROUND_S: Final = 2.0
CONNECTIONS: Final = 4
PATH: Final = "/v1/yjs/default/docs/"

# Behind the same parser, on the same loop, with the same settings.
FILE_SERVER: Final = """
import asyncio, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

async def file(request):
    return FileResponse(sys.argv[2] + "/" + request.path_params["name"], media_type="application/octet-stream")

config = uvicorn.Config(
    Starlette(routes=[Route("/{name}", file)]), host="127.0.0.1", port=int(sys.argv[1]), lifespan="off",
    log_config=None, access_log=False, proxy_headers=False, server_header=False, loop="asyncio",
)
asyncio.run(uvicorn.Server(config).serve())
"""


class Http:
    """One kept-alive connection that asks and reads whole answers, and spends little on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Http]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=8 * 2**20)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        """The status and headers; the body is still to be read."""
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(": ") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, _, value in fields}

    async def whole(self, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.ask(method, target, body)
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", "0")))


async def readers(target: Server) -> None:
    """One document that 200 event streams read while 20 updates a second are posted to it."""
    sent_at: dict[int, float] = {}
    acked_at: dict[int, float] = {}
    arrived: list[tuple[int, float]] = []

    async def read(http: Http, ready: asyncio.Event) -> None:
        status, _ = await http.ask("GET", f"{PATH}notes?offset=now&live=sse")
        assert status == 200, status
        while line := await http.reader.readline():
            if line.startswith(b"data:") and not line.startswith(b"data:{"):
                at = now_s()
                arrived.extend((marker, at) for marker in markers(base64.b64decode(line[5:])))
            elif line.startswith(b"data:{"):
                ready.set()

    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(Http.open(target.port))
        assert (await writer.whole("PUT", f"{PATH}notes"))[0] == 201
        ready = [asyncio.Event() for _ in range(READERS)]
        tasks = [
            asyncio.create_task(read(await stack.enter_async_context(Http.open(target.port)), event)) for event in ready
        ]
        await asyncio.gather(*(event.wait() for event in ready))
        typist, count, started = Typist(LOAD_CLIENT_ID), int(READING_S * UPDATES_PER_S), now_s()
        cpu_before = target.cpu_s()
        for marker in range(count):
            await asyncio.sleep(max(0.0, started + marker / UPDATES_PER_S - now_s()))
            sent_at[marker] = now_s()
            status, _, _ = await writer.whole("POST", f"{PATH}notes", join_frames([typist.update(marker)]))
            assert status == 204, status
            acked_at[marker] = now_s()
        cpu_share = (target.cpu_s() - cpu_before) / (now_s() - started)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while len(arrived) < count * READERS:
                    await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    from_sending = [(at - sent_at[marker]) * 1000 for marker, at in arrived]
    from_ack = [(at - acked_at[marker]) * 1000 for marker, at in arrived]
    missing = count * READERS - len(arrived)
    p99 = percentile(from_ack, 0.99)
    click.echo(f"{READERS} readers, {UPDATES_PER_S} updates/s: {_spread(from_ack)} behind the ack,")
    click.echo(f"  p99 to reach ≤ {P99_MAX_MS:g} ms: {'yes' if p99 <= P99_MAX_MS else 'NO'}")
    click.echo(f"  {_spread(from_sending)} behind its sending, {missing} missing, {cpu_share:.2f} of a core")


def _spread(took_ms: list[float]) -> str:
    return f"p50 {percentile(took_ms, 0.5):.1f} ms, p99 {percentile(took_ms, 0.99):.1f} ms"


async def downloads(target: Server, folder: Path, files_of: FileServer) -> None:
    """The stored snapshot of documents of two sizes, against files of the same bytes."""
    for label, size in SIZES.items():
        # One that is silent for some seconds is closed, as it is between two sizes.
        async with Http.open(target.port) as http:
            offset = await _compacted(http, size)
            status, _, body = await http.whole("GET", f"{PATH}{size}?offset={offset}")
            assert status == 200, status
        (folder / str(size)).write_bytes(body)
        ours, files = f"{PATH}{size}?offset={offset}", f"/{size}"
        pairs = [
            (await _rate(target.port, ours, target.cpu_s), await _rate(files_of.port, files, files_of.cpu_s))
            for _ in range(ROUNDS)
        ]
        ratios = sorted(mine.per_s / theirs.per_s for mine, theirs in pairs)
        ratio = statistics.median(ratios)
        click.echo(f"snapshot of {label} ({len(body):,} bytes): {_told(mine for mine, _ in pairs)}")
        click.echo(f"  a file: {_told(theirs for _, theirs in pairs)}")
        click.echo(
            f"  ratio {ratio:.2f} [{ratios[0]:.2f} .. {ratios[-1]:.2f}] to reach ≥ {RATIO_MIN}: "
            f"{'yes' if ratio >= RATIO_MIN else 'NO'}"
        )


def _told(rounds: Iterable[Rate]) -> str:
    every = list(rounds)
    per_s, cpu_s, fastest_s = (statistics.median(column) for column in zip(*every, strict=True))
    return f"{per_s:,.0f}/s, {cpu_s * 1000:.2f} ms of CPU, the fastest tenth within {fastest_s * 1000:.2f} ms"


async def _compacted(http: Http, size: int) -> str:
    """A document of about so many bytes of text; returns the offset of its snapshot."""
    doc: Doc[object] = Doc(client_id=LOAD_CLIENT_ID)
    text = doc.get("text", type=Text)
    text += "".join(random.choices(string.ascii_letters, k=size))
    assert (await http.whole("PUT", f"{PATH}{size}"))[0] == 201
    assert (await http.whole("POST", f"{PATH}{size}", join_frames([doc.get_update()])))[0] == 204
    before = doc.get_state()
    text += "and more, so that there is something to merge"
    assert (await http.whole("POST", f"{PATH}{size}", join_frames([doc.get_update(before)])))[0] == 204
    while True:
        status, headers, _ = await http.whole("GET", f"{PATH}{size}?offset=snapshot")
        assert status == 307, status
        offset = headers["location"].partition("offset=")[2]
        if offset.endswith("_snapshot"):
            return offset
        await asyncio.sleep(0.2)


class Rate(NamedTuple):
    """Answers a second over some connections, the server's CPU seconds for one, and how soon the fastest tenth is here.

    On a machine with other work the first says how often somebody waited for a core, and the last what it takes.
    """

    per_s: float
    cpu_s: float
    fastest_s: float


async def _rate(port: int, target: str, cpu_s: Callable[[], float]) -> Rate:
    ends, cpu_before, took = now_s() + ROUND_S, cpu_s(), []

    async def load() -> None:
        async with Http.open(port) as http:
            while (asked := now_s()) < ends:
                status, _, _ = await http.whole("GET", target)
                assert status == 200, status
                took.append(now_s() - asked)

    started = now_s()
    await asyncio.gather(*(load() for _ in range(CONNECTIONS)))
    return Rate(len(took) / (now_s() - started), (cpu_s() - cpu_before) / len(took), percentile(took, 0.1))


@dataclass(frozen=True, slots=True)
class FileServer:
    """A server of the files of one folder."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        return cpu_s_of(self.pid)


@contextlib.contextmanager
def serving_files(folder: Path) -> Iterator[FileServer]:
    """On the core of the server that it is compared to."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", FILE_SERVER, str(port), str(folder)])
    try:
        os.sched_setaffinity(process.pid, SERVER_CORE)
        while not _listens(port):
            assert process.poll() is None, "the file server ended"
            time.sleep(0.02)
        yield FileServer(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@click.command()
def main() -> None:
    """Measure; the server and its Postgres have one core, the load has the other."""
    os.sched_setaffinity(0, LOAD_CORE)
    compacting = {"YDOC_COMPACT_TAIL_ROWS": "1", "YDOC_SWEEP_INTERVAL_S": "0.5", "YDOC_SWEEP_JITTER_S": "0"}
    with server("ours") as target:
        uvloop.run(readers(target))
    with (
        tempfile.TemporaryDirectory() as folder,
        server("ours", compacting) as target,
        serving_files(Path(folder)) as files_of,
    ):
        uvloop.run(downloads(target, Path(folder), files_of))


if __name__ == "__main__":
    main()
