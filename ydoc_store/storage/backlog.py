"""Which documents have a tail, and how large it is, without reading the log.

A loose index scan hops from document to document along the log's primary key: one probe a document that has a
tail, whatever its tail is. Sizes are differences of counters, the head row's less the snapshot's, so no row of
the log is read but the oldest of each tail, for its age. No index over the head row's counters: it would make
every append's UPDATE touch an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Connection, Database

# An age below 0 would come from a clock that was set back since; pg_column_size reads no stored-out value.
_SIZES = """
    d.name,
    d.accepted_rows - coalesce(s.merged_rows, 0) AS rows,
    d.accepted_bytes - coalesce(s.merged_bytes, 0) AS bytes,
    CASE WHEN o.accepted_at < now() THEN extract(epoch FROM now() - o.accepted_at)
        WHEN o.accepted_at IS NOT NULL THEN 0 END::double precision AS age_s,
    coalesce(pg_column_size(s.bytes), 0)::bigint AS snapshot_bytes,
    q.quarantined_at IS NOT NULL AS quarantined
"""
_JOINS = """
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
LEFT JOIN ydoc.quarantines AS q ON q.document_id = d.id
LEFT JOIN LATERAL (
    SELECT u.accepted_at
    FROM ydoc.updates AS u
    WHERE u.document_id = d.id AND u.seq > coalesce(s.through_seq, 0)
    ORDER BY u.seq
    LIMIT 1
) AS o ON true
"""

_PAGE = """
WITH RECURSIVE found (document_id, number) AS (
    (SELECT u.document_id, 1 FROM ydoc.updates AS u WHERE u.document_id > $1 ORDER BY u.document_id LIMIT 1)
    UNION ALL
    SELECT n.document_id, f.number + 1
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT u.document_id
        FROM ydoc.updates AS u
        WHERE u.document_id > f.document_id
        ORDER BY u.document_id
        LIMIT 1
    ) AS n
    WHERE f.number < $2
), page AS MATERIALIZED (
    SELECT f.document_id FROM found AS f
)
"""

# Every document of the page comes back, those of no interest without sizes: the last one is where the next begins.
FIND_BACKLOGS = (
    _PAGE
    + "SELECT p.document_id,"
    + _SIZES
    + """
FROM page AS p
LEFT JOIN ydoc.documents AS d
    ON d.id = p.document_id AND d.kind = 'document' AND d.deleted_at IS NULL AND d.replaced_at IS NULL"""
    + _JOINS
    + "ORDER BY p.document_id\n"
)

READ_BACKLOG = (
    "SELECT d.id AS document_id,"
    + _SIZES
    + "FROM ydoc.documents AS d"
    + _JOINS
    + "WHERE d.id = $1 AND d.kind = 'document' AND d.deleted_at IS NULL AND d.replaced_at IS NULL\n"
)


@dataclass(frozen=True, slots=True)
class DocumentBacklog:
    """The tail of one document: rows, bytes of updates, age of the oldest in seconds; the snapshot as stored."""

    document_id: int
    name: str
    rows: int
    bytes: int
    age_s: float
    snapshot_bytes: int
    quarantined: bool


@dataclass(frozen=True, slots=True)
class BacklogPage:
    """The backlogs that one look found; the next begins behind `next_after_id`, None at the end of the log."""

    backlogs: list[DocumentBacklog]
    next_after_id: int | None


async def find_backlogs(database: Database, after_id: int, limit: int) -> BacklogPage:
    """The backlogs of the next `limit` documents that have one, in id order behind `after_id`.

    Quarantined documents are marked; deleted and replaced ones are left out, and streams, which are never merged.
    """
    async with database.acquire() as connection:
        with mapping_errors("looking for backlogs"):
            rows = await connection.fetch(FIND_BACKLOGS, after_id, limit)
    backlogs = [_backlog(row) for row in rows if row["rows"] is not None and row["age_s"] is not None]
    return BacklogPage(backlogs, rows[-1]["document_id"] if len(rows) == limit else None)


async def read_backlog(connection: Connection, document_id: int) -> DocumentBacklog | None:
    """The backlog of one document, None where its tail is empty or it is deleted. Raises asyncpg's errors."""
    row = await connection.fetchrow(READ_BACKLOG, document_id)
    return None if row is None or row["age_s"] is None else _backlog(row)


def _backlog(row: asyncpg.Record) -> DocumentBacklog:
    return DocumentBacklog(
        row["document_id"],
        row["name"],
        row["rows"],
        row["bytes"],
        row["age_s"],
        row["snapshot_bytes"],
        row["quarantined"],
    )
