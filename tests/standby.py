"""A hot standby of a throw-away cluster, for tests of what a server that takes no writes can still do."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import asyncpg

from tests.postgres import Cluster, chosen_binaries
from tests.waiting import until


def base_backup(cluster: Cluster, target: str, *options: str) -> None:
    """`pg_basebackup` of a running cluster into `target`, an absent or empty folder, as the cluster's account."""
    command = [cluster.binaries.program("pg_basebackup"), "-h", str(cluster.folder), "-U", "ydoc", "-D", target]
    done = subprocess.run(
        [*command, "--checkpoint=fast", "--no-sync", *options],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"LC_ALL": "C"},
        **cluster.account.spawn_as(),
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running_standby(primary: Cluster) -> Iterator[Cluster]:
    """A started hot standby that streams from `primary`, removed at the end."""
    standby = Cluster(chosen_binaries())
    try:
        data = standby.folder / "data"
        shutil.rmtree(data)
        base_backup(primary, str(data), "--write-recovery-conf")
        standby.start()
        yield standby
    finally:
        standby.remove()


async def caught_up(primary_url: str, standby_url: str) -> None:
    """Returns when the standby has replayed all that the primary had written when this was called."""
    primary = await asyncpg.connect(primary_url)
    standby = await asyncpg.connect(standby_url)
    try:
        written = await primary.fetchval("SELECT pg_current_wal_insert_lsn()")

        async def is_there() -> bool:
            return bool(await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written))

        await until(is_there)
    finally:
        await asyncio.gather(primary.close(), standby.close())
