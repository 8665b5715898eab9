"""Migrations: each once, in order, by one at a time, and never over an edited file."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.postgres import Cluster
from tests.waiting import until
from ydoc_store.errors import SchemaMismatch, ServerFault
from ydoc_store.storage import migrate as migrate_module
from ydoc_store.storage.migrate import (
    MIGRATION_LOCK,
    migrate,
    migrations_folder,
    pending_migrations,
    read_migrations,
)

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

HEAD = "-- when: before the deployment\n"


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(empty_database_url)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 1, "CREATE TABLE ydoc.one ()")
    write(tmp_path, 2, "CREATE TABLE ydoc.two ()")
    return tmp_path


def write(folder: Path, number: int, sql: str, when: str = "before") -> Path:
    path = folder / f"{number:04}_step.sql"
    path.write_text(f"-- when: {when} the deployment\n{sql};\n")
    return path


async def ledger(connection: Connection) -> list[int]:
    return [row[0] for row in await connection.fetch("SELECT number FROM ydoc.migrations ORDER BY number")]


async def exists(connection: Connection, table: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"ydoc.{table}"))


async def test_an_empty_database_is_brought_up_to_this_release(empty: Connection) -> None:
    names = [path.stem for path in sorted(migrations_folder().glob("*.sql"))]
    assert [migration.name for migration in await pending_migrations(empty)] == names
    done = await migrate(empty)
    assert list(done.applied) == names
    assert done.current == len(names)
    assert await pending_migrations(empty) == []
    assert (await migrate(empty)).applied == ()


async def test_only_what_is_missing_is_applied(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    write(folder, 3, "CREATE TABLE ydoc.three ()", when="after")
    pending = await pending_migrations(empty, folder)
    assert [(migration.number, migration.when) for migration in pending] == [(3, "after")]
    assert (await migrate(empty, folder)).applied == ("0003_step",)
    assert await ledger(empty) == [1, 2, 3]


async def test_an_edited_file_is_refused_and_nothing_is_changed(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    write(folder, 1, "CREATE TABLE ydoc.other ()")
    write(folder, 3, "CREATE TABLE ydoc.three ()")
    with pytest.raises(SchemaMismatch, match="edited"):
        await migrate(empty, folder)
    with pytest.raises(SchemaMismatch, match="edited"):
        await pending_migrations(empty, folder)
    assert not await exists(empty, "three")


async def test_a_renamed_file_is_refused(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    (folder / "0002_step.sql").rename(folder / "0002_renamed.sql")
    with pytest.raises(SchemaMismatch, match="not the file"):
        await migrate(empty, folder)


async def test_line_ends_of_another_system_are_no_edit(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    path = folder / "0001_step.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert (await migrate(empty, folder)).applied == ()


async def test_a_newer_releases_schema_is_served_and_not_migrated(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    (folder / "0002_step.sql").unlink()
    assert await pending_migrations(empty, folder) == []
    with pytest.raises(SchemaMismatch, match="newer release"):
        await migrate(empty, folder)


async def test_a_ledger_with_a_hole_is_refused(empty: Connection, folder: Path) -> None:
    await migrate(empty, folder)
    await empty.execute("DELETE FROM ydoc.migrations WHERE number = 1")
    with pytest.raises(SchemaMismatch, match="lacks 1"):
        await migrate(empty, folder)
    with pytest.raises(SchemaMismatch, match="lacks 1"):
        await pending_migrations(empty, folder)


async def test_a_failure_in_the_middle_leaves_what_was_done_before_and_nothing_of_itself(
    empty: Connection, folder: Path
) -> None:
    write(folder, 3, "CREATE TABLE ydoc.three (); SELECT 1 / 0")
    write(folder, 4, "CREATE TABLE ydoc.four ()")
    with pytest.raises(ServerFault, match="division by zero"):
        await migrate(empty, folder)
    assert await ledger(empty) == [1, 2]
    assert not await exists(empty, "three")
    assert await empty.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    write(folder, 3, "CREATE TABLE ydoc.three ()")
    assert (await migrate(empty, folder)).applied == ("0003_step", "0004_step")


async def test_two_migrations_at_once_take_turns(empty_database_url: str, folder: Path) -> None:
    connections = [await asyncpg.connect(empty_database_url) for _ in range(4)]
    done = await asyncio.gather(*(migrate(connection, folder) for connection in connections))
    assert sorted(len(one.applied) for one in done) == [0, 0, 0, 2]
    assert await ledger(connections[0]) == [1, 2]
    for connection in connections:
        await connection.close()


async def test_a_migration_waits_longer_than_a_connections_patience(
    empty_database_url: str, empty: Connection, folder: Path
) -> None:
    session = {"statement_timeout": "50", "lock_timeout": "50"}
    impatient = await asyncpg.connect(empty_database_url, command_timeout=0.2, server_settings=session)
    write(folder, 3, "SELECT pg_sleep(0.4)")
    await empty.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    migrating = asyncio.create_task(migrate(impatient, folder))
    waiting = "SELECT now() - query_start > interval '300 ms' FROM pg_stat_activity WHERE wait_event = 'advisory'"

    async def waits() -> bool:
        return bool(await empty.fetchval(waiting))

    await until(waits)
    await empty.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
    assert len((await migrating).applied) == 3
    assert await impatient.fetchval("SHOW statement_timeout") == "50ms"
    await impatient.close()


async def test_a_migration_whose_connection_ends_says_so(empty_database_url: str, folder: Path) -> None:
    connection = await asyncpg.connect(empty_database_url)
    write(folder, 3, "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(ServerFault, match="terminating connection"):
        await migrate(connection, folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001_a.sql", "0003_b.sql"], "without a hole"),
        (["0002_a.sql"], "without a hole"),
        (["0001_a.sql", "0001_b.sql"], "repetition"),
        (["1_a.sql"], "named like"),
        (["0001_A.sql"], "named like"),
        (["0001-a.sql"], "named like"),
    ],
)
def test_files_that_break_the_folders_rules_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text(HEAD)
    with pytest.raises(SchemaMismatch, match=message):
        read_migrations(tmp_path)


@pytest.mark.parametrize("text", ["SELECT 1;", "SELECT 1;\n" + HEAD, "-- when: during the deployment\n"])
def test_a_file_says_first_when_it_goes(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001_a.sql").write_text(text)
    with pytest.raises(SchemaMismatch, match="first line"):
        read_migrations(tmp_path)


def test_an_installed_package_brings_its_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = migrations_folder()
    assert (checkout / "0001_documents_and_log.sql").is_file()
    storage = tmp_path / "ydoc_store" / "storage"
    storage.mkdir(parents=True)
    monkeypatch.setattr(migrate_module, "__file__", str(storage / "migrate.py"))
    assert migrations_folder() == tmp_path / "migrations"
    shutil.copytree(checkout, storage / "migrations")
    assert migrations_folder() == storage / "migrations"
    assert read_migrations() == read_migrations(checkout)


def test_no_migration_that_was_committed_was_edited() -> None:
    # An edit would be refused by every database that has it; a correction is a new file.
    repository = Path(__file__).parents[3]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "migrations"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if changed.returncode != 0:
        pytest.skip("this is no checkout")
    assert not [line for line in changed.stdout.splitlines() if line[:2].strip() in ("M", "D")]


async def test_a_database_that_cannot_hold_every_name_is_refused(cluster: Cluster) -> None:
    cluster.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    connection = await asyncpg.connect(cluster.url("latin"))
    try:
        for refusing in (migrate, pending_migrations):
            with pytest.raises(SchemaMismatch, match="LATIN1"):
                await refusing(connection)
        assert not await connection.fetchval("SELECT to_regclass('ydoc.migrations') IS NOT NULL")
    finally:
        await connection.close()
        cluster.drop_database("latin")
