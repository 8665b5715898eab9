"""From a test's side: a service with an embedded Postgres in a process of its own, and questions to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ydoc_store.embedded.binaries import packaged

REPOSITORY = Path(__file__).parents[1]
READY_TIMEOUT_S = 60.0


async def comes_true(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds, for what no event tells."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 # another process brings it about
            await asyncio.sleep(0.001)


@dataclass(slots=True)
class Service:
    """A running `tests/embedded_service.py`."""

    process: asyncio.subprocess.Process
    url: str
    postgres_pid: int

    @property
    def service_pid(self) -> int:
        return self.process.pid

    async def kill(self) -> None:
        """Ours alone: its postmaster becomes an orphan."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def _launch(
    data_dir: Path, as_user: tuple[int, Path] | None, wrapper: tuple[str, ...] = ()
) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *wrapper,
        *(sys.executable, "-m", "tests.embedded_service", str(data_dir)),
        *(str(argument) for argument in as_user or ()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    async with asyncio.timeout(READY_TIMEOUT_S):
        line = await process.stdout.readline()
    return process, json.loads(line)


@contextlib.asynccontextmanager
async def serving(
    data_dir: Path, *, as_user: tuple[int, Path] | None = None, wrapper: tuple[str, ...] = ()
) -> AsyncIterator[Service]:
    """A service that is ready, run by another user (id, folder for the programs) if asked.

    At the end it is stopped in order, unless it was killed.
    """
    process, told = await _launch(data_dir, as_user, wrapper)
    assert "error" not in told, told["error"]
    try:
        yield Service(process, told["url"], told["pid"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(READY_TIMEOUT_S):
            await process.wait()


async def fails_as(data_dir: Path, *, as_user: tuple[int, Path] | None = None) -> str:
    """What a service that cannot start tells."""
    process, told = await _launch(data_dir, as_user)
    await process.wait()
    assert "error" in told, told
    return str(told["error"])


async def ask(url: str, sql: str) -> str:
    """What psql answers, as a person would ask."""
    process = await asyncio.create_subprocess_exec(
        packaged().program("psql"), url, "-tAc", sql, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()
