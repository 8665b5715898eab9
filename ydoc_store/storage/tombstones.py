"""Which documents have been deleted for long enough to go for good. Reads only; purging is epochs.py's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

FIND_OLD_TOMBSTONES = """
SELECT d.id, d.tenant, d.name, d.deleted_at
FROM ydoc.documents AS d
WHERE d.id > $1 AND d.kind = 'document' AND d.replaced_at IS NULL AND d.purged_at IS NULL
    AND d.deleted_at < now() - make_interval(days => $3)
ORDER BY d.id
LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class OldTombstone:
    """A deleted document whose content is still there."""

    document_id: int
    tenant: str
    name: str
    deleted_at: datetime


async def find_old_tombstones(database: Database, after_id: int, *, limit: int, kept_days: int) -> list[OldTombstone]:
    """The next of them by id. Looks past all documents, so it is for a pass now and then."""
    async with database.acquire() as connection:
        with mapping_errors("looking for documents that were deleted long ago"):
            rows = await connection.fetch(FIND_OLD_TOMBSTONES, after_id, limit, kept_days)
    return [OldTombstone(*row) for row in rows]
