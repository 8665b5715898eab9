"""Documents as whoever uses them lists them: names in order, how large, changed when. And one of them, in short.

Reads only, and no document's bytes: sizes come from counters and from the pointers of stored-out values. Where a page
ends is told by a document's id, which says nothing of its name. What operators look at is documents.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

_COLUMNS = """
SELECT d.id, d.name, d.marker, d.epoch, d.head, d.created_at, d.changed_at, d.deleted_at,
    coalesce(octet_length(s.bytes), 0)::bigint + d.accepted_bytes - coalesce(s.merged_bytes, 0) AS size_bytes
FROM ydoc.documents AS d
LEFT JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
"""

FIND_LISTED = _COLUMNS + "WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL\n"

LIST_PAGE = (
    _COLUMNS
    + """WHERE d.tenant = $1 AND d.kind = 'document' AND d.name > $2 AND d.name >= $3
    AND ($4::text IS NULL OR d.name < $4)
    AND d.replaced_at IS NULL AND ($5 OR d.deleted_at IS NULL)
ORDER BY d.name
LIMIT $6
"""
)

FIND_NAME = "SELECT d.name, d.marker FROM ydoc.documents AS d WHERE d.id = $1 AND d.tenant = $2 AND d.kind = 'document'"

ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Listed:
    """A document's current epoch. `size_bytes` is what its size limit is about: the snapshot and the tail."""

    id: int
    name: str
    marker: int
    epoch: int
    head: int
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None
    size_bytes: int


async def find_listed(database: Database, tenant: str, name: str) -> Listed | None:
    """The document under this name, deleted or not; None where nothing was ever accepted under it."""
    async with database.acquire() as connection:
        with mapping_errors(f"looking up {name!r}"):
            row = await connection.fetchrow(FIND_LISTED, tenant, name)
    return None if row is None else Listed(*row)


async def list_page(
    database: Database, tenant: str, *, after_name: str, prefix: str, limit: int, deleted: bool
) -> list[Listed]:
    """The next documents behind `after_name` whose names begin with `prefix`, in the order of their names' bytes;
    those with a tombstone only if asked for."""
    async with database.acquire() as connection:
        with mapping_errors("listing documents"):
            rows = await connection.fetch(LIST_PAGE, tenant, after_name, prefix, after_all(prefix), deleted, limit)
    return [Listed(*row) for row in rows]


async def find_name(database: Database, tenant: str, document_id: int) -> tuple[str, int] | None:
    """What a document of this tenant is called, and its marker; None for an id that is none of its documents'."""
    if not 0 < document_id <= ID_MAX:
        return None
    async with database.acquire() as connection:
        with mapping_errors("looking up where a page ended"):
            row = await connection.fetchrow(FIND_NAME, document_id, tenant)
    return None if row is None else (row["name"], row["marker"])


def after_all(prefix: str) -> str | None:
    """The least text behind all that begins with `prefix`, None where there is none: UTF-8 sorts as code points do."""
    while prefix:
        last = ord(prefix[-1]) + 1
        prefix = prefix[:-1]
        if last <= 0x10FFFF:
            # No text holds a surrogate.
            return prefix + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
    return None
