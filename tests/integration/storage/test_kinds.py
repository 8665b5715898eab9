"""A stream is no document: what lists, loads, merges, counts or replaces documents does not see it."""

from __future__ import annotations

import asyncpg
import pytest

from tests.log_rows import append, create_document
from ydoc_store.errors import NoSuchDocument
from ydoc_store.storage.backlog import find_backlogs, read_backlog
from ydoc_store.storage.beginnings import create_with_content
from ydoc_store.storage.documents import find_document, list_documents, list_tenants
from ydoc_store.storage.epochs import delete_document, list_epochs, purge_document, recreate_document, undelete_document
from ydoc_store.storage.heads import find_created
from ydoc_store.storage.health import count_larger_than
from ydoc_store.storage.keeping import set_keep_deleted
from ydoc_store.storage.loader import Absent, load
from ydoc_store.storage.past import read_past
from ydoc_store.storage.pool import Database
from ydoc_store.storage.tail import read_for_merge

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


@pytest.fixture
async def stream_id(connection: Connection) -> int:
    """The one thing there is: a stream with three rows."""
    stream_id = await create_document(connection, "name")
    await connection.execute("UPDATE ydoc.documents SET kind = 'stream'")
    await append(connection, stream_id, [b"a", b"b", b"c"])
    return stream_id


async def test_a_stream_is_in_no_list_of_documents_and_is_not_found_by_its_name(
    database: Database, stream_id: int
) -> None:
    assert await list_documents(database, "t", deleted=True) == []
    assert await list_tenants(database) == []
    assert await find_document(database, "t", "name") is None
    assert await load(database, "t", "name") == Absent("t", "name")
    assert await find_created(database, [("t", "name")]) == []
    assert await list_epochs(database, "t", "name") == []
    assert await set_keep_deleted(database, "t", "name", keep_deleted=True) is None
    assert await count_larger_than(database, 1) == 0


async def test_a_stream_is_never_due_and_never_merged(
    database: Database, connection: Connection, stream_id: int
) -> None:
    assert (await find_backlogs(database, 0, 10)).backlogs == []
    assert await read_backlog(connection, stream_id) is None
    assert await read_for_merge(connection, stream_id, rows_max=10, bytes_max=1_000) is None


async def test_a_compactor_that_knows_no_kinds_merges_no_stream(connection: Connection, stream_id: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="a stream is never merged"):
        await connection.execute(
            "INSERT INTO ydoc.snapshots"
            " (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way)"
            " VALUES ($1, 1, '', '', '', 1, 1, 'fold')",
            stream_id,
        )


async def test_what_changes_a_document_changes_no_stream_of_its_name(
    database: Database, connection: Connection, stream_id: int
) -> None:
    for change in (delete_document, undelete_document, recreate_document):
        with pytest.raises(NoSuchDocument):
            await change(database, "t", "name")
    with pytest.raises(NoSuchDocument):
        await purge_document(database, "t", "name", replaced_only=False)
    with pytest.raises(NoSuchDocument):
        await read_past(database, "t", "name", 1)
    assert await connection.fetchval("SELECT head FROM ydoc.documents WHERE id = $1", stream_id) == 3


async def test_a_document_lives_beside_the_stream_of_its_name(
    database: Database, connection: Connection, stream_id: int
) -> None:
    assert await create_with_content(database, "t", "name", b"\0\0", None)
    found = await find_document(database, "t", "name")
    assert found is not None
    assert found.id != stream_id
    assert [document.id for document in await list_documents(database, "t")] == [found.id]
    await delete_document(database, "t", "name")
    await recreate_document(database, "t", "name")
    assert [epoch.epoch for epoch in await list_epochs(database, "t", "name")] == [1, 2]
    await purge_document(database, "t", "name", replaced_only=True)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates WHERE document_id = $1", stream_id) == 3
