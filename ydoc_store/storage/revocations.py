"""Access that was taken back: one row a user, a document or a whole tenant, for as long as a token may live.

Every node reads all rows that count, once a poll; there are as many as accidents in a day. What a row does to a
connection is `auth.revocations`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

Kind = Literal["user", "document", "tenant"]

INSERT_REVOCATION = """
INSERT INTO ydoc.revocations (tenant, kind, value, before)
VALUES ($1, $2, $3, coalesce($4, now()))
RETURNING id, tenant, kind, value, before, created_at
"""

# No token that was issued before it can still be in force.
DELETE_OUTLIVED = """
DELETE FROM ydoc.revocations AS r
WHERE r.before < now() - make_interval(secs => $1)
"""

DELETE_REVOCATION = """
DELETE FROM ydoc.revocations AS r
WHERE r.id = $1 AND ($2::text IS NULL OR r.tenant = $2)
"""

LIST_REVOCATIONS = """
SELECT r.id, r.tenant, r.kind, r.value, r.before, r.created_at
FROM ydoc.revocations AS r
WHERE r.before >= now() - make_interval(secs => $1) AND ($2::text IS NULL OR r.tenant = $2)
ORDER BY r.id
"""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens of this user, for this document or of this tenant that were issued before `before` are refused."""

    id: int
    tenant: str
    kind: Kind
    value: str
    before: datetime
    created_at: datetime


async def insert_revocation(
    database: Database, tenant: str, kind: Kind, value: str, before: datetime | None, *, lifetime_s_max: float
) -> Revocation:
    """From now on, or from `before`, on every node within a poll's interval. Drops the rows that were outlived."""
    async with database.transaction() as connection:
        with mapping_errors("taking access back"):
            await connection.execute(DELETE_OUTLIVED, lifetime_s_max)
            row = await connection.fetchrow(INSERT_REVOCATION, tenant, kind, value, before)
    assert row is not None  # noqa: S101 # an INSERT without a condition returns its row
    return Revocation(*row)


async def delete_revocation(database: Database, revocation_id: int, tenant: str | None = None) -> bool:
    """Give access back to tokens that are in force; False where there was no such row (of this tenant)."""
    async with database.acquire() as connection:
        with mapping_errors("giving access back"):
            status = await connection.execute(DELETE_REVOCATION, revocation_id, tenant)
    return bool(status == "DELETE 1")


async def list_revocations(database: Database, *, lifetime_s_max: float, tenant: str | None = None) -> list[Revocation]:
    """All that count, oldest first; those of every tenant where none is named."""
    async with database.acquire() as connection:
        with mapping_errors("reading what was taken back"):
            rows = await connection.fetch(LIST_REVOCATIONS, lifetime_s_max, tenant)
    return [Revocation(*row) for row in rows]
