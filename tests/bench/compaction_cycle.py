"""How long a compaction takes, by hand: `python -m tests.bench.compaction_cycle [DATABASE_URL]`.

Cycles of 1,000 and 10,000 rows of a real editing history on a warm child, each with a snapshot behind it, and
then a whole history from its first update on, one update a row. Prints wall time, the child's CPU time, the
longest pause of the event loop meanwhile, and the sizes. Without a URL a throw-away Postgres is started.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack

import asyncpg

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Done, Job, JobFailed, Worker
from tests.log_rows import append, create_document, trace
from tests.postgres import running_cluster
from ydoc_store.storage.pool import Database

HISTORY = "automerge-paper"


class MeasuredWorker(Worker):
    """Adds up the CPU seconds that the child reports."""

    cpu_s = 0.0

    async def run(self, job: Job) -> Done | JobFailed:
        result = await super().run(job)
        if isinstance(result, Done):
            self.cpu_s += result.cpu_s
        return result


class LoopPause:
    """The longest time for which nothing else could run on the event loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.perf_counter() - before_s - 0.001)


async def cycle(database: Database, worker: MeasuredWorker, document_id: int, what: str) -> None:
    pause = LoopPause()
    watching = asyncio.create_task(pause.watch())
    worker.cpu_s = 0.0
    started_s = time.perf_counter()
    runs = []
    more = True
    while more:
        outcome = await compact(database, worker, document_id, Terms(), forced=True)
        assert isinstance(outcome, Compacted), outcome
        runs.append(outcome.run)
        more = outcome.more
    wall_s = time.perf_counter() - started_s
    watching.cancel()
    rows = sum(run.rows_merged for run in runs)
    print(
        f"{what:42} {rows:7,} rows in {len(runs)} runs: {wall_s * 1e3:8.1f} ms, child CPU {worker.cpu_s:6.3f} s, "
        f"loop paused {pause.longest_s * 1e3:5.1f} ms, snapshot {runs[-1].snapshot_bytes_after:,} B "
        f"({runs[-1].way}), history {sum(run.history_bytes for run in runs):,} B",
        flush=True,
    )


async def measure(url: str) -> None:
    updates, _text = trace(HISTORY)
    database = await Database.open(url)
    connection = await asyncpg.connect(url)
    try:
        async with MeasuredWorker() as worker:
            document_id = await create_document(connection, f"cycles {time.time_ns()}")
            at = 0
            for rows in (1_000, 1_000, 10_000, 1_000, 10_000, 1_000):
                await append(connection, document_id, updates[at : at + rows])
                at += rows
                await cycle(database, worker, document_id, f"{rows:,} rows on a snapshot")
            whole = await create_document(connection, f"whole {time.time_ns()}")
            await append(connection, whole, updates)
            await cycle(database, worker, whole, "the whole history, one update a row")
            tens = await create_document(connection, f"tens {time.time_ns()}")
            await append(connection, tens, updates, a_row=10)
            await cycle(database, worker, tens, "the whole history, ten updates a row")
    finally:
        await connection.close()
        await database.close()


def main() -> None:
    with ExitStack() as stack:
        if len(sys.argv) > 1:
            url = sys.argv[1]
        else:
            cluster = stack.enter_context(running_cluster(durable=True))
            cluster.create_template()
            url = cluster.url(cluster.create_database())
        asyncio.run(measure(url))


if __name__ == "__main__":
    main()
