"""Two questions of the health checks: does the database answer, and how many documents near their limit?

Nothing here reads the log or a document's bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

ANSWER = "SELECT 1"

# octet_length of a stored-out value is in its pointer, so the snapshots themselves are not read.
COUNT_LARGER_THAN = """
SELECT count(*)
FROM ydoc.documents AS d
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
WHERE d.kind = 'document' AND d.deleted_at IS NULL AND d.replaced_at IS NULL
  AND coalesce(octet_length(s.bytes), 0) + d.accepted_bytes - coalesce(s.merged_bytes, 0) >= $1
"""


async def answer(database: Database) -> None:
    """Returns when the database answered. Raises StorageUnavailable or StorageBusy when it did not."""
    async with database.acquire() as connection:
        with mapping_errors("asking the database"):
            await connection.execute(ANSWER)


async def count_larger_than(database: Database, size_bytes: int) -> int:
    """How many documents have at least `size_bytes`, snapshot and tail together."""
    async with database.acquire() as connection:
        with mapping_errors("counting large documents"):
            return int(await connection.fetchval(COUNT_LARGER_THAN, size_bytes))
