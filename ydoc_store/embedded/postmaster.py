"""The life of one postmaster: started as our direct child, ready, stopped.

It has a session of its own, so that Ctrl-C in a terminal reaches us alone and we end it when our own drain is
over. Its log is one file, which is kept within a bound. Restarting one that died is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.binaries import Binaries
from ydoc_store.embedded.cluster import explain, spawn
from ydoc_store.embedded.configuration import NEVER_TCP
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.embedded.liveness import is_ready
from ydoc_store.errors import EmbeddedPostgresFailed

POLL_INTERVAL_S = 0.01
SHUTDOWN_S = {signal.SIGINT: 30.0, signal.SIGQUIT: 5.0, signal.SIGKILL: 5.0}
LOG_BYTES_MAX = 10 * 1024 * 1024
# Postgres found processes of its predecessor attached to their shared memory, where we were not shown them.
STILL_ATTACHED = "pre-existing shared memory block"
STILL_ATTACHED_S = 10.0
STILL_ATTACHED_INTERVAL_S = 0.2


class Postmaster:
    """One postmaster, our child. Made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    @classmethod
    async def start(
        cls, folder: DataFolder, binaries: Binaries, account: Account, *, ready_timeout_s: float
    ) -> Postmaster:
        """Returns when connections are accepted; recovery after a crash is part of it.

        Raises EmbeddedPostgresFailed when it ends instead, or is not ready within `ready_timeout_s`. It leaves no
        process behind then, nor when it is cancelled.
        """
        deadline = time.monotonic() + STILL_ATTACHED_S
        while True:
            bound_log(folder.log)
            log_start = _size(folder.log)
            with folder.log.open("ab") as log:
                process = await spawn(
                    *(binaries.program("postgres"), "-D", str(folder.configuration), *NEVER_TCP),
                    account=account,
                    output=log,
                )
            postmaster = cls(process)
            try:
                if await postmaster._becomes_ready(folder, ready_timeout_s):
                    return postmaster
            except BaseException:
                await postmaster.stop(signal.SIGQUIT)
                raise
            said = await asyncio.to_thread(_read_from, folder.log, log_start)
            if STILL_ATTACHED not in said or time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(explain("Postgres did not start", said, folder))
            await asyncio.sleep(STILL_ATTACHED_INTERVAL_S)

    async def _becomes_ready(self, folder: DataFolder, timeout_s: float) -> bool:
        """True once it accepts connections, False when it has ended instead."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended:
            if is_ready(folder.cluster, self.pid):
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(
                    f"Postgres was not ready after {timeout_s:.0f} s; what it is doing stands in {folder.log}"
                )
            await asyncio.sleep(POLL_INTERVAL_S)
        return False

    async def wait(self) -> int:
        """Its exit status, when it has ended; cancelling the wait does it no harm."""
        return await self._process.wait()

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Returns when it has ended: a fast shutdown (SIGINT) or an immediate one (SIGQUIT, recovery follows).

        Harder means follow when it takes longer than `SHUTDOWN_S` says. A cancelled stop kills it.
        """
        steps = list(SHUTDOWN_S)
        try:
            for step in steps[steps.index(how) :]:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(step)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), SHUTDOWN_S[step])
                    return
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise


def bound_log(log: Path) -> None:
    """Begin the log file anew when it is over its bound; the former content stays beside it, once.

    Postgres writes on: its end of the file appends, so it goes on at the new beginning.
    """
    if _size(log) <= LOG_BYTES_MAX:
        return
    with log.open("rb") as full:
        full.seek(-LOG_BYTES_MAX, os.SEEK_END)
        log.with_suffix(".log.1").write_bytes(full.read())
    os.truncate(log, 0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_from(log: Path, start: int) -> str:
    with log.open("rb") as lines:
        lines.seek(start)
        return lines.read(256 * 1024).decode(errors="replace")
