"""Row "disk full (data, WAL)": writes are refused, reads served while Postgres lives, and nothing is lost.

A disk is a tmpfs of 64 MB that somebody else's file fills. With the data full Postgres refuses what would grow and
serves the rest; without room for its log it stops, and recovers once there is some.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.faults.journal import Journal, marked
from tests.faults.oracle import Scene, verify
from tests.faults.processes import start_again
from tests.faults.writing import until_within, writing
from tests.interop.editors import Editors
from tests.nodes import Editor, closed_at_once, running_node
from tests.postgres import Cluster
from tests.stored import connecting

DISK = "64m"
FILLER = "somebody-elses-file"
# Some of these fill what the table's last pages have left; then it must grow.
PIECE = "x" * 2_000
BURN = "SELECT pg_logical_emit_message(false, 'anything', repeat('x', 1000000))"


class Disk:
    """A small disk, and the file that takes all that is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / FILLER).open("ab", buffering=0) as file:
            block = bytes(2**20)
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    def make_room(self) -> None:
        (self.folder / FILLER).unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
    folder = Path(tempfile.mkdtemp(prefix="ydoc-disk-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", folder], check=True)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


async def test_disk_full_of_data_refuses_writes_serves_reads_and_loses_nothing(
    disk: Disk, start_cluster: Callable[..., Cluster], journal: Journal, editors: Editors
) -> None:
    """I1: 1013 while it is full; what was acked is there, and what was refused comes back with its writer."""
    cluster = start_cluster(durable=True)
    cluster.create_template()
    os.chown(disk.folder, cluster.account.uid, cluster.account.gid)
    cluster.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    cluster.execute("CREATE DATABASE full_disk TEMPLATE migrated TABLESPACE small")
    url = cluster.url("full_disk")
    async with running_node(url, room_idle_s=0) as node, writing(editors, node.url("").rstrip("/"), journal) as live:
        await live.goes_on()
        disk.fill()
        big = await Editor.open_synced(node.url("big"))
        number = 0
        while big.close_code is None:
            journal.attempted("big", f"big.{number}")
            await big.type(marked(f"big.{number}") + PIECE)
            number += 1
            await asyncio.sleep(0.01)
        assert (big.close_code, number > 0) == (1013, True), big.close_reason
        # Reads are served, of what nobody has open as of what somebody has.
        late = await Editor.open_synced(node.url("doc"))
        await late.leave()
        assert await closes(node.url("big"), big) == 1013, "it is full still"
        disk.make_room()
        again = await Editor.open_synced(node.url("big"), big.doc)
        seer = await Editor.open(node.url("big"))
        await seer.until(lambda: len(seer.text) == len(big.text))
        journal.seen("big", seer.text)
        await live.goes_on()
        await live.stop()
        await verify(Scene(url, journal.known(), {**live.clients, "big": [again, seer]}, nodes=[node]))
    cluster.execute("DROP DATABASE full_disk WITH (FORCE)")
    cluster.execute("DROP TABLESPACE small")


async def closes(url: str, editor: Editor) -> int:
    """With which code a writer that brings what was refused is closed."""
    again = await Editor.open(url, editor.doc)
    code, _reason = await again.closed()
    return code


async def test_disk_full_of_wal_stops_postgres_and_it_recovers_all_that_was_acked(
    disk: Disk, start_cluster: Callable[..., Cluster], journal: Journal, editors: Editors
) -> None:
    """I1: Postgres panics rather than acknowledge; nothing is acked meanwhile, memory is bounded, all of it is back."""
    cluster = start_cluster(durable=True, settings={"max_wal_size": "32MB", "min_wal_size": "32MB"})
    cluster.create_template()
    cluster.stop()
    wal = cluster.folder / "data" / "pg_wal"
    shutil.copytree(wal, disk.folder / "wal")
    shutil.rmtree(wal)
    wal.symlink_to(disk.folder / "wal")
    for path in (disk.folder, *disk.folder.rglob("*")):
        os.chown(path, cluster.account.uid, cluster.account.gid)
    cluster.start()
    url = cluster.url("migrated")
    async with running_node(url, room_idle_s=0) as node, writing(editors, node.url("").rstrip("/"), journal) as live:
        await live.goes_on()
        disk.fill()
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            async with connecting(url) as somebody:
                while True:
                    await somebody.execute(BURN)
        # It tries to recover, finds no room, and gives up.
        await until_within(60, lambda: cluster.has_ended)
        assert "No space left on device" in cluster.log()
        acked = live.acked()
        code, reason = await closed_at_once(node.url("cold"))
        assert code == 1013, reason
        assert live.acked() == acked, "somebody was shown what no disk holds"
        assert node.service.appender.queued_bytes < 2**20
        disk.make_room()
        await start_again(cluster)
        await live.goes_on()
        await live.stop()
        await verify(Scene(url, journal.known(), live.clients, nodes=[node]))
    # Before its disk goes.
    cluster.stop()
