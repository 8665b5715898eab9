"""A standby of a cluster, by streaming replication over a line that a test may stall; and one address for both.

`Standby.follow` copies the primary as `pg_basebackup` does and starts it behind. `Switch` is what a connection
pooler or a moved address is in production: one folder whose socket leads to whichever cluster serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.faults.proxy import SOCKET_NAME, Proxy
from tests.postgres import USER, Cluster, chosen_binaries
from tests.stored import connecting
from tests.waiting import until

PRIMARY_SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
STANDBY_NAME = "standby"
DATABASE = "migrated"
RECEIVED = "SELECT pg_last_wal_receive_lsn()"


def folder_of(line: Proxy) -> Path:
    return Path(line.url.partition("host=")[2])


class Standby(Cluster):
    """A cluster that follows `primary` through `line`, until it is promoted."""

    def __init__(self, primary: Cluster, line: Proxy, *, apply_delay: str) -> None:
        settings = PRIMARY_SETTINGS | {
            "primary_conninfo": f"host={folder_of(line)} user={USER} application_name={STANDBY_NAME}",
            "recovery_min_apply_delay": apply_delay,
            "wal_retrieve_retry_interval": "100ms",
            "wal_receiver_timeout": "60s",
        }
        self._primary = primary
        super().__init__(chosen_binaries(), durable=True, settings=settings)

    def _initdb(self) -> None:
        command = [self.binaries.program("pg_basebackup"), "-h", str(self._primary.folder), "-U", USER]
        command += ["-D", str(self.folder / "data"), "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", env={"LC_ALL": "C"},
            **self.account.spawn_as(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (self.folder / "data" / "standby.signal").touch()
        if self.account.is_other:
            shutil.chown(self.folder / "data" / "standby.signal", self.account.uid, self.account.gid)

    async def promote(self) -> None:
        """Returns when it takes writes, on a timeline of its own."""
        connection = await asyncpg.connect(self.url())
        assert await connection.fetchval("SELECT pg_promote(true, 60)")
        await connection.close()


@contextlib.asynccontextmanager
async def followed(primary: Cluster, *, apply_delay: str = "0") -> AsyncIterator[tuple[Standby, Proxy]]:
    """A started standby and the line that it listens on; it has everything that the primary had written before."""
    async with Proxy(primary.url()) as line:
        # The standby runs as another account.
        folder_of(line).chmod(0o755)
        (folder_of(line) / SOCKET_NAME).chmod(0o777)
        standby = await asyncio.to_thread(Standby, primary, line, apply_delay=apply_delay)
        try:
            await asyncio.to_thread(standby.start)
            yield standby, line
        finally:
            await asyncio.to_thread(standby.remove)


async def caught_up(primary: asyncpg.Connection, standby: asyncpg.Connection) -> None:
    """Returns once the standby has on its disk what the primary has written by now, up to the end of a record."""
    # WAL is flushed by the page as well, in the middle of a record, which no standby replays.
    await primary.execute("SELECT pg_logical_emit_message(true, 'caught up', '')")
    written = await primary.fetchval("SELECT pg_current_wal_flush_lsn()")

    async def has_all() -> bool:
        return bool(await standby.fetchval(f"SELECT coalesce(({RECEIVED}) >= $1::pg_lsn, false)", written))

    await until(has_all)


class Switch(Proxy):
    """Where the clients of the database connect; `to` leads new connections elsewhere and ends the old ones."""

    def to(self, cluster: Cluster) -> None:
        self._target = cluster.folder / SOCKET_NAME
        self.cut()


@dataclass
class Pair:
    """A primary that serves, a standby that follows, and the address of whichever serves."""

    primary: Cluster
    standby: Standby
    line: Proxy
    switch: Switch

    async def fall_over(self) -> None:
        """The primary dies; the standby takes over with what it has; the address leads there."""
        await self.take_over()
        self.switch.to(self.standby)

    async def take_over(self) -> None:
        """The primary dies and the standby takes over, before anyone is led there."""
        await asyncio.to_thread(self.primary.kill)
        await self.standby.promote()

    async def caught_up(self) -> None:
        async with connecting(self.primary.url(DATABASE)) as here, connecting(self.standby.url(DATABASE)) as there:
            await caught_up(here, there)
