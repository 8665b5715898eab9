"""What a killed service left in its data folder: orphaned processes, and records that would bar a new start.

The caller holds the data folder's lock, so whatever still runs in the cluster has lost its service and may be
stopped. A running orphan is stopped and started anew rather than taken over: the new service is then the parent,
its transactions of the dead service are over, and it runs the programs that are installed now.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ydoc_store.embedded.folder import SOCKET_NAME
from ydoc_store.embedded.liveness import processes_of, recorded_postmaster
from ydoc_store.errors import EmbeddedPostgresFailed

POLL_INTERVAL_S = 0.01
FAST_SHUTDOWN_S = 30.0
IMMEDIATE_SHUTDOWN_S = 5.0


async def clear_predecessor(cluster: Path, configuration: Path, socket_folder: Path) -> None:
    """Afterwards no process works in this cluster, and no record keeps a new postmaster from starting.

    Takes a moment when nothing was left, and at most about 45 s. Raises EmbeddedPostgresFailed when a process
    cannot be ended.
    """
    recorded = await asyncio.to_thread(recorded_postmaster, cluster, configuration)
    if recorded.verdict == "running":
        await _end_postmaster(cluster, configuration, recorded.pid)
    await end_backends(cluster)
    recorded = await asyncio.to_thread(recorded_postmaster, cluster, configuration)
    if recorded.verdict == "misleading":
        # Only then: the record of a postmaster that is plainly dead tells Postgres which shared memory to check.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
    # These say nothing else than a process id, with the same pitfalls.
    for remains in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (socket_folder / remains).unlink(missing_ok=True)


async def _end_postmaster(cluster: Path, configuration: Path, pid: int) -> None:
    def is_running() -> bool:
        # The number may pass to a stranger while we wait.
        now = recorded_postmaster(cluster, configuration)
        return now.verdict == "running" and now.pid == pid

    for how, patience_s in ((signal.SIGINT, FAST_SHUTDOWN_S), (signal.SIGQUIT, IMMEDIATE_SHUTDOWN_S)):
        _send(pid, how)
        if await _comes_true(lambda: not is_running(), patience_s):
            return
    _send(pid, signal.SIGKILL)
    if not await _comes_true(lambda: not is_running(), IMMEDIATE_SHUTDOWN_S):
        raise EmbeddedPostgresFailed(f"the Postgres of a former ydoc-store, process {pid}, cannot be stopped")


async def end_backends(cluster: Path) -> None:
    """Afterwards no process is left in a cluster whose postmaster is dead, as far as we may look.

    Raises EmbeddedPostgresFailed when one cannot be ended.
    """
    # They follow a killed postmaster within moments, but one that is busy may not have noticed yet.
    if await _comes_true(lambda: not processes_of(cluster), IMMEDIATE_SHUTDOWN_S):
        return
    for pid in await asyncio.to_thread(processes_of, cluster):
        _send(pid, signal.SIGKILL)
    if not await _comes_true(lambda: not processes_of(cluster), IMMEDIATE_SHUTDOWN_S):
        left = await asyncio.to_thread(processes_of, cluster)
        raise EmbeddedPostgresFailed(f"processes of a former Postgres in {cluster} cannot be ended: {left}")


def _send(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


async def _comes_true(condition: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL_S)
    return True
