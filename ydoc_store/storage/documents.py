"""Documents as an operator lists them: what each takes, what waits, and whether the compactor has given up on it.

Snapshot, tail and history bytes are told apart: the first two are the document, the third goes with its window.
Reads only. Sizes come from counters and from the pointers of stored-out values, so no document's bytes are read.
What readers and rooms load is the loader's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

_COLUMNS = """
SELECT d.id, d.tenant, d.name, d.epoch, d.marker, d.head, d.keep_deleted, d.created_at, d.changed_at, d.deleted_at,
    s.through_seq AS snapshot_through_seq,
    s.way AS snapshot_way,
    s.created_at AS snapshot_created_at,
    coalesce(octet_length(s.bytes), 0)::bigint AS snapshot_bytes,
    coalesce(pg_column_size(s.bytes), 0)::bigint AS snapshot_stored_bytes,
    d.accepted_rows - coalesce(s.merged_rows, 0) AS tail_rows,
    d.accepted_bytes - coalesce(s.merged_bytes, 0) AS tail_bytes,
    o.accepted_at AS tail_since,
    coalesce(g.segments, 0) AS history_segments,
    coalesce(b.bases, 0) AS history_bases,
    coalesce(g.bytes, 0)::bigint + coalesce(b.bytes, 0)::bigint AS history_bytes,
    g.after_seq AS history_after_seq,
    coalesce(q.failures, 0) AS failures,
    q.reason AS failure_reason,
    q.quarantined_at,
    d.purged_at
FROM ydoc.documents AS d
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
LEFT JOIN ydoc.quarantines AS q ON q.document_id = d.id
LEFT JOIN LATERAL (
    SELECT u.accepted_at
    FROM ydoc.updates AS u
    WHERE u.document_id = d.id AND u.seq > coalesce(s.through_seq, 0)
    ORDER BY u.seq
    LIMIT 1
) AS o ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS segments, sum(octet_length(h.bytes)) AS bytes, min(h.after_seq) AS after_seq
    FROM ydoc.segments AS h
    WHERE h.document_id = d.id
) AS g ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS bases, sum(pg_column_size(k.bytes)) AS bytes
    FROM ydoc.snapshots AS k
    WHERE k.document_id = d.id AND k.superseded_at IS NOT NULL
) AS b ON true
"""

FIND_DOCUMENT = _COLUMNS + "WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL\n"

LIST_DOCUMENTS = (
    _COLUMNS
    + """WHERE d.tenant = $1 AND d.kind = 'document' AND d.name > $2 AND d.replaced_at IS NULL
    AND ($4 OR d.deleted_at IS NULL)
ORDER BY d.name
LIMIT $3
"""
)


LIST_TENANTS = """
WITH RECURSIVE found (tenant) AS (
    (SELECT d.tenant FROM ydoc.documents AS d WHERE d.kind = 'document' ORDER BY d.tenant LIMIT 1)
    UNION ALL
    SELECT (
        SELECT d.tenant
        FROM ydoc.documents AS d
        WHERE d.tenant > f.tenant AND d.kind = 'document'
        ORDER BY d.tenant
        LIMIT 1
    )
    FROM found AS f
    WHERE f.tenant IS NOT NULL
)
SELECT f.tenant
FROM found AS f
WHERE f.tenant IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Document:
    """The current epoch of a document, as stored. Bytes are of updates and snapshots as a reader gets them;
    `snapshot_stored_bytes` and `history_bytes` are what they take on disk.

    `tail_since` is when the oldest row of the tail was accepted. History can be replayed from `history_after_seq`
    on, None where there is none. `quarantined_at` is set once the compactor leaves the document alone, `purged_at` once
    of a deleted document nothing but the tombstone is left.
    """

    id: int
    tenant: str
    name: str
    epoch: int
    marker: int
    head: int
    keep_deleted: bool
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None
    snapshot_through_seq: int | None
    snapshot_way: str | None
    snapshot_created_at: datetime | None
    snapshot_bytes: int
    snapshot_stored_bytes: int
    tail_rows: int
    tail_bytes: int
    tail_since: datetime | None
    history_segments: int
    history_bases: int
    history_bytes: int
    history_after_seq: int | None
    failures: int
    failure_reason: str | None
    quarantined_at: datetime | None
    purged_at: datetime | None

    @property
    def size_bytes(self) -> int:
        """What the document's size limit is about: the snapshot and the tail behind it."""
        return self.snapshot_bytes + self.tail_bytes


async def find_document(database: Database, tenant: str, name: str) -> Document | None:
    """The document under this name, deleted or not, or None where nothing was ever accepted under it."""
    async with database.acquire() as connection:
        with mapping_errors(f"looking up {name!r}"):
            row = await connection.fetchrow(FIND_DOCUMENT, tenant, name)
    return None if row is None else Document(*row)


async def list_documents(
    database: Database, tenant: str, *, after_name: str = "", limit: int = 1_000, deleted: bool = False
) -> list[Document]:
    """The next documents of a tenant in name order behind `after_name`; those with a tombstone only if asked for."""
    async with database.acquire() as connection:
        with mapping_errors("listing documents"):
            rows = await connection.fetch(LIST_DOCUMENTS, tenant, after_name, limit, deleted)
    return [Document(*row) for row in rows]


async def list_tenants(database: Database) -> list[str]:
    """Every tenant that has a document, deleted or not, in order. One probe of the index a tenant."""
    async with database.acquire() as connection:
        with mapping_errors("listing tenants"):
            return [row[0] for row in await connection.fetch(LIST_TENANTS)]
