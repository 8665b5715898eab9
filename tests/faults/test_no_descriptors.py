"""Row "no file descriptors left": accept pauses and resumes, members do not notice, and the log says so once.

The service runs under a hard limit of open files. What it keeps for its database is not given to connections: who
comes beyond them is told 1013. Sockets that never say a word take the last ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from pathlib import Path

from tests.faults.journal import Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import descriptors_of, watch
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.nodes import Editor, closed_at_once
from tests.service import Service
from tests.waiting import until
from ydoc_store.settings import Settings

FILES = 160
POOL_SIZE = Settings.model_fields["pool_size"].default
SOON = {"YDOC_ROOM_IDLE_S": "0", "YDOC_HANDSHAKE_TIMEOUT_S": "10", "YDOC_DATABASE_GRACE_S": "60"}
PAUSED = "accepting is paused until a socket is closed"
AGAIN = "accepting again"
LIMITED = (
    "import os, resource, sys; files = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_NOFILE, (files, files));"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


class LimitedService(Service):
    """`serve` with a hard limit of open files."""

    def __init__(self, database_url: str, log: Path) -> None:
        super().__init__(["--database-url", database_url, "--no-compactor"], log, SOON)
        self.command = (sys.executable, "-c", LIMITED, str(FILES), *self.command[1:])


async def test_no_descriptors_left_pauses_accepting_and_members_type_on(
    tmp_path: Path, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I13, I15: silent sockets take every file; who is there goes on, who comes waits, and comes in afterwards."""
    service = LimitedService(database_url, tmp_path / "serve.log")
    silent: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    await service.start()
    try:
        watched = await watch(service)
        async with writing(editors, service.url, journal) as live:
            await live.goes_on()
            assert resource.prlimit(service.pid, resource.RLIMIT_NOFILE) == (FILES, FILES)
            while PAUSED not in service.log_text():
                silent.append(await asyncio.open_connection("127.0.0.1", service.port))
                await asyncio.sleep(0.005)
            assert len(descriptors_of(service.pid)) == FILES
            slowest_s = await live.goes_on(50)
            late = asyncio.create_task(Editor.open_synced(f"{service.url}/late"))
            # The handshake's time-out ends the silent ones.
            newcomer = await late
            await until(lambda: AGAIN in service.log_text())
            assert service.log_text().count(PAUSED) == service.log_text().count(AGAIN) == 1
            await live.stop()
            clients = {**live.clients, "late": [newcomer]}
            assert slowest_s < 30
            for _, writer in silent:
                writer.close()
            await verify(Scene(database_url, journal.known(), clients, services=[watched]))
    finally:
        for _, writer in silent:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await service.clear_away()


async def test_no_descriptor_that_the_database_needs_is_given_to_a_connection(
    tmp_path: Path, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I15: who comes beyond what the limit allows is told 1013; the whole pool would still find its files."""
    service = LimitedService(database_url, tmp_path / "serve.log")
    await service.start()
    try:
        watched = await watch(service)
        assert "the file limit allows fewer connections" in service.log_text()
        async with writing(editors, service.url, journal) as live:
            await live.goes_on()
            connections_max = FILES * 3 // 4
            crowd = [await Editor.open(f"{service.url}/crowd") for _ in range(connections_max - 2)]
            await crowd[-1].synced()
            code, reason = await closed_at_once(f"{service.url}/one-more")
            assert code == 1013, reason
            assert len(descriptors_of(service.pid)) <= FILES - POOL_SIZE
            await live.goes_on()
            for editor in crowd:
                await editor.leave()
            await live.stop()
            await verify(Scene(database_url, journal.known(), live.clients, services=[watched]))
    finally:
        await service.clear_away()
