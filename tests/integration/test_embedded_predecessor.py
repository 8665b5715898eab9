"""What was committed survives every death, and no remains of a death keep the next start from working."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.embedded_client import comes_true, serving
from tests.postgres import running_cluster
from ydoc_store.embedded import EmbeddedPostgres, predecessor
from ydoc_store.embedded.account import choose_account
from ydoc_store.embedded.binaries import packaged, reachable
from ydoc_store.embedded.liveness import look_at, processes_of
from ydoc_store.embedded.postmaster import STILL_ATTACHED

TIMEOUT_S = 60.0


async def answers(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def commit(url: str) -> None:
    await answers(url, "CREATE TABLE kept AS SELECT 42 AS n")


async def assert_it_starts_and_has_kept_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT n FROM kept") == 42
        assert postgres.pid is not None
        assert postgres.pid in processes_of(data_dir / "postgres")


async def test_a_postmaster_killed_under_a_running_service_comes_back_by_itself(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await commit(postgres.url)
        assert postgres.pid is not None
        killed = postgres.pid
        os.kill(killed, signal.SIGKILL)
        await comes_true(lambda: postgres.pid not in (None, killed))
        assert await answers(postgres.url, "SELECT n FROM kept") == 42


async def test_a_service_stopped_while_its_postmaster_is_dead_stops(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    await postgres.start()
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    await postgres.stop()
    assert processes_of(data_dir / "postgres") == []


async def test_a_killed_backend_takes_only_the_connections_with_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await commit(postgres.url)
        before = postgres.pid
        sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        os.kill(await answers(postgres.url, sql), signal.SIGKILL)
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    assert await answers(postgres.url, "SELECT n FROM kept") == 42
                    break
        assert postgres.pid == before


async def test_an_orphaned_postmaster_is_replaced_never_doubled(data_dir: Path) -> None:
    async with serving(data_dir) as service:
        await commit(service.url)
        await service.kill()
        orphan = service.postgres_pid
        assert look_at(orphan) is not None
        # With a transaction of the dead service still open in it.
        held = await asyncpg.connect(service.url)
        await held.execute("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE")
        async with EmbeddedPostgres(data_dir) as postgres:
            assert await answers(postgres.url, "SELECT n FROM kept") == 42
            assert look_at(orphan) is None
            assert postgres.pid != orphan
        held.terminate()


async def test_everything_killed_at_once(data_dir: Path) -> None:
    async with serving(data_dir) as service:
        await commit(service.url)
        await service.kill()
        for pid in (service.postgres_pid, *processes_of(data_dir / "postgres")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await assert_it_starts_and_has_kept_it(data_dir)


async def stop_a_backend_and_kill_the_postmaster(data_dir: Path) -> int:
    """A backend that holds on to the cluster's memory and does not notice that its postmaster is dead."""
    async with serving(data_dir) as service:
        await commit(service.url)
        connection = await asyncpg.connect(service.url)
        backend: int = await connection.fetchval("SELECT pg_backend_pid()")
        await service.kill()
        os.kill(backend, signal.SIGSTOP)
        os.kill(service.postgres_pid, signal.SIGKILL)
        connection.terminate()
        return backend


async def test_a_backend_that_outlives_its_postmaster_is_ended_first(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "IMMEDIATE_SHUTDOWN_S", 1.0)
    backend = await stop_a_backend_and_kill_the_postmaster(data_dir)
    await assert_it_starts_and_has_kept_it(data_dir)
    assert look_at(backend) is None


