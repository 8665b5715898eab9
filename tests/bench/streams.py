"""Appends to streams over HTTP: `python -m tests.bench.streams`, by hand.

64 producers, each over a connection of its own that is kept, wait for the answer to one POST before they send the
next; an answer comes behind its COMMIT. The server and its durable Postgres share one core, the load has the other.
Beside the rate stands what an append costs in processor time, which a busy machine does not change.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import click

from tests.bench.servers import LOAD_CORE, Server, server

CONNECTIONS = 64
BODY = b"x" * 100
TO_REACH = 3_000
WARM_UP_SHARE = 0.25


class Producer(asyncio.Protocol):
    """One kept connection: a request, its answer, the next. Fails on any answer that is no success."""

    def __init__(self, request: Callable[[int], bytes], done: Callable[[], bool]):
        self._request = request
        self._done = done
        self._seq = 0
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request(0))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        assert self._received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204", b"HTTP/1.1 201")), self._received
        self._received = b""
        self._seq += 1
        assert self._transport is not None
        if self._done():
            self._transport.close()
            self.ended.set_result(None)
        else:
            self._transport.write(self._request(self._seq))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed a connection"))


def requests(number: int, stream: str, *, produced: bool) -> Callable[[int], bytes]:
    """The requests of one connection, by their number."""
    head = (
        f"POST /v1/stream/{stream} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(BODY)}\r\n"
    )

    def request(seq: int) -> bytes:
        numbered = f"Producer-Id: p{number}\r\nProducer-Epoch: 0\r\nProducer-Seq: {seq}\r\n" if produced else ""
        return f"{head}{numbered}\r\n".encode() + BODY

    return request


async def create(port: int, stream: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"PUT /v1/stream/{stream} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    assert (await reader.read()).startswith(b"HTTP/1.1 201")
    writer.close()


async def rate(target: Server, streams: int, seconds: float, *, produced: bool) -> tuple[float, float, float]:
    """Appends a second, and microseconds of processor time that each takes here and in Postgres."""
    names = [f"{os.urandom(4).hex()}" for _ in range(streams)]
    for name in names:
        await create(target.port, name)
    answered = 0
    is_over = False

    def done() -> bool:
        nonlocal answered
        answered += 1
        return is_over

    producers = []
    for number in range(CONNECTIONS):
        request = requests(number, names[number % streams], produced=produced)
        _, producer = await asyncio.get_running_loop().create_connection(
            lambda request=request: Producer(request, done),  # type: ignore[misc] # each its own
            "127.0.0.1",
            target.port,
        )
        producers.append(producer)
    await asyncio.sleep(seconds * WARM_UP_SHARE)
    before, began_s = answered, time.perf_counter()
    ours_s, theirs_s = target.cpu_s(), target.postgres_cpu_s()
    await asyncio.sleep(seconds)
    count, took_s = answered - before, time.perf_counter() - began_s
    ours_s, theirs_s = target.cpu_s() - ours_s, target.postgres_cpu_s() - theirs_s
    is_over = True
    await asyncio.gather(*(producer.ended for producer in producers))
    return count / took_s, ours_s / count * 1e6, theirs_s / count * 1e6


@click.command(help=__doc__)
@click.option("--seconds", default=5.0)
def main(seconds: float) -> None:
    os.sched_setaffinity(0, LOAD_CORE)
    with server("ours") as target:
        for streams, produced in ((1, True), (64, True), (1, False), (64, False)):
            found, ours_us, theirs_us = asyncio.run(rate(target, streams, seconds, produced=produced))
            alone = 1e6 / (ours_us + theirs_us)
            what = "with producers" if produced else "without      "
            verdict = "ok" if found >= TO_REACH else f"MISSED, to reach {TO_REACH}"
            click.echo(
                f"{CONNECTIONS} connections, {streams:>2} streams, {what}: {found:>6,.0f} appends/s ({verdict});"
                f" one takes {ours_us:.0f} µs here and {theirs_us:.0f} µs in Postgres:"
                f" {alone:,.0f}/s on a core that is theirs alone"
            )


if __name__ == "__main__":
    main()
