"""A data folder of another major version: refused with the way out, and the way out works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.embedded_client import serving
from ydoc_store.embedded import EmbeddedPostgres
from ydoc_store.embedded.account import choose_account
from ydoc_store.embedded.binaries import packaged, reachable
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.embedded.upgrade import upgrade
from ydoc_store.errors import EmbeddedPostgresFailed


async def answers(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.fixture(params=["data", "with a space"])
async def older(open_folder: Path, request: pytest.FixtureRequest) -> Path:
    """A data folder of Postgres 16 with one committed row."""
    data_dir = open_folder / str(request.param)
    async with EmbeddedPostgres(data_dir, binaries=packaged(16)) as postgres:
        assert postgres.major == 16
        await answers(postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
    return data_dir


async def test_a_folder_of_another_major_is_refused_untouched_and_upgraded_as_the_error_says(older: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match=r"Postgres 16.*python -m ydoc_store\.embedded\.upgrade"):
        await EmbeddedPostgres(older).start()
    done = await upgrade(DataFolder(older))
    assert (done.was, done.kept) == (16, older / "postgres.16")
    async with EmbeddedPostgres(older) as postgres:
        assert await answers(postgres.url, "SHOW server_version_num") >= "180000"
        assert await answers(postgres.url, "SELECT n FROM kept") == 42
    again = await upgrade(DataFolder(older))
    assert (again.was, again.kept) == (18, None)


async def test_a_folder_that_only_other_programs_can_read_is_carried_over_as_the_error_says(older: Path) -> None:
    folder = DataFolder(older)
    with pytest.raises(EmbeddedPostgresFailed) as refused:
        # What a release that brings Postgres 15 alone would say.
        folder.require_major(15)
    start, dump, stop, restore = re.findall(r"`(.+?)`", str(refused.value))
    account = choose_account(folder.cluster)
    theirs = reachable(packaged(16), account, folder.programs).folder
    exchange = older.with_name("exchange")
    exchange.mkdir()
    os.chown(exchange, account.uid, account.gid)
    for command in (start, dump, stop):
        subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=exchange,
            env={"PATH": f"{theirs}:/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            check=True,
            **account.spawn_as(),
        )
    folder.cluster.rename(older.with_name("moved away"))
    async with EmbeddedPostgres(older) as postgres:
        command = restore.replace("URL", f"'{postgres.url}'")
        subprocess.run(["/bin/sh", "-c", command], cwd=exchange, env={"PATH": str(packaged().folder)}, check=True)
        assert await answers(postgres.url, "SELECT n FROM kept") == 42


async def test_a_killed_cluster_is_recovered_before_its_upgrade(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir, binaries=packaged(16))
    await postgres.start()
    await answers(postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    await postgres.stop()
    await upgrade(DataFolder(data_dir))
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await answers(postgres.url, "SELECT n FROM kept") == 42


async def test_a_folder_in_use_is_not_upgraded(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, binaries=packaged(16)) as postgres:
        with pytest.raises(EmbeddedPostgresFailed, match="in use by another ydoc-store"):
            await upgrade(DataFolder(data_dir))
        assert await answers(postgres.url, "SELECT 1") == 1


async def test_a_folder_without_a_cluster_has_nothing_to_upgrade(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match="no cluster to upgrade"):
        await upgrade(DataFolder(data_dir))


async def test_a_running_service_is_untouched_by_a_refused_upgrade(data_dir: Path) -> None:
    async with serving(data_dir) as service:
        assert (await upgrade(DataFolder(data_dir))).kept is None
        assert await answers(service.url, "SELECT 1") == 1
