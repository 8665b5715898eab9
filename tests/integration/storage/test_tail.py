"""The rows behind a snapshot, read as one value and deleted exactly."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import pytest

from tests.log_rows import Writer, append, create_document
from tests.statements import prepare_all
from ydoc_store.storage import tail
from ydoc_store.storage.segments import HistoryRow, pack_row, unpack_updates
from ydoc_store.storage.tail import delete_merged, read_for_merge

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, tail) == ["DELETE_MERGED", "READ_FOR_MERGE"]


async def test_postgres_packs_rows_just_as_the_documented_format_says(connection: Connection) -> None:
    document_id = await create_document(connection)
    writer = Writer()
    await append(connection, document_id, writer.type_each("abc"), a_row=2, actor="änn")
    await append(connection, document_id, writer.type_each("d"))
    rows = await connection.fetch("SELECT seq, count, actor, accepted_at, frames FROM ydoc.updates ORDER BY seq")
    found = await read_for_merge(connection, document_id, rows_max=10, bytes_max=10_000)
    assert found is not None
    assert found.packed_rows == b"".join(pack_row(HistoryRow(*row)) for row in rows)
    assert (found.after_seq, found.through_seq, found.head, found.row_count) == (0, 4, 4, 3)
    assert (found.snapshot, found.merged_rows, found.merged_bytes) == (None, 0, 0)


@pytest.mark.parametrize(
    ("rows_max", "bytes_max", "through_seq"), [(2, 10_000, 2), (10, 1, 1), (10, 45, 2), (10, 10_000, 5)]
)
async def test_a_read_is_bounded_in_rows_and_bytes_and_takes_at_least_one_row(
    connection: Connection, rows_max: int, bytes_max: int, through_seq: int
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, [bytes((30,)) * 30 for _ in range(5)])
    found = await read_for_merge(connection, document_id, rows_max=rows_max, bytes_max=bytes_max)
    assert found is not None
    assert found.through_seq == through_seq
    updates, row_count, last = unpack_updates(found.packed_rows, 0)
    assert (len(updates), row_count, last) == (through_seq, through_seq, through_seq)


async def test_an_empty_tail_and_a_document_that_is_gone_read_as_nothing(connection: Connection) -> None:
    document_id = await create_document(connection)
    assert await read_for_merge(connection, document_id, rows_max=10, bytes_max=10_000) is None
    assert await read_for_merge(connection, document_id + 1, rows_max=10, bytes_max=10_000) is None


async def test_the_delete_takes_the_rows_of_its_range_and_of_its_document_only(connection: Connection) -> None:
    updates = Writer().type_each("abcdef")
    first, second = [await create_document(connection, name) for name in ("first", "second")]
    for document_id in (first, second):
        await append(connection, document_id, updates, a_row=2)
    assert await delete_merged(connection, first, 2, 4) == 1
    left = await connection.fetch("SELECT document_id, seq FROM ydoc.updates ORDER BY 1, 2")
    assert [tuple(row) for row in left] == [(first, 2), (first, 6), (second, 2), (second, 4), (second, 6)]
