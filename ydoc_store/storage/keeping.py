"""Whether a document keeps its deleted content, which editors that run with `gc: false` need for their versions.

The compactor reads it with each tail. What a compaction has dropped already does not come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

SET_KEEP_DELETED = """
UPDATE ydoc.documents AS d
SET keep_deleted = $3
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL
RETURNING d.id
"""


async def set_keep_deleted(database: Database, tenant: str, name: str, keep_deleted: bool) -> int | None:
    """From the next compaction on; returns the document's id, None where nothing was ever accepted under this name.

    Waits for the commit in flight on this document, no longer than the lock time-out: StorageBusy then.
    """
    async with database.acquire() as connection:
        with mapping_errors(f"setting whether {name!r} keeps its deleted content"):
            document_id: int | None = await connection.fetchval(SET_KEEP_DELETED, tenant, name, keep_deleted)
    return document_id
