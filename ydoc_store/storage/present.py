"""Documents as a list shows them: what is there now, by page or by name. Deleted ones are not there.

Reads only, one index probe a document; no document's bytes are read. What is told is committed, and said before which
place of the WAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.timelines import READ_THROUGH_LSN

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

_COLUMNS = """
SELECT d.name, d.epoch, d.head, d.created_at, d.changed_at,
    coalesce(octet_length(s.bytes), 0) + d.accepted_bytes - coalesce(s.merged_bytes, 0) AS size_bytes
FROM ydoc.documents AS d
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
"""
LIST_PRESENT = (
    _COLUMNS
    + """WHERE d.tenant = $1 AND d.kind = 'document' AND d.name > $2 AND d.replaced_at IS NULL AND d.deleted_at IS NULL
ORDER BY d.name
LIMIT $3
"""
)
FIND_PRESENT = (
    _COLUMNS
    + """WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = ANY ($2::text[])
    AND d.replaced_at IS NULL AND d.deleted_at IS NULL
"""
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A document that is there: its current epoch, its head, and its size as a reader gets it."""

    name: str
    epoch: int
    head: int
    created_at: datetime
    changed_at: datetime
    size_bytes: int


async def list_present(database: Database, tenant: str, after_name: str, limit: int) -> tuple[list[Listed], int]:
    """The next of a tenant's documents in name order behind `after_name`, and the place of the WAL. Raises
    ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("listing documents"):
            rows = await connection.fetch(LIST_PRESENT, tenant, after_name, limit)
            return [Listed(*row) for row in rows], await connection.fetchval(READ_THROUGH_LSN)


async def find_present(database: Database, tenant: str, names: Sequence[str]) -> tuple[dict[str, Listed], int]:
    """Those of these documents that are there, by name, and the place of the WAL. Raises ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("looking documents up"):
            rows = await connection.fetch(FIND_PRESENT, tenant, list(names))
            return {row["name"]: Listed(*row) for row in rows}, await connection.fetchval(READ_THROUGH_LSN)
