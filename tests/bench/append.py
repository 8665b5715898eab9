"""How much of a bare group commit's speed the appender keeps: `python -m tests.bench.append`, by hand.

256 writers over 1 to 256 documents on a durable Postgres of our own; each waits for its update's commit before it
writes the next. The bare way is a list, a loop and asyncpg: the same statement with the same columns, and nothing
about outcomes, limits, lost connections or documents that fail alone. All run in turns; the ratio is printed, and
what the row of the change feed costs: the bare way is also run without it, and its WAL is counted.
"""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import click

from tests.log_rows import create_document
from tests.postgres import running_cluster
from ydoc_store.errors import YdocError
from ydoc_store.storage.append_batch import APPEND_BATCH, Accepted
from ydoc_store.storage.appender import Appender, QueuedUpdate
from ydoc_store.storage.guards import Verdict
from ydoc_store.storage.lane_connection import SET_UP_LANE
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import encode_uint

WRITERS = 256
UPDATE = bytes(range(30))
TO_REACH = 0.8
WITHOUT_FEED, _PARTS = re.subn(r"\), noted AS \(.*?\n\), told", "), told", APPEND_BATCH, flags=re.DOTALL)
assert _PARTS == 1
WAL_AT = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"

# Queues one update for the document with this number; the future is done once it is committed.
Write = Callable[[int, bytes], "asyncio.Future[None]"]


class Room:
    """The least that a room does with an outcome: everyone who waits is told."""

    def accepted(self, updates: list[QueuedUpdate], _result: Accepted) -> None:
        for queued in updates:
            queued.sender.set_result(None)

    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
        for queued in updates:
            queued.sender.set_exception(error)

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        raise AssertionError(verdict)


@asynccontextmanager
async def appender(url: str, ids: list[int]) -> AsyncIterator[Write]:
    database = await Database.open(url)
    ours = Appender(database)
    ours.hints_wanted = False
    await ours.start()
    queues = [ours.queue("t", str(document_id), Room()) for document_id in ids]
    for queue, document_id in zip(queues, ids, strict=True):
        queue.document_id = document_id
    create_future = asyncio.get_running_loop().create_future

    def write(number: int, update: bytes) -> asyncio.Future[None]:
        written = create_future()
        queues[number].put(QueuedUpdate(update, None, written, None))
        return written

    yield write
    await ours.drain(5)
    await database.close()


@asynccontextmanager
async def bare(url: str, ids: list[int], statement: str = APPEND_BATCH) -> AsyncIterator[Write]:
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "on"})
    await connection.execute(SET_UP_LANE, "6000", "1000")
    waiting: dict[int, list[tuple[bytes, asyncio.Future[None]]]] = {}
    wake = asyncio.Event()
    create_future = asyncio.get_running_loop().create_future

    def write(number: int, update: bytes) -> asyncio.Future[None]:
        written = create_future()
        waiting.setdefault(ids[number], []).append((update, written))
        wake.set()
        return written

    async def commit_for_ever() -> None:
        while True:
            await wake.wait()
            wake.clear()
            batch = sorted(waiting.items())
            waiting.clear()
            await connection.fetch(statement, *columns(batch))
            for _, updates in batch:
                for _, written in updates:
                    written.set_result(None)

    task = asyncio.create_task(commit_for_ever())
    yield write
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()


def columns(batch: list[tuple[int, list[tuple[bytes, asyncio.Future[None]]]]]) -> list[list[object]]:
    """What the statement takes, one row a document."""
    ids: list[object] = [document_id for document_id, _ in batch]
    counts: list[object] = [len(updates) for _, updates in batch]
    sizes: list[object] = [sum(len(update) for update, _ in updates) for _, updates in batch]
    frames: list[object] = [
        b"".join([part for update, _ in updates for part in (encode_uint(len(update)), update)]) for _, updates in batch
    ]
    n = len(batch)
    return [ids, counts, [1] * n, sizes, [2**62] * n, [0] * n, ids, [0] * n, counts, [None] * n, frames, [], [None] * n]


async def rate(write: Write, documents: int, seconds: float) -> float:
    """Committed updates a second, after a warm-up."""
    done = 0
    running = True

    async def write_for_ever(number: int) -> None:
        nonlocal done
        while running:
            await write(number, UPDATE)
            done += 1

    writers = [asyncio.create_task(write_for_ever(writer % documents)) for writer in range(WRITERS)]
    await asyncio.sleep(seconds / 4)
    before = done
    await asyncio.sleep(seconds)
    found = (done - before) / seconds
    running = False
    await asyncio.gather(*writers)
    return found


async def compare(url: str, documents: int, seconds: float, rounds: int) -> None:
    connection = await asyncpg.connect(url)
    ids = [await create_document(connection, f"{documents}/{number}") for number in range(documents)]
    rates: dict[str, list[float]] = {}
    wal_bytes: dict[str, list[float]] = {}
    for number in range(rounds):
        ways = [("appender", appender), ("bare", bare), ("no feed", partial(bare, statement=WITHOUT_FEED))]
        # Nobody always follows the same one.
        for name, way in ways[number % 3 :] + ways[: number % 3]:
            async with way(url, ids) as write:
                before = await connection.fetchval(WAL_AT)
                rates.setdefault(name, []).append(await rate(write, documents, seconds))
                written = float(await connection.fetchval(WAL_AT) - before)
                wal_bytes.setdefault(name, []).append(written / (rates[name][-1] * seconds * 1.25))
    await connection.close()
    ours, theirs, without = (statistics.median(rates[name]) for name in ("appender", "bare", "no feed"))
    wal, wal_without = (statistics.median(wal_bytes[name]) for name in ("bare", "no feed"))
    verdict = "ok" if ours >= TO_REACH * theirs else f"MISSED, to reach {TO_REACH}"
    click.echo(
        f"{WRITERS} writers, {documents:>3} documents: {ours:>8,.0f} updates/s, bare {theirs:>8,.0f}/s,"
        f" ratio {ours / theirs:.2f} ({verdict}); without the feed {without:>8,.0f}/s, ratio {ours / without:.2f};"
        f" WAL an update {wal:,.0f} and {wal_without:,.0f} bytes"
    )


@click.command(help=__doc__)
@click.option("--seconds", default=3.0)
@click.option("--rounds", default=5)
@click.option("--documents", multiple=True, type=int, default=(1, 16, 64, 256))
def main(seconds: float, rounds: int, documents: tuple[int, ...]) -> None:
    with running_cluster(durable=True) as cluster:
        cluster.create_template()
        for count in documents:
            asyncio.run(compare(cluster.url("migrated"), count, seconds, rounds))


if __name__ == "__main__":
    main()
