"""The embedded Postgres as a person meets it: first start, restart, and every way in which a start is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.embedded_client import ask, comes_true, fails_as, serving
from ydoc_store.embedded import EmbeddedPostgres
from ydoc_store.embedded.account import Account
from ydoc_store.embedded.binaries import Binaries, packaged, reachable
from ydoc_store.embedded.liveness import processes_of
from ydoc_store.errors import EmbeddedPostgresFailed

MIB = 1024 * 1024


async def answers(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_the_first_start_makes_a_cluster_that_keeps_its_promise(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.major == 18
        assert postgres.data_dir == data_dir
        assert await answers(postgres.url, "SHOW server_encoding") == "UTF8"
        assert await answers(postgres.url, "SELECT datcollate FROM pg_database LIMIT 1") == "C"
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await answers(postgres.url, f"SHOW {name}") == "on"
        assert await answers(postgres.url, "SHOW max_connections") == "50"


async def test_a_restart_finds_what_was_committed(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await answers(postgres.url, "CREATE TABLE t AS SELECT 42 AS n")
        url = postgres.url
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT n FROM t") == 42
        assert postgres.url == url


async def test_after_a_stop_nothing_runs_and_the_folder_is_free(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir)
    await postgres.start()
    held = await asyncpg.connect(postgres.url)
    await postgres.stop()
    await postgres.stop()
    assert postgres.pid is None
    assert processes_of(data_dir / "postgres") == []
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await held.fetchval("SELECT 1")
    held.terminate()
    with pytest.raises(EmbeddedPostgresFailed, match="not running"):
        _ = postgres.url


def sockets_listening_on_tcp(pid: int) -> set[str]:
    """The inodes of this process's sockets that the kernel lists as TCP."""
    mine = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            mine.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    tables = [Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    return mine & {line.split()[9] for table in tables for line in table}


async def test_it_never_listens_on_tcp_even_when_it_is_told_to(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await answers(postgres.url, "ALTER SYSTEM SET listen_addresses = '*'")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SHOW listen_addresses") == ""
        if Path("/proc/net/tcp").exists():
            assert postgres.pid is not None
            assert sockets_listening_on_tcp(postgres.pid) == set()


async def test_an_operators_own_setting_is_kept(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await answers(postgres.url, "ALTER SYSTEM SET shared_buffers = '16MB'")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SHOW shared_buffers") == "16MB"


async def test_a_signal_to_our_terminal_does_not_reach_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        assert postgres.pid is not None
        assert os.getsid(postgres.pid) != os.getsid(0)


@pytest.mark.parametrize("name", ["x" * 110, "with space, comma and 'quote'"])
async def test_a_path_that_no_socket_can_have_works_all_the_same(open_folder: Path, name: str) -> None:
    async with EmbeddedPostgres(open_folder / name) as postgres:
        assert await answers(postgres.url, "SELECT 1") == 1
        socket_folder = Path(postgres.url.partition("host=")[2])
        assert socket_folder.stat().st_mode & 0o077 == 0
    assert not socket_folder.exists()


async def test_two_in_one_process_get_a_clear_error_and_the_first_goes_on(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        with pytest.raises(EmbeddedPostgresFailed, match=rf"in use by another ydoc-store, process {os.getpid()}"):
            await EmbeddedPostgres(data_dir).start()
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_starting_twice_is_refused_and_does_no_harm(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        with pytest.raises(EmbeddedPostgresFailed, match="started already"):
            await postgres.start()
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_two_services_on_one_folder_get_a_clear_error_and_the_first_goes_on(data_dir: Path) -> None:
    async with serving(data_dir) as first:
        with pytest.raises(EmbeddedPostgresFailed, match=rf"process {first.service_pid}: stop that one"):
            await EmbeddedPostgres(data_dir).start()
        assert await answers(first.url, "SELECT 1") == 1
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_a_cancelled_first_start_leaves_nothing_behind(data_dir: Path) -> None:
    starting = asyncio.create_task(EmbeddedPostgres(data_dir).start())
    await comes_true(lambda: list(data_dir.glob("postgres.new.*/base")))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not list(data_dir.glob("postgres*"))
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_a_start_that_fails_tells_postgres_own_reason_and_frees_the_folder(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await answers(postgres.url, "ALTER SYSTEM SET shared_preload_libraries = 'no_such_library'")
    with pytest.raises(EmbeddedPostgresFailed, match=r"no_such_library.*postgres\.log"):
        await EmbeddedPostgres(data_dir).start()
    (data_dir / "postgres" / "postgresql.auto.conf").write_text("")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT 1") == 1


# A full disk


@pytest.fixture
def small_disk(as_root: None, open_folder: Path) -> Iterator[Path]:
    disk = open_folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range((shutil.disk_usage(disk).free - leave_bytes) // 4096):
            file.write(bytes(4096))
    return filler


@pytest.mark.parametrize("leave_bytes", [0, 8 * MIB, 60 * MIB])
async def test_a_first_start_on_a_full_disk_says_so(small_disk: Path, leave_bytes: int) -> None:
    filler = fill(small_disk, leave_bytes)
    with pytest.raises(EmbeddedPostgresFailed, match=r"is full .* make room"):
        await EmbeddedPostgres(small_disk / "data").start()
    filler.unlink()
    async with EmbeddedPostgres(small_disk / "data") as postgres:
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_a_disk_that_fills_up_while_the_cluster_is_made_says_so(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ydoc_store.embedded.folder.FIRST_START_BYTES_MIN", 0)
    fill(small_disk, 30 * MIB)
    with pytest.raises(EmbeddedPostgresFailed, match=r"initdb failed: the disk .* is full"):
        await EmbeddedPostgres(small_disk / "data").start()
    assert not list((small_disk / "data").glob("postgres*"))


async def test_a_restart_on_a_full_disk_says_so_and_loses_nothing(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    async with EmbeddedPostgres(data_dir) as postgres:
        await answers(postgres.url, "CREATE TABLE t AS SELECT 42 AS n")
    filler = fill(small_disk, 0)
    with pytest.raises(EmbeddedPostgresFailed, match=r"is full .* make room"):
        await EmbeddedPostgres(data_dir).start()
    filler.unlink()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT n FROM t") == 42


# Root, and a normal user


async def test_root_runs_it_under_an_unprivileged_account(as_root: None, data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        owner = Path(f"/proc/{postgres.pid}").stat().st_uid
        assert owner != 0
        assert (data_dir / "postgres").stat().st_uid == owner
        assert (data_dir / "config" / "postgresql.conf").stat().st_uid == 0
        assert (data_dir / "log").stat().st_mode & 0o077 == 0


async def test_another_account_can_neither_reach_the_socket_nor_be_let_in(as_root: None, data_dir: Path) -> None:
    daemon = pwd.getpwnam("daemon").pw_uid
    async with EmbeddedPostgres(data_dir) as postgres:
        stranger = Account("daemon", daemon, daemon, is_other=True)
        ask_as_daemon = [
            reachable(packaged(), stranger, data_dir.parent).program("psql"),
            postgres.url,
            "-c",
            "SELECT 1",
        ]
        for barrier in ("Permission denied", "Peer authentication failed"):
            refused = subprocess.run(ask_as_daemon, user=daemon, capture_output=True, text=True, check=False, cwd="/")
            assert barrier in refused.stderr
            # The second time with the door open: the rules behind it hold as well.
            (data_dir / "socket").chmod(0o755)
            await answers(postgres.url, "SELECT 1")
            (data_dir / "socket" / ".s.PGSQL.5432").chmod(0o777)


async def test_a_folder_below_a_closed_one_is_refused_by_name(as_root: None, open_folder: Path) -> None:
    closed = open_folder / "root"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresFailed, match=rf"may not enter {closed}: choose a --data-dir"):
        await EmbeddedPostgres(closed / "data").start()
    assert not (closed / "data").exists()


async def test_programs_below_a_closed_folder_are_carried_to_where_the_account_can_run_them(
    as_root: None, open_folder_on_disk: Path
) -> None:
    # On one disk with the installed ones, which are linked here.
    closed = open_folder_on_disk / "venv"
    closed.mkdir(mode=0o700)
    install = packaged().folder.parent
    package = install.parent
    shutil.copytree(install, closed / package.name / install.name, copy_function=os.link, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / libraries.name, copy_function=os.link)
    binaries = Binaries(closed / package.name / install.name / "bin", 18)
    for _ in range(2):
        async with EmbeddedPostgres(open_folder_on_disk / "data", binaries=binaries) as postgres:
            assert await answers(postgres.url, "SELECT 1") == 1
            assert len(list((open_folder_on_disk / "data" / "programs").iterdir())) == 1


async def test_a_normal_user_runs_it_as_themselves(as_root: None, open_folder: Path) -> None:
    user = pwd.getpwnam("daemon")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    data_dir = home / ".local" / "share" / "ydoc-store"
    async with serving(data_dir, as_user=(user.pw_uid, open_folder)) as service:
        assert Path(f"/proc/{service.postgres_pid}").stat().st_uid == user.pw_uid
        assert data_dir.stat().st_mode & 0o777 == 0o700
        # Root keeps its way in, for an operator's psql.
        assert await answers(service.url, "SELECT current_user") == "ydoc"
    async with EmbeddedPostgres(data_dir) as taken_over_by_root:
        assert await answers(taken_over_by_root.url, "SELECT 1") == 1
        assert Path(f"/proc/{taken_over_by_root.pid}").stat().st_uid == user.pw_uid


async def test_a_user_id_without_a_name_is_told_to_get_one(as_root: None, open_folder: Path) -> None:
    os.chown(open_folder, 54321, 54321)
    assert "54321 has no name" in await fails_as(open_folder / "data", as_user=(54321, open_folder))


async def test_somebody_elses_folder_is_refused_by_its_owners_name(as_root: None, data_dir: Path) -> None:
    daemon = pwd.getpwnam("daemon").pw_uid
    async with EmbeddedPostgres(data_dir):
        owner = pwd.getpwuid((data_dir / "postgres").stat().st_uid).pw_name
    assert f"belongs to {owner}" in await fails_as(data_dir, as_user=(daemon, data_dir.parent))


async def test_psql_of_the_package_connects_with_the_url(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await ask(postgres.url, "SELECT 7") == "7"