async def test_a_backend_that_we_cannot_see_is_waited_for(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a system without /proc: only Postgres itself notices, by its shared memory.
    monkeypatch.setattr(predecessor, "processes_of", lambda _cluster: [])
    backend = await stop_a_backend_and_kill_the_postmaster(data_dir)
    starting = asyncio.create_task(assert_it_starts_and_has_kept_it(data_dir))
    await comes_true(lambda: STILL_ATTACHED in (data_dir / "log" / "postgres.log").read_text())
    os.kill(backend, signal.SIGCONT)
    await starting


async def test_everything_killed_during_the_first_start(data_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.embedded_service", str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as service:
        await comes_true(lambda: list(data_dir.glob("postgres.new.*/base")))
        service.kill()
    async with EmbeddedPostgres(data_dir) as postgres:
        await commit(postgres.url)
    await assert_it_starts_and_has_kept_it(data_dir)


@pytest.fixture
async def cluster_with_data(data_dir: Path) -> Path:
    async with EmbeddedPostgres(data_dir) as postgres:
        await commit(postgres.url)
    return data_dir


@pytest.fixture
def unreaped_postmaster(cluster_with_data: Path) -> Iterator[int]:
    """A killed postmaster that nobody reaps: we are its parent and do not wait for it."""
    account = choose_account(cluster_with_data / "postgres")
    programs = reachable(packaged(), account, cluster_with_data / "programs")
    postmaster = subprocess.Popen(
        [programs.program("postgres"), "-D", str(cluster_with_data / "config")],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **account.spawn_as(),
    )
    record = cluster_with_data / "postgres" / "postmaster.pid"
    while not (record.exists() and "ready" in record.read_text()):
        assert postmaster.poll() is None
    postmaster.kill()
    os.waitid(os.P_PID, postmaster.pid, os.WEXITED | os.WNOWAIT)
    yield postmaster.pid
    postmaster.wait()


async def test_a_zombie_postmaster_does_not_stop_the_restart(unreaped_postmaster: int, data_dir: Path) -> None:
    os.kill(unreaped_postmaster, 0)
    assert (data_dir / "postgres" / "postmaster.pid").read_text().startswith(f"{unreaped_postmaster}\n")
    await assert_it_starts_and_has_kept_it(data_dir)


async def test_postgres_alone_would_have_refused_over_that_zombie(unreaped_postmaster: int, data_dir: Path) -> None:
    account = choose_account(data_dir / "postgres")
    programs = reachable(packaged(), account, data_dir / "programs")
    refused = subprocess.run(
        [programs.program("postgres"), "-D", str(data_dir / "config")],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **account.spawn_as(),
    )
    assert f"another postmaster (PID {unreaped_postmaster}) running" in refused.stderr


def leave_record(data_dir: Path, pid: int) -> None:
    """As a killed postmaster would, whose process id went to somebody else."""
    owner = (data_dir / "postgres").stat()
    text = f"{pid}\n{data_dir / 'postgres'}\n1700000000\n5432\n{data_dir / 'socket'}\n\n        1         2\nready   \n"
    for record in (data_dir / "postgres" / "postmaster.pid", data_dir / "socket" / ".s.PGSQL.5432.lock"):
        record.write_text(text)
        os.chown(record, owner.st_uid, owner.st_gid)


async def test_a_process_id_that_went_to_a_stranger_is_left_alone(cluster_with_data: Path) -> None:
    # Of the same account, so that Postgres's own test with kill(pid, 0) would be misled.
    stranger = subprocess.Popen(["/bin/sleep", "600"], **choose_account(cluster_with_data / "postgres").spawn_as())
    try:
        leave_record(cluster_with_data, stranger.pid)
        await assert_it_starts_and_has_kept_it(cluster_with_data)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_process_id_that_went_to_another_clusters_postmaster_is_left_alone(cluster_with_data: Path) -> None:
    with running_cluster() as other:
        leave_record(cluster_with_data, other.pid)
        await assert_it_starts_and_has_kept_it(cluster_with_data)
        assert await answers(other.url(), "SELECT 1") == 1


@pytest.mark.parametrize("whose", ["ours", "the first process's", "nobody's"])
async def test_a_process_id_that_went_to_us_or_to_nobody(cluster_with_data: Path, whose: str) -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    leave_record(cluster_with_data, {"ours": os.getpid(), "the first process's": 1, "nobody's": gone.pid}[whose])
    await assert_it_starts_and_has_kept_it(cluster_with_data)


async def test_a_record_left_empty_by_a_full_disk(cluster_with_data: Path) -> None:
    for record in ("postgres/postmaster.pid", "socket/.s.PGSQL.5432.lock"):
        (cluster_with_data / record).write_text("")
    await assert_it_starts_and_has_kept_it(cluster_with_data)


async def test_a_data_folder_that_was_moved(cluster_with_data: Path) -> None:
    moved = cluster_with_data.rename(cluster_with_data.with_name("moved"))
    await assert_it_starts_and_has_kept_it(moved)


async def test_an_orphan_is_found_where_root_may_not_look_at_other_accounts_processes(
    as_root: None, data_dir: Path
) -> None:
    # As in a container of the usual kind, which lacks CAP_SYS_PTRACE.
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv is part of util-linux"
    blind = (setpriv, "--bounding-set", "-sys_ptrace")
    async with serving(data_dir, wrapper=blind) as service:
        await commit(service.url)
        await service.kill()
        orphan = service.postgres_pid
        async with serving(data_dir, wrapper=blind) as successor:
            assert await answers(successor.url, "SELECT n FROM kept") == 42
            assert look_at(orphan) is None
            await successor.kill()
            os.kill(successor.postgres_pid, signal.SIGKILL)
        async with serving(data_dir, wrapper=blind) as last:
            assert await answers(last.url, "SELECT n FROM kept") == 42
