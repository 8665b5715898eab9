"""Giving a document another name: one transaction over all its epochs, which keep their ids, rows and history.

The name must be free: no document, deleted or not, is or was called so. An append that is under way belongs to the
document's id, so it is either before or behind the new name and lost in neither case. Open rooms of the old name hear
of it by a hint, or by their poll. Access that was taken back from the document stays taken back under the new name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from ydoc_store.errors import DocumentDeleted, NoSuchDocument, StorageBusy, WrongState
from ydoc_store.storage.commits import note_renamed
from ydoc_store.storage.epochs import tell_changed
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.requests import is_repeat, note_done

if TYPE_CHECKING:
    from ydoc_store.storage.guards import Producer
    from ydoc_store.storage.pool import Database

# In the order in which appends lock heads. The name is part of a key: nothing weaker than FOR UPDATE changes it.
LOCK_NAMES = """
SELECT d.id, d.name, d.epoch, d.head, d.deleted_at, d.replaced_at
FROM ydoc.documents AS d
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = ANY ($2::text[])
ORDER BY d.id
FOR UPDATE
"""
SET_NAME = """
UPDATE ydoc.documents
SET name = $2, changed_at = CASE WHEN replaced_at IS NULL THEN now() ELSE changed_at END
WHERE id = ANY ($1::bigint[])
"""
REVOKE_AGAIN = """
INSERT INTO ydoc.revocations (tenant, kind, value, before)
SELECT r.tenant, r.kind, $3, r.before
FROM ydoc.revocations AS r
WHERE r.tenant = $1 AND r.kind = 'document' AND r.value = $2
"""


@dataclass(frozen=True, slots=True)
class Renamed:
    """Where the document was when it got its name; `changed` is False where this request had been done before."""

    epoch: int
    head: int
    changed: bool


async def rename_document(
    database: Database,
    tenant: str,
    name: str,
    new_name: str,
    *,
    actor: str | None = None,
    request: Producer | None = None,
) -> Renamed:
    """From the COMMIT on the document is found under its new name alone. A `request` that was done before changes
    nothing, as long as its document has one of the two names.

    Raises NoSuchDocument, DocumentDeleted, WrongState where the new name is not free, KeyReused, ServerFault.
    """
    with mapping_errors(f"renaming {name!r}"):
        async with database.transaction() as connection:
            rows = await connection.fetch(LOCK_NAMES, tenant, [name, new_name])
            # The new name first: another document may have begun under the old one since.
            for row in sorted(rows, key=lambda row: row["name"] != new_name):
                if row["replaced_at"] is None and await is_repeat(connection, row["id"], request):
                    return Renamed(row["epoch"], row["head"], changed=False)
            ours = [row for row in rows if row["name"] == name]
            if not ours:
                raise NoSuchDocument(f"no document is named {name!r}")
            if len(ours) < len(rows):
                raise WrongState("a document of the new name is there, or was there and is deleted")
            current = next((row for row in ours if row["replaced_at"] is None), None)
            if current is None:
                raise StorageBusy(f"{name!r} was replaced this moment: try again")
            if current["deleted_at"] is not None:
                raise DocumentDeleted(f"{name!r} is deleted")
            try:
                await connection.execute(SET_NAME, [row["id"] for row in ours], new_name)
            except asyncpg.UniqueViolationError:
                # Somebody has begun it behind our look.
                raise WrongState("a document of the new name is there") from None
            await note_done(connection, current["id"], request)
            await connection.execute(REVOKE_AGAIN, tenant, name, new_name)
            await note_renamed(connection, [row["id"] for row in ours], name, actor=actor)
            await tell_changed(connection, current["id"])
    return Renamed(current["epoch"], current["head"], changed=True)
