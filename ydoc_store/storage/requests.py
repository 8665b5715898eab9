"""Requests that are done once, whatever repeats them: each is a producer of the document that it changes.

Appends bring theirs in their guard, judged with the batch. Here is what else a key is brought for: a look before the
work, and the note in the transaction of a change that appends nothing, behind the lock of the document's head row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.errors import KeyReused
from ydoc_store.storage.guards import ANOTHER_REQUEST
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.producers import WRITE_PRODUCERS

if TYPE_CHECKING:
    from ydoc_store.storage.guards import Producer
    from ydoc_store.storage.pool import Connection, Database

FIND_REQUEST = "SELECT p.epoch FROM ydoc.producers AS p WHERE p.document_id = $1 AND p.producer_id = $2"


async def was_done(database: Database, document_id: int, request: Producer | None) -> bool:
    """Whether this request was done before; it may be under way. Raises KeyReused where its key was another's,
    StorageUnavailable or StorageBusy."""
    if request is None:
        return False
    async with database.acquire() as connection:
        with mapping_errors("looking up a request"):
            return await is_repeat(connection, document_id, request)


async def is_repeat(connection: Connection, document_id: int, request: Producer | None) -> bool:
    """As `was_done`; under the lock of the head row the answer holds until the transaction ends."""
    if request is None:
        return False
    found = await connection.fetchval(FIND_REQUEST, document_id, request.id)
    if found is not None and found != request.epoch:
        raise KeyReused(ANOTHER_REQUEST)
    return found is not None


async def note_done(connection: Connection, document_id: int, request: Producer | None) -> None:
    """Note in the transaction that does it, under the lock of the head row, that this request is done."""
    if request is not None:
        await connection.execute(WRITE_PRODUCERS, [document_id], [request.id], [request.epoch], [request.seq])
