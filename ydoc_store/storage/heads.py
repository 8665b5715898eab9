"""Where the documents stand: the one query by which a node polls all its rooms.

A hint that never came costs latency up to the poll interval, because this is asked regardless of any hint:
heads, names, tombstones, replaced epochs and sizes of everything that is open here, in one statement, and on the same
connection before it, whether this is still the same database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.incarnation import Incarnation, read_incarnation
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

READ_HEADS = """
SELECT d.id, d.name, d.marker, d.head, d.deleted_at IS NOT NULL AS deleted, d.replaced_at IS NOT NULL AS replaced,
    d.accepted_bytes, coalesce(octet_length(s.bytes), 0) AS snapshot_bytes, coalesce(s.merged_bytes, 0) AS merged,
    d.closed_at IS NOT NULL AS closed
FROM ydoc.documents AS d
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
WHERE d.id = ANY ($1::bigint[])
"""

FIND_CREATED = """
SELECT n.number - 1 AS index
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (tenant, name, number)
JOIN ydoc.documents AS d ON d.tenant = n.tenant AND d.kind = 'document' AND d.name = n.name AND d.replaced_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Head:
    document_id: int
    name: str
    marker: int
    seq: int
    deleted: bool
    replaced: bool
    accepted_bytes: int
    snapshot_bytes: int
    merged_bytes: int
    # a stream that takes nothing more
    closed: bool = False

    @property
    def tail_bytes(self) -> int:
        return self.accepted_bytes - self.merged_bytes

    @property
    def size_bytes(self) -> int:
        """What the document's size limit is about: the snapshot and the tail behind it."""
        return self.snapshot_bytes + self.tail_bytes


async def read_heads(database: Database, document_ids: Sequence[int]) -> tuple[Incarnation, dict[int, Head]]:
    """Which database this is, and the heads of these documents as they are now; one that is gone is left out."""
    async with database.acquire() as connection:
        with mapping_errors("polling the heads"):
            incarnation = await read_incarnation(connection)
            rows = await connection.fetch(READ_HEADS, list(document_ids)) if document_ids else []
    return incarnation, {row[0]: Head(*row) for row in rows}


async def find_created(database: Database, names: Sequence[tuple[str, str]]) -> list[int]:
    """Which of these (tenant, name) exist by now: their indexes."""
    async with database.acquire() as connection:
        with mapping_errors("polling the names"):
            rows = await connection.fetch(FIND_CREATED, [tenant for tenant, _ in names], [name for _, name in names])
    return [row[0] for row in rows]
