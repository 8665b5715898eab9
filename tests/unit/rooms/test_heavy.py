"""Heavy work: here when it is small, in a worker when it is large, and never waited for without end."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import pytest

from ydoc_store.errors import Draining, StorageBusy
from ydoc_store.rooms.heavy import HANDED_OVER_MAX, INLINE_BYTES_MAX, Heavy

LARGE = INLINE_BYTES_MAX + 1


async def test_small_work_is_done_here_and_large_work_in_one_worker() -> None:
    heavy = Heavy()
    try:
        assert await heavy.run(10, os.getpid) == os.getpid()
        worker = await heavy.run(LARGE, os.getpid)
        assert worker != os.getpid()
        assert await heavy.run(LARGE, os.getpid) == worker
    finally:
        heavy.stop()


async def test_a_worker_that_dies_fails_the_work_under_way_and_is_replaced() -> None:
    heavy = Heavy()
    try:
        with pytest.raises(StorageBusy):
            await heavy.run(LARGE, os._exit, 1)
        assert await heavy.run(LARGE, os.getpid) != os.getpid()
    finally:
        heavy.stop()


async def test_a_worker_that_hangs_is_killed_and_replaced_and_no_other_child_is() -> None:
    heavy, others = Heavy(), Heavy()
    try:
        await heavy.warm()
        another = await others.run(LARGE, os.getpid)
        heavy.timeout_s = 0.2
        with pytest.raises(StorageBusy):
            await heavy.run(LARGE, time.sleep, 3_600)
        heavy.timeout_s = 30
        assert await heavy.run(LARGE, os.getpid) != os.getpid()
        assert await others.run(LARGE, os.getpid) == another
    finally:
        heavy.stop()
        others.stop()


async def test_a_long_queue_is_no_worker_that_hangs() -> None:
    heavy = Heavy()
    try:
        await heavy.warm()
        heavy.timeout_s = 4
        # All of it takes longer than one may: each of these would have been timed from when it came.
        await asyncio.gather(*(heavy.run(LARGE, time.sleep, 0.9) for _ in range(5)))
    finally:
        heavy.stop()


async def test_what_still_waits_at_the_end_starts_no_worker_anew() -> None:
    heavy = Heavy()
    await heavy.warm()
    calls = [asyncio.create_task(heavy.run(LARGE, time.sleep, 0.1)) for _ in range(HANDED_OVER_MAX + 1)]
    await asyncio.sleep(0)
    heavy.stop()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ends[-1], Draining)
    assert heavy._pool is None


async def test_a_worker_that_takes_too_much_memory_fails_that_work_alone() -> None:
    """I15: a document that explodes ends with its reader, and not with the host."""
    heavy = Heavy(memory_bytes_max=2**30)
    try:
        with pytest.raises(StorageBusy):
            await heavy.run(LARGE, bytes, 2**31)
        assert await heavy.run(LARGE, os.getpid) != os.getpid()
    finally:
        heavy.stop()


def _work_as_a_daemon(answer: Any) -> None:
    async def work() -> int:
        heavy = Heavy()
        try:
            return await heavy.run(LARGE, os.getpid)
        finally:
            heavy.stop()

    answer.put((os.getpid(), asyncio.run(work())))


def test_a_daemon_of_multiprocessing_has_a_worker_too() -> None:
    """hypercorn's workers are daemons, which may have no children of the usual kind."""
    spawning = multiprocessing.get_context("spawn")
    answer = spawning.Queue()
    daemon = spawning.Process(target=_work_as_a_daemon, args=(answer,), daemon=True)
    daemon.start()
    own, worker = answer.get(timeout=60)
    daemon.join(60)
    answer.close()
    answer.join_thread()
    assert daemon.exitcode == 0
    assert worker != own


SERVER = """
import asyncio, os, signal
from ydoc_store.rooms.heavy import Heavy

async def serve():
    heavy = Heavy()
    await asyncio.gather(heavy.warm(), heavy.aside.warm())
    heavy.stop()
    os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(serve())
"""


async def test_a_process_that_ends_by_a_signal_right_behind_its_stop_is_warned_of_nothing_left() -> None:
    """As uvicorn ends a host that has mounted this."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (-signal.SIGTERM, "")
