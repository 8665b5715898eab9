"""What a test finds in the database, with eyes of its own: heads, rows, and whether every seq is there once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from ydoc_store.storage.segments import inflate, unpack_rows
from ydoc_store.yjs.lib0 import frames

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

# What of each document's log lies where: merged rows in segments, the tail as it is. Each piece is (from, to].
PIECES = """
SELECT g.document_id, g.after_seq, g.through_seq FROM ydoc.segments AS g
UNION ALL
SELECT u.document_id, u.seq - u.count, u.seq FROM ydoc.updates AS u
"""
BROKEN_SEQS = f"""
SELECT d.name, p.after_seq, p.through_seq, p.expected
FROM (
    SELECT p.document_id, p.after_seq, p.through_seq,
        lag(p.through_seq, 1, 0) OVER (PARTITION BY p.document_id ORDER BY p.through_seq, p.after_seq) AS expected
    FROM ({PIECES}) AS p
) AS p
JOIN ydoc.documents AS d ON d.id = p.document_id
WHERE p.after_seq <> p.expected
UNION ALL
SELECT d.name, d.head, d.head, coalesce(max(p.through_seq), 0)
FROM ydoc.documents AS d
LEFT JOIN ({PIECES}) AS p ON p.document_id = d.id
GROUP BY d.id
HAVING d.head <> coalesce(max(p.through_seq), 0)
"""

# As a restore to the moment before it leaves a document, with everything that is counted of it: bytes without the
# length before each update, which is one byte for a short one.
LOSE_LAST_ROW = """
WITH last AS (SELECT d.id, d.head FROM ydoc.documents AS d WHERE d.name = $1),
lost AS (
    DELETE FROM ydoc.updates AS u USING last WHERE u.document_id = last.id AND u.seq = last.head
    RETURNING u.document_id, u.count, octet_length(u.frames) - u.count AS size
)
UPDATE ydoc.documents AS d
SET head = d.head - lost.count, accepted_rows = d.accepted_rows - 1, accepted_bytes = d.accepted_bytes - lost.size
FROM lost
WHERE d.id = lost.document_id
"""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a document stands: how many updates were accepted, and in how many rows."""

    document_id: int
    seq: int
    rows: int


@contextlib.asynccontextmanager
async def connecting(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def head_of(connection: Connection, name: str) -> Head:
    row = await connection.fetchrow("SELECT id, head, accepted_rows FROM ydoc.documents WHERE name = $1", name)
    assert row is not None, f"no document {name!r}"
    return Head(*row)


async def names(connection: Connection) -> set[str]:
    return {row["name"] for row in await connection.fetch("SELECT name FROM ydoc.documents")}


async def broken_seqs(connection: Connection) -> list[tuple[str, int, int, int]]:
    """Where a seq is missing or stands twice, over history and tail; needs a history that nobody has dropped."""
    return [tuple(row) for row in await connection.fetch(BROKEN_SEQS)]


async def log_of(connection: Connection, document_id: int) -> list[bytes]:
    """Every update ever accepted, in seq order, from history and tail."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        segments = await connection.fetch(
            "SELECT bytes FROM ydoc.segments WHERE document_id = $1 ORDER BY through_seq", document_id
        )
        tail = await connection.fetch(
            "SELECT frames FROM ydoc.updates WHERE document_id = $1 ORDER BY seq", document_id
        )
    merged = [row.frames for segment in segments for row in unpack_rows(inflate(segment["bytes"]))]
    return [update for row in (*merged, *(row["frames"] for row in tail)) for update in frames(row)]


async def is_compacted(connection: Connection, times: int = 1) -> bool:
    """Whether so many compactions of any documents are done."""
    done: int = await connection.fetchval("SELECT count(*) FROM ydoc.compactions WHERE result = 'done'")
    return done >= times


async def compactions_of(connection: Connection, document_id: int) -> dict[str, int]:
    """How many compactions ended how."""
    rows = await connection.fetch(
        "SELECT result, count(*) FROM ydoc.compactions WHERE document_id = $1 GROUP BY result", document_id
    )
    return {row["result"]: row["count"] for row in rows}
