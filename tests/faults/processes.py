"""What is done to processes: stopped without warning, paused, killed; and what one holds open.

Everything works on `tests.service.Program` and `tests.postgres.Cluster`, by process id. Pauses end with their block,
whatever happens in it: a process that is stopped for good would outlive its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.postgres import Cluster
from tests.service import Service
from ydoc_store.embedded.liveness import processes_of

if TYPE_CHECKING:
    from tests.stored import Connection

PROC = Path("/proc")

# The connections of a node by what they last said: its append lanes, its listener, or all of them.
BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'ydoc-store' AND query LIKE $1
ORDER BY pid
"""
APPENDING = "%INSERT INTO ydoc.updates%"
LISTENING = "%pg_notification_queue_usage%"


def kill_9(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def paused(*pids: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT with the block: nothing of these processes runs, no socket of theirs is closed."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def paused_postgres(cluster: Cluster) -> Iterator[None]:
    """The whole of Postgres stands still: connections stay open and no answer comes, not even a refusal."""
    with paused(cluster.pid, *processes_of(cluster.folder / "data")):
        yield


async def stop_immediately(cluster: Cluster) -> None:
    """`pg_ctl stop -m immediate`: no checkpoint, no goodbye; recovery follows at the next start."""
    await asyncio.to_thread(cluster.stop, signal.SIGQUIT)


async def start_again(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.start)


async def backends(connection: Connection, saying: str = "%") -> list[int]:
    """Process ids of the Postgres backends that serve nodes in this database and last heard something like this."""
    return [row["pid"] for row in await connection.fetch(BACKENDS, saying)]


# What a process holds


def children_of(pid: int) -> list[int]:
    """The ids of its living and dead children; those of one that has ended are nobody's."""
    found: list[int] = []
    for task in (PROC / str(pid) / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def is_zombie(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def rss_bytes(pid: int) -> int:
    """The memory that it occupies now."""
    pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors_of(pid: int) -> dict[int, str]:
    """Its open files by number, as /proc names them."""
    found: dict[int, str] = {}
    for file in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(file.name)] = str(file.readlink())
    return found


def connections_on(port: int) -> int:
    """TCP connections to this port of the loopback that its owner has not closed: neither listening nor ended."""
    count = 0
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                is_ours = int(fields[1].rpartition(":")[2], 16) == port
                # An inode of 0: the process has closed it, the kernel finishes.
                count += is_ours and fields[3] != "0A" and fields[9] != "0"
    return count


@dataclass(frozen=True, slots=True)
class Watched:
    """A service, and what it had open before anyone came: `await watch(service)`, anew after each restart."""

    service: Service
    descriptors: int
    children: int


async def watch(service: Service) -> Watched:
    return Watched(service, len(descriptors_of(service.pid)), len(children_of(service.pid)))
