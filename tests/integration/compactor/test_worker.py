"""The child process: it answers, it dies alone, it is bounded, and the loop that feeds it never stands still."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from compactor.worker import LARGE_JOB_BYTES, Done, Job, JobFailed, Worker
from tests.log_rows import Writer, text_of
from tests.waiting import until
from ydoc_store.storage.segments import HistoryRow, inflate, pack_row
from ydoc_store.yjs.lib0 import join_frames


def job(updates: list[bytes], *, keep_history: bool = True, snapshot: bytes | None = None) -> Job:
    rows = [
        HistoryRow(seq, 1, None, datetime(2026, 1, 1, tzinfo=UTC), join_frames([update]))
        for seq, update in enumerate(updates, 1)
    ]
    return Job(snapshot, b"".join(map(pack_row, rows)), 0, keep_deleted=False, keep_history=keep_history)


async def test_a_job_gives_the_snapshot_and_the_compressed_rows(worker: Worker) -> None:
    updates = Writer().type_each("abc")
    asked = job(updates)
    result = await worker.run(asked)
    assert isinstance(result, Done)
    assert text_of([result.snapshot]) == "abc"
    assert inflate(result.segment) == asked.packed_rows
    assert (result.row_count, result.through_seq, result.update_bytes) == (3, 3, sum(map(len, updates)))


async def test_without_history_no_time_goes_into_compressing(worker: Worker) -> None:
    result = await worker.run(job(Writer().type_each("abc"), keep_history=False))
    assert isinstance(result, Done)
    assert result.segment == b""


async def test_one_child_does_many_jobs_and_jobs_take_turns(worker: Worker) -> None:
    await worker.run(job([Writer().type("a")]))
    first = worker.pid
    texts = [f"text {number}" for number in range(20)]
    results = await asyncio.gather(*(worker.run(job(Writer().type_each(text))) for text in texts))
    assert [text_of([result.snapshot]) for result in results if isinstance(result, Done)] == texts
    assert worker.pid == first


async def test_bytes_that_are_no_update_fail_the_job_and_not_the_child(worker: Worker) -> None:
    await worker.run(job([Writer().type("a")]))
    first = worker.pid
    result = await worker.run(job([Writer().type("a"), b"\x01\x00\x01\x8c\x01\x00\x01"]))
    assert isinstance(result, JobFailed)
    assert "InvalidUpdate" in result.reason
    assert worker.pid == first


async def test_a_child_that_died_between_two_jobs_is_replaced(worker: Worker) -> None:
    await worker.run(job([Writer().type("a")]))
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    result = await worker.run(job([Writer().type("b")]))
    if isinstance(result, JobFailed):  # it died with the job already in its pipe
        result = await worker.run(job([Writer().type("b")]))
    assert isinstance(result, Done)
    assert worker.pid != first


async def test_a_job_that_takes_too_long_is_ended() -> None:
    async with Worker(timeout_s=0.001) as impatient:
        result = await impatient.run(job([Writer().type("a")]))
        assert isinstance(result, JobFailed)
        assert "took longer" in result.reason
        assert impatient.pid is None


async def test_a_cancelled_job_takes_its_child_along(worker: Worker) -> None:
    running = asyncio.create_task(worker.run(job([Writer().type("x" * 1_000_000)])))
    await until(lambda: worker.pid is not None)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert worker.pid is None
    assert isinstance(await worker.run(job([Writer().type("a")])), Done)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds an address space reliably")
async def test_a_merge_that_needs_more_memory_than_allowed_fails_its_document() -> None:
    text = Writer().type("x" * 30_000_000)
    async with Worker(memory_bytes_max=150 * 2**20, timeout_s=60) as bounded:
        result = await bounded.run(job([text, Writer(2).type("y" * 30_000_000)]))
        assert isinstance(result, JobFailed)
        small = await bounded.run(job([Writer().type("a")]))
        if isinstance(small, JobFailed):
            small = await bounded.run(job([Writer().type("a")]))
        assert isinstance(small, Done)


async def test_a_large_job_leaves_no_child_behind_that_keeps_its_memory(worker: Worker) -> None:
    result = await worker.run(job([Writer().type("x" * (LARGE_JOB_BYTES + 1))]))
    assert isinstance(result, Done)
    assert worker.pid is None


async def test_the_child_ends_when_its_parent_does() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, os, sys\n"
        f"sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from compactor.worker import Worker\n"
        "async def main():\n"
        "    worker = Worker(timeout_s=60)\n"
        "    process = await worker._start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    """Whether the process still runs; a zombie that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
