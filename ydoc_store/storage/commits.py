"""The rows of the change feed: written in the transaction of what they tell, dropped when the window has passed.

An append writes its own row in its own statement; everything else that happens to a document calls `note`, or its
sibling for a renaming, as the last thing in its transaction: a row's place has to be drawn behind every lock that
the transaction waited for. Never inside a savepoint, whose id is not the transaction's: such a row would pass for
one from a dump. Reading is in `feed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ydoc_store.storage.pool import affected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ydoc_store.storage.pool import Connection

Happening = Literal["compacted", "deleted", "undeleted", "recreated", "replaced", "purged"]

DAYS_MIN: Final = 1
"""Whoever follows was away for a night: where no history is kept, the feed still reaches back so far."""

NEWEST_KEPT: Final = 1_000
"""Of each tenant, some 150 kB: a jump of the clock leaves those their place who follow, and a quiet tenant is told from
its beginning."""

NOTE = """
INSERT INTO ydoc.commits (tenant, what, document_ids, seqs, counts, actors)
SELECT d.tenant, $2, ARRAY[d.id], ARRAY[$3::bigint], ARRAY[$4::integer],
    CASE WHEN $5::text IS NOT NULL THEN ARRAY[$5] END
FROM ydoc.documents AS d
WHERE d.id = $1
"""

# A row an epoch, so that each is found by its id: what happened before was to a document of another name.
NOTE_RENAMED = """
INSERT INTO ydoc.commits (tenant, what, document_ids, actors, name_before)
SELECT d.tenant, 'renamed', ARRAY[d.id], CASE WHEN $3::text IS NOT NULL THEN ARRAY[$3] END, $2
FROM ydoc.documents AS d
WHERE d.id = ANY ($1::bigint[])
ORDER BY d.epoch
"""

LIST_TENANTS_NOTED = """
WITH RECURSIVE found (tenant) AS (
    (SELECT c.tenant FROM ydoc.commits AS c ORDER BY c.tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT c.tenant FROM ydoc.commits AS c WHERE c.tenant > f.tenant ORDER BY c.tenant LIMIT 1)
    FROM found AS f
    WHERE f.tenant IS NOT NULL
)
SELECT f.tenant
FROM found AS f
WHERE f.tenant IS NOT NULL
"""

# From the oldest on without a gap, in bites: a stored place whose row is there has lost nothing behind it. The newest
# rows of a tenant stay, whatever a clock that jumped says, and for those who have read all there is.
DROP_OUTLIVED = """
WITH oldest AS MATERIALIZED (
    SELECT c.through_xid, c.id, c.at
    FROM ydoc.commits AS c
    WHERE c.tenant = $1
    ORDER BY c.through_xid, c.id
    LIMIT $3
), outlived AS MATERIALIZED (
    SELECT o.through_xid, o.id
    FROM (
        SELECT o.through_xid, o.id,
            bool_and(o.at < now() - make_interval(days => $2)) OVER (ORDER BY o.through_xid, o.id) AS is_outlived
        FROM oldest AS o
    ) AS o
    WHERE o.is_outlived AND (o.through_xid, o.id) < (
        SELECT n.through_xid, n.id
        FROM ydoc.commits AS n
        WHERE n.tenant = $1 AND n.xmin = n.writer
        ORDER BY n.through_xid DESC, n.id DESC
        LIMIT 1 OFFSET $4 - 1
    )
    ORDER BY o.through_xid DESC, o.id DESC
    LIMIT 1
)
DELETE FROM ydoc.commits AS c
USING outlived AS o
WHERE c.tenant = $1 AND (c.through_xid, c.id) <= (o.through_xid, o.id)
"""

# No row of this server is there yet: these came from a dump, and this server's would only run into them later.
DROP_FROM_ELSEWHERE = """
DELETE FROM ydoc.commits AS c
WHERE c.tenant = $1 AND c.through_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    AND c.xmin <> c.writer
"""


async def note(
    connection: Connection, what: Happening, document_id: int, *, seq: int, count: int = 0, actor: str | None = None
) -> None:
    """Tell the feed what this transaction did to a document; `seq` is its head, or for a compaction the last seq that
    was merged, of `count` updates. Raises asyncpg's errors."""
    await connection.execute(NOTE, document_id, what, seq, count, actor)


async def note_renamed(
    connection: Connection, document_ids: Sequence[int], name_before: str, *, actor: str | None = None
) -> None:
    """Likewise for a renaming, of all epochs of a document at once; their rows have the new name already."""
    await connection.execute(NOTE_RENAMED, list(document_ids), name_before, actor)


async def list_tenants_noted(connection: Connection) -> list[str]:
    """Every tenant that the feed knows, in order. Raises asyncpg's errors."""
    return [row[0] for row in await connection.fetch(LIST_TENANTS_NOTED)]


async def drop_outlived(
    connection: Connection, tenant: str, *, history_days: int, limit: int, keep_newest: int = NEWEST_KEPT
) -> int:
    """Drop up to `limit` of a tenant's oldest rows, as far as the window allows; returns how many.

    At least one is kept. Raises asyncpg's errors.
    """
    await connection.execute(DROP_FROM_ELSEWHERE, tenant)
    status = await connection.execute(DROP_OUTLIVED, tenant, max(history_days, DAYS_MIN), limit, max(keep_newest, 1))
    return affected(status)
