"""Least privilege: the three roles of `grant-sql` do their work, and cannot do each other's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from pycrdt import Text

from compactor.farewell import Farewell
from compactor.retention import Retention
from tests.interop.editors import editing
from tests.postgres import Cluster
from tests.service import BUSIEST_COMPACTION, STORE, compacting, run, serving, verify
from ydoc_store.client import connect
from ydoc_store.errors import SettingInvalid
from ydoc_store.storage.beginnings import create_with_content
from ydoc_store.storage.epochs import delete_document, purge_document, recreate_document, undelete_document
from ydoc_store.storage.pool import Database
from ydoc_store.storage.renaming import rename_document
from ydoc_store.storage.roles import COMPACTOR, RELAY, Roles, grant_sql
from ydoc_store.storage.streams import StreamSettings, create_stream, delete_stream

pytestmark = pytest.mark.pg15


@pytest.fixture
async def granted(start_cluster: Callable[..., Cluster]) -> Callable[[str], str]:
    """The URL of a migrated database for a login that is a member of nothing but the role that is named."""
    cluster = start_cluster()
    cluster.create_template()
    database = cluster.create_database()
    sql = (await run(*STORE, "grant-sql")).output
    # A second time, as after an upgrade.
    for _ in range(2):
        cluster.execute(sql, database)
    for role in ("ydoc_migrations", "ydoc_relay", "ydoc_compactor"):
        cluster.execute(f"CREATE ROLE {role}_login LOGIN IN ROLE {role}")
    # The migrations role makes the schema of a new database, too.
    cluster.execute(f'GRANT CREATE ON DATABASE "{database}" TO ydoc_migrations')
    return lambda role: cluster.url(database).replace("//ydoc@", f"//{role}_login@")


async def test_editors_compactor_and_migrations_work_under_their_own_roles(
    granted: Callable[[str], str], tmp_path: Path
) -> None:
    migrated = await run(*STORE, "migrate", "--database-url", granted("ydoc_migrations"))
    assert migrated.exit_code == 0, migrated.messages
    async with (
        serving(tmp_path, database_url=granted("ydoc_relay"), arguments=["--no-compactor"]) as service,
        compacting(tmp_path, granted("ydoc_compactor"), BUSIEST_COMPACTION),
        editing() as editors,
    ):
        ann = await editors.open_synced(service.url, "notes")
        ben = await editors.open_synced(service.url, "notes")
        text = ""
        for number in range(30):
            await ann.type(f"{number} ")
            text += f"{number} "
            await ben.shows(text)
        assert await (await editors.open_synced(service.url, "notes")).text() == text
    made = await run(*STORE, "revoke", "--user", "ann", "--database-url", granted("ydoc_relay"))
    assert made.exit_code == 0, made.messages
    verified = await verify(granted("ydoc_relay"))
    assert verified.exit_code == 0, verified.messages + verified.output


async def test_documents_are_renamed_deleted_begun_anew_and_purged_under_those_roles(
    granted: Callable[[str], str],
) -> None:
    migrated = await run(*STORE, "migrate", "--database-url", granted("ydoc_migrations"))
    assert migrated.exit_code == 0, migrated.messages
    relay = await Database.open(granted("ydoc_relay"))
    compactor = await Database.open(granted("ydoc_compactor"))
    try:
        await create_with_content(relay, "default", "old", b"\0\0", "ann")
        await rename_document(relay, "default", "old", "new")
        await delete_document(relay, "default", "new")
        await undelete_document(relay, "default", "new")
        await delete_document(relay, "default", "new")
        assert (await purge_document(compactor, "default", "new", replaced_only=False)).updates == 1
        assert await Farewell(compactor, kept_days=0).purge_some() == 0
        assert (await recreate_document(relay, "default", "new")).epoch == 2
    finally:
        await relay.close()
        await compactor.close()


async def test_streams_live_die_and_are_forgotten_under_those_roles(granted: Callable[[str], str]) -> None:
    migrated = await run(*STORE, "migrate", "--database-url", granted("ydoc_migrations"))
    assert migrated.exit_code == 0, migrated.messages
    relay = await Database.open(granted("ydoc_relay"))
    compactor = await Database.open(granted("ydoc_compactor"))
    owner = await asyncpg.connect(granted("ydoc_migrations"))
    try:
        settings = StreamSettings("text/plain")
        for epoch in (1, 2):
            stream, _ = await create_stream(relay, "default", "s", settings, first=b"a", actor=None, closed=False)
            assert stream.epoch == epoch
            await delete_stream(relay, "default", "s")
            retention = Retention(compactor, history_days=0, bases_min=1)
            assert (await retention.drop_some()).streams == 1
            await owner.execute("UPDATE ydoc.streams SET purged_at = now() - interval '8 days'")
            retention = Retention(compactor, history_days=0, bases_min=1)
            assert (await retention.drop_some()).tombstones == 1
    finally:
        await owner.close()
        await relay.close()
        await compactor.close()


async def test_editors_are_served_before_the_rights_of_a_new_release_are_granted(
    granted: Callable[[str], str], tmp_path: Path
) -> None:
    migrated = await run(*STORE, "migrate", "--database-url", granted("ydoc_migrations"))
    assert migrated.exit_code == 0, migrated.messages
    owner = await asyncpg.connect(granted("ydoc_migrations"))
    try:
        await owner.execute("REVOKE ALL ON ydoc.timelines, ydoc.stream_epochs FROM ydoc_relay, ydoc_compactor")
    finally:
        await owner.close()
    async with serving(tmp_path, database_url=granted("ydoc_relay"), arguments=["--no-compactor"]) as service:
        async with connect(f"ws://127.0.0.1:{service.port}/hocuspocus", "notes") as document:
            document.ydoc.get("text", type=Text).insert(0, "hello")
            await document.saved(timeout_s=30)
        assert "timeline not noted" in service.log_text()


REFUSED = [
    ("ydoc_relay", "SELECT ydoc.drop_stream_tombstones(0, 1)"),
    ("ydoc_relay", "UPDATE ydoc.stream_epochs SET spent = 0"),
    ("ydoc_compactor", "DELETE FROM ydoc.streams"),
    ("ydoc_compactor", "UPDATE ydoc.stream_epochs SET spent = 0"),
    ("ydoc_relay", "DELETE FROM ydoc.updates"),
    ("ydoc_relay", "UPDATE ydoc.updates SET frames = ''"),
    ("ydoc_relay", "DELETE FROM ydoc.documents"),
    ("ydoc_relay", "UPDATE ydoc.documents SET marker = marker"),
    ("ydoc_relay", "UPDATE ydoc.documents SET epoch = 2"),
    ("ydoc_relay", "UPDATE ydoc.streams SET content_type = 'text/html'"),
    ("ydoc_relay", "DELETE FROM ydoc.producers"),
    ("ydoc_relay", "DELETE FROM ydoc.snapshots"),
    ("ydoc_relay", "DELETE FROM ydoc.segments"),
    ("ydoc_relay", "DELETE FROM ydoc.commits"),
    ("ydoc_relay", "UPDATE ydoc.timelines SET began_at = '0/0'"),
    ("ydoc_relay", "UPDATE ydoc.commits SET what = 'created'"),
    ("ydoc_relay", "CREATE TABLE ydoc.mine ()"),
    ("ydoc_relay", "DROP TABLE ydoc.updates"),
    ("ydoc_relay", "TRUNCATE ydoc.updates"),
    ("ydoc_compactor", "INSERT INTO ydoc.updates (document_id, seq, count, frames) VALUES (1, 1, 1, 'x')"),
    ("ydoc_compactor", "UPDATE ydoc.documents SET marker = marker"),
    ("ydoc_compactor", "UPDATE ydoc.documents SET deleted_at = now()"),
    ("ydoc_compactor", "UPDATE ydoc.documents SET name = 'another'"),
    ("ydoc_compactor", "UPDATE ydoc.producers SET seq = 0"),
    ("ydoc_compactor", "INSERT INTO ydoc.producers (document_id, producer_id, epoch, seq) VALUES (1, 'p', 0, 0)"),
    ("ydoc_compactor", "DELETE FROM ydoc.documents"),
    ("ydoc_compactor", "SELECT * FROM ydoc.revocations"),
    ("ydoc_compactor", "UPDATE ydoc.commits SET what = 'created'"),
    ("ydoc_compactor", "CREATE TABLE ydoc.mine ()"),
    ("ydoc_compactor", "ALTER TABLE ydoc.updates ADD mine integer"),
]


async def test_nobody_can_do_anothers_work(granted: Callable[[str], str]) -> None:
    for role, sql in REFUSED:
        connection = await asyncpg.connect(granted(role))
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
        finally:
            await connection.close()


async def test_every_table_is_granted_or_withheld_on_purpose(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ydoc'")
    finally:
        await connection.close()
    tables = {row[0] for row in rows}
    assert set(RELAY) == tables
    assert set(COMPACTOR) == tables


@pytest.mark.parametrize("name", ["", "Ydoc", "a b", "a;DROP TABLE x", "1a", "x" * 64])
def test_a_role_whose_name_would_need_quotes_is_refused(name: str) -> None:
    with pytest.raises(SettingInvalid):
        grant_sql(Roles(relay=name))
