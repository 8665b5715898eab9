"""What an error says about the append that it ended: rolled back for certain, or unknown.

On this alone rests whether the same updates may be tried again: an unknown batch never is. And the look at who holds
a head, by which a lane finds the document that its batch was rolled back for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

import asyncpg

from ydoc_store.errors import CommitUnknown, ServerFault, StorageBusy, StorageUnavailable

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

# Which of these heads nobody holds right now.
FIND_FREE_HEADS = """
SELECT d.id
FROM ydoc.documents AS d
WHERE d.id = ANY ($1::bigint[])
ORDER BY d.id
FOR NO KEY UPDATE SKIP LOCKED
"""


def outcome_of(error: Exception) -> ServerFault:
    """What this error says about the transaction: rolled back for certain, or unknown."""
    words = str(error) or type(error).__name__
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return StorageUnavailable(f"this server takes no writes: {words}")
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError):
        # A session that is ended may have written its commit record before; a query that is cancelled has not.
        ended = getattr(error, "severity_en", None) in ("FATAL", "PANIC")
        shut_down = isinstance(error, asyncpg.OperatorInterventionError)
        if not ended and (not shut_down or isinstance(error, asyncpg.QueryCanceledError)):
            return StorageBusy(f"the append was rolled back: {words}")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # A value that cannot be encoded: asyncpg found it before it sent the statement.
        return StorageBusy(f"the append was never sent: {words}")
    return CommitUnknown(f"no answer to the commit: {words}")


async def find_free_heads(connection: Connection, document_ids: Collection[int], *, timeout_s: float) -> set[int]:
    """Those of these documents whose heads nobody holds at this moment. Raises as `append_batch`."""
    try:
        async with asyncio.timeout(timeout_s):
            return {row[0] for row in await connection.fetch(FIND_FREE_HEADS, list(document_ids))}
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise outcome_of(error) from error
