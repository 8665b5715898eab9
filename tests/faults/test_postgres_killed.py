"""Postgres stopped without a checkpoint, and one of its backends killed, under load (I1, I4, I11, I15).

Nothing is acked that is not stored, appends resume once Postgres does, and a service that waits for it holds no more
than before. The editors of some documents go while Postgres is away, so that nobody can bring back what it lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from tests.faults.journal import Journal
from tests.faults.load import Load
from tests.faults.oracle import Scene, verify
from tests.faults.processes import (
    APPENDING,
    backends,
    kill_9,
    rss_bytes,
    start_again,
    stop_immediately,
    watch,
)
from tests.interop.editors import Editors
from tests.postgres import Cluster
from tests.service import Service, serving
from tests.stored import connecting
from tests.waiting import until
from ydoc_store.units import MIB

AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
RESUMED_WITHIN_S = 10.0
# What an append queue may hold is 64 MiB; six editors that type do not come near a tenth of it.
GROWTH_BYTES_MAX = 32 * MIB
TIMES = 2
BACKEND_KILLS = 3


@contextlib.asynccontextmanager
async def typed_in(folder: Path, url: str, load: Load) -> AsyncIterator[tuple[Service, Load]]:
    """A service with two documents whose editors stay; with the block they stop, and the oracle is asked."""
    async with serving(folder, database_url=url, environment=AT_ONCE) as service:
        watched = await watch(service)
        await load.enter("stays", service.url)
        await load.enter("stays too", service.url)
        yield service, load
        await load.stop_typing()
        async with connecting(url) as connection:
            assert await connection.fetchval("SHOW fsync") == "on"
        await verify(Scene(url, load.journal.known(), load.by_document, services=[watched]))


async def test_postgres_stopped_at_once_under_load(
    tmp_path: Path, mortal_cluster: Cluster, journal: Journal, editors: Editors
) -> None:
    """I1, I11, I15: no false ack, appends resume within 10 s, memory stays bounded meanwhile."""
    resumed_s: list[float] = []
    grown_bytes: list[int] = []
    async with typed_in(tmp_path, mortal_cluster.url("migrated"), Load(editors, journal)) as (service, load):
        for number in range(TIMES):
            await load.enter(f"goes-{number}", service.url)
            await load.shows(f"goes-{number}", 500)
            before_bytes = rss_bytes(service.pid)
            await stop_immediately(mortal_cluster)
            await load.leave(f"goes-{number}")
            grown_bytes.append(await away(service, load) - before_bytes)
            await start_again(mortal_cluster)
            resumed_s.append(await load.served_after_now("stays"))
    print(f"resumed after at most {max(resumed_s):.2f} s; grew by at most {max(grown_bytes) / MIB:.1f} MiB")
    assert max(resumed_s) < RESUMED_WITHIN_S
    assert max(grown_bytes) < GROWTH_BYTES_MAX


async def away(service: Service, load: Load) -> int:
    """Postgres is away for a while, in which people type on. What the service's memory came to at most, in bytes."""
    closed = load.by_document["stays"][0]
    until_s = time.monotonic() + 2
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, rss_bytes(service.pid))
        return time.monotonic() > until_s

    await closed.ask("untilDisconnected")
    await until(look)
    assert service.is_running
    return most


async def test_a_backend_killed_under_load(
    tmp_path: Path, mortal_cluster: Cluster, journal: Journal, editors: Editors
) -> None:
    """I1, I11: `kill -9` of the backend that appends; Postgres then ends every other one and recovers by itself."""
    url = mortal_cluster.url("migrated")
    resumed_s: list[float] = []
    with_recovery_s: list[float] = []
    async with typed_in(tmp_path, url, Load(editors, journal)) as (service, load):
        for number in range(BACKEND_KILLS):
            await load.enter(f"goes-{number}", service.url)
            await load.shows(f"goes-{number}", 300)
            await kill_the_appending_backend(url)
            # It ended every other one too before it recovers: nobody is served until then.
            await load.by_document["stays"][0].ask("untilDisconnected")
            killed_s = time.monotonic()
            await load.leave(f"goes-{number}")
            await until(lambda: accepts(url))
            resumed_s.append(await load.served_after_now("stays"))
            with_recovery_s.append(time.monotonic() - killed_s)
    print(f"with its recovery {max(with_recovery_s):.2f} s")
    print(f"{BACKEND_KILLS} backends killed; resumed after at most {max(resumed_s):.2f} s")
    assert max(resumed_s) < RESUMED_WITHIN_S


async def accepts(url: str) -> bool:
    """Postgres has recovered: how long that takes is the disk's, and not ours."""
    try:
        connection = await asyncpg.connect(url)
    except (asyncpg.PostgresError, OSError):
        return False
    await connection.close()
    return True


async def kill_the_appending_backend(url: str) -> None:
    connection = await asyncpg.connect(url)
    appending: list[int] = []

    async def is_known() -> bool:
        appending[:] = await backends(connection, APPENDING)
        return bool(appending)

    await until(is_known)
    kill_9(appending[0])
    connection.terminate()
