"""How a document begins before anybody edits it: with its application's first update, or empty; exactly once.

One statement makes the head row and seq 1 together, or does nothing where the name is taken, by a deleted document
too: however many clients arrive at once, on however many nodes, one of them creates it. Appends to what exists are
the appender's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.storage.creating import new_marker
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.yjs.lib0 import frame

if TYPE_CHECKING:
    from ydoc_store.storage.guards import Producer
    from ydoc_store.storage.pool import Database

CREATE_WITH_CONTENT = """
WITH created AS (
    INSERT INTO ydoc.documents (tenant, name, marker, head, accepted_rows, accepted_bytes, keep_deleted)
    VALUES ($1, $2, $3, 1, 1, $4, $7)
    ON CONFLICT DO NOTHING
    RETURNING id
), noted AS (
    INSERT INTO ydoc.commits (tenant, what, document_ids, seqs, counts, actors)
    SELECT $1, e.what, ARRAY[c.id], e.seqs, e.counts, CASE WHEN $5::text IS NOT NULL THEN ARRAY[$5::text] END
    FROM created AS c
    CROSS JOIN (
        VALUES (1, 'created', NULL, NULL), (2, 'append', ARRAY[1]::bigint[], ARRAY[1])
    ) AS e (place, what, seqs, counts)
    ORDER BY e.place
), keyed AS (
    INSERT INTO ydoc.producers (document_id, producer_id, epoch, seq)
    SELECT c.id, $8, $9, $10
    FROM created AS c
    WHERE $8::text IS NOT NULL
)
INSERT INTO ydoc.updates (document_id, seq, count, actor, frames)
SELECT c.id, 1, 1, $5, $6
FROM created AS c
"""

CREATE_EMPTY = """
WITH created AS (
    INSERT INTO ydoc.documents (tenant, name, marker, keep_deleted)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
    RETURNING id, tenant
)
INSERT INTO ydoc.commits (tenant, what, document_ids, actors)
SELECT c.tenant, 'created', ARRAY[c.id], CASE WHEN $5::text IS NOT NULL THEN ARRAY[$5::text] END
FROM created AS c
"""


async def create_empty(
    database: Database, tenant: str, name: str, *, keep_deleted: bool = False, actor: str | None = None
) -> bool:
    """Whether this call created the document, which nothing was accepted for yet; False where there is one already,
    deleted or not.

    Raises StorageUnavailable or StorageBusy; after the former it may have been created all the same.
    """
    async with database.acquire() as connection:
        with mapping_errors(f"creating {name!r}"):
            status = await connection.execute(CREATE_EMPTY, tenant, name, new_marker(), keep_deleted, actor)
    return bool(status == "INSERT 0 1")


async def create_with_content(
    database: Database,
    tenant: str,
    name: str,
    update: bytes,
    actor: str | None,
    *,
    keep_deleted: bool = False,
    producer: Producer | None = None,
) -> bool:
    """Whether this call created the document, with `update` as its seq 1, by `producer`; False where there is one
    already.

    Raises StorageUnavailable or StorageBusy; after the former it may have been created all the same.
    """
    marker = new_marker()
    place = (None, None, None) if producer is None else (producer.id, producer.epoch, producer.seq)
    async with database.acquire() as connection:
        with mapping_errors(f"creating {name!r}"):
            status = await connection.execute(
                CREATE_WITH_CONTENT, tenant, name, marker, len(update), actor, frame(update), keep_deleted, *place
            )
    return bool(status == "INSERT 0 1")
