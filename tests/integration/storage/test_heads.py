"""One look at where all open documents stand."""

from __future__ import annotations

import asyncpg

from tests.log_rows import append, create_document
from ydoc_store.storage.heads import find_created, read_heads
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


async def test_heads_tell_seqs_tombstones_replacements_and_sizes(database: Database, connection: Connection) -> None:
    plain, compacted, deleted, replaced = [await create_document(connection, name) for name in "abcd"]
    await append(connection, plain, [b"one", b"two"])
    await append(connection, compacted, [b"one", b"two", b"three"])
    await connection.execute(
        "INSERT INTO ydoc.snapshots"
        " (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way, superseded_at)"
        " VALUES ($1, 1, 'superseded', '', '', 1, 3, 'fold', now()), ($1, 2, 'snap', '', '', 2, 6, 'fold', NULL)",
        compacted,
    )
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = $1", deleted)
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now() WHERE id = $1", replaced)
    _, heads = await read_heads(database, [plain, compacted, deleted, replaced, 999_999])
    assert set(heads) == {plain, compacted, deleted, replaced}
    assert (heads[plain].seq, heads[plain].size_bytes, heads[plain].tail_bytes) == (2, 6, 6)
    assert (heads[compacted].seq, heads[compacted].size_bytes, heads[compacted].tail_bytes) == (3, 9, 5)
    assert (heads[plain].deleted, heads[plain].replaced) == (False, False)
    assert (heads[deleted].deleted, heads[deleted].replaced) == (True, False)
    assert (heads[replaced].deleted, heads[replaced].replaced) == (False, True)


async def test_a_poll_of_thousands_of_documents_is_one_answer(database: Database, connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, marker)"
        " SELECT 't', number::text, 9007199237963776 FROM generate_series(1, 5000) AS number"
    )
    ids = [row[0] for row in await connection.fetch("SELECT id FROM ydoc.documents")]
    assert len((await read_heads(database, ids))[1]) == 5000
    assert (await read_heads(database, []))[1] == {}


async def test_names_that_exist_by_now_are_found_by_their_place(database: Database, connection: Connection) -> None:
    await create_document(connection, "there")
    await create_document(connection, "gone")
    await create_document(connection, "old")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE name = 'gone'")
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now() WHERE name = 'old'")
    names = [("t", "not there"), ("t", "there"), ("other", "there"), ("t", "gone"), ("t", "old")]
    # A deleted one counts: whoever opens it shall be told.
    assert sorted(await find_created(database, names)) == [1, 3]
