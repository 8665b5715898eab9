"""Documents as an operator lists them."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from tests.log_rows import Writer, append, create_document
from tests.statements import prepare_all
from ydoc_store.storage import documents
from ydoc_store.storage.documents import find_document, list_documents
from ydoc_store.storage.pool import Database
from ydoc_store.storage.quarantine import record_failure
from ydoc_store.storage.segments import insert_segment
from ydoc_store.storage.snapshots import NewSnapshot, take_over

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, documents) == ["FIND_DOCUMENT", "LIST_DOCUMENTS", "LIST_TENANTS"]


async def test_snapshot_tail_and_history_bytes_are_told_apart(database: Database, connection: Connection) -> None:
    document_id = await create_document(connection)
    writer = Writer()
    merged, waiting = writer.type_each("abcd"), writer.type_each("ef")
    await append(connection, document_id, merged, a_row=2)
    for after_seq, through_seq in ((0, 2), (2, 4)):
        size = sum(map(len, merged[:through_seq]))
        new = NewSnapshot(document_id, through_seq, b"s" * 100, b"\0", b"\0", through_seq // 2, size, "fold")
        assert await take_over(connection, new, after_seq, keep_base=True)
        await insert_segment(
            connection, document_id, after_seq, through_seq, row_count=1, raw_bytes=60, stored=b"h" * 50
        )
    await connection.execute("DELETE FROM ydoc.updates")
    await append(connection, document_id, waiting)
    await record_failure(connection, document_id, "the worker died", 1)
    found = await find_document(database, "t", "doc")
    assert found is not None
    assert (found.id, found.head, found.snapshot_through_seq, found.snapshot_bytes) == (document_id, 6, 4, 100)
    assert (found.tail_rows, found.tail_bytes) == (2, sum(map(len, waiting)))
    assert found.size_bytes == 100 + found.tail_bytes
    assert (found.history_segments, found.history_bases, found.history_after_seq) == (2, 1, 0)
    assert 200 <= found.history_bytes < 220
    assert (found.failures, found.failure_reason) == (1, "the worker died")
    assert found.quarantined_at is not None
    assert found.tail_since is not None


async def test_a_name_is_found_in_its_tenant_only_and_byte_for_byte(database: Database, connection: Connection) -> None:
    await create_document(connection, "Notes", tenant="a")
    assert await find_document(database, "b", "Notes") is None
    assert await find_document(database, "a", "notes") is None
    assert await find_document(database, "a", "Notes") is not None


async def test_a_list_goes_on_by_name_and_shows_tombstones_only_if_asked(
    database: Database, connection: Connection
) -> None:
    for name in ("b", "a", "c", "Z"):
        await create_document(connection, name)
    await create_document(connection, "a", tenant="other")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE name = 'b'")
    first = await list_documents(database, "t", limit=2)
    assert [document.name for document in first] == ["Z", "a"]
    rest = await list_documents(database, "t", after_name="a")
    assert [document.name for document in rest] == ["c"]
    everything = await list_documents(database, "t", deleted=True)
    assert [document.name for document in everything] == ["Z", "a", "b", "c"]
