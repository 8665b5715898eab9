"""What the compactor did, one row a run, for an operator to list.

A run that merged writes its row in the transaction that merged. A run that failed, or came second, left nothing
behind, so its row is written on its own afterwards. Rows are dropped with the history window. The lock by which
compactors skip each other's documents lives here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ydoc_store.storage.pool import affected, mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection, Database

Result = Literal["done", "failed", "lost"]

# Released with the transaction, however that ends. Only an economy: correctness rests on the compare-and-swap.
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('ydoc compaction of ' || $1::bigint, 0))"

# The fold happens inside the transaction, between statements: the session's own limit may be shorter than it.
ALLOW_IDLE = "SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"

INSERT_COMPACTION = """
INSERT INTO ydoc.compactions
    (document_id, started_at, duration_ms, result, way, why, after_seq, through_seq, rows_merged, tail_bytes,
     snapshot_bytes_before, snapshot_bytes_after, history_bytes, error)
VALUES ($1, clock_timestamp() - make_interval(secs => $2::double precision / 1000), $2, $3, $4, $5, $6, $7, $8, $9,
    $10, $11, $12, $13)
"""

LIST_COMPACTIONS = """
SELECT c.id, c.document_id, d.tenant, d.name, c.started_at, c.duration_ms, c.result, c.way, c.why, c.after_seq,
    c.through_seq, c.rows_merged, c.tail_bytes, c.snapshot_bytes_before, c.snapshot_bytes_after, c.history_bytes,
    c.error
FROM ydoc.compactions AS c
LEFT JOIN ydoc.documents AS d ON d.id = c.document_id
WHERE c.document_id = coalesce($1::bigint, c.document_id)
ORDER BY c.id DESC
LIMIT $2
"""

LIST_COMPACTIONS_OF = LIST_COMPACTIONS.replace("coalesce($1::bigint, c.document_id)", "$1::bigint")

# In bites, so that a first pass over years of rows holds nothing up. The newest runs of all stay, whatever a clock
# that jumped says.
DROP_COMPACTIONS = """
DELETE FROM ydoc.compactions AS c
WHERE c.id = ANY (ARRAY(
    SELECT o.id FROM ydoc.compactions AS o
    WHERE o.started_at < now() - make_interval(days => $1)
        AND o.id < (SELECT max(m.id) - $2::bigint FROM ydoc.compactions AS m)
    ORDER BY o.started_at
    LIMIT $3
))
"""


@dataclass(frozen=True, slots=True)
class Compaction:
    """One run: which updates, how large before and after, which way, how long, and why it was wanted.

    `error` holds the doubt of a run that kept the merge, or why it failed or was lost.
    """

    document_id: int
    duration_ms: float
    result: Result
    way: str | None
    why: str
    after_seq: int
    through_seq: int | None = None
    rows_merged: int = 0
    tail_bytes: int = 0
    snapshot_bytes_before: int = 0
    snapshot_bytes_after: int = 0
    history_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ListedCompaction:
    """A run as an operator lists it; the name is None where the document is gone."""

    id: int
    tenant: str | None
    name: str | None
    started_at: datetime
    run: Compaction


async def try_lock(connection: Connection, document_id: int) -> bool:
    """Keep other compactors off this document until the transaction ends; False if one is at it. Never waits."""
    return bool(await connection.fetchval(TRY_LOCK, document_id))


async def go_idle(connection: Connection, seconds: float) -> None:
    """Let this transaction stay idle for so long, and hold nothing back meanwhile.

    A statement with arguments leaves its portal open until the next one, and the portal keeps its snapshot, for
    which vacuum would wait. This one has none, so it goes by the simple protocol, which replaces that portal.
    """
    await connection.execute(ALLOW_IDLE.format(milliseconds=int(seconds * 1_000)))


async def insert_compaction(connection: Connection, run: Compaction) -> None:
    """Write the row of a run; its start is the database's clock less the duration. Raises asyncpg's errors."""
    await connection.execute(
        INSERT_COMPACTION,
        run.document_id,
        run.duration_ms,
        run.result,
        run.way,
        run.why,
        run.after_seq,
        run.through_seq,
        run.rows_merged,
        run.tail_bytes,
        run.snapshot_bytes_before,
        run.snapshot_bytes_after,
        run.history_bytes,
        run.error,
    )


async def list_compactions(
    database: Database, document_id: int | None = None, limit: int = 20
) -> list[ListedCompaction]:
    """The newest runs first, of one document or of all."""
    statement = LIST_COMPACTIONS if document_id is None else LIST_COMPACTIONS_OF
    async with database.acquire() as connection:
        with mapping_errors("listing compactions"):
            rows = await connection.fetch(statement, document_id, limit)
    return [
        ListedCompaction(
            row["id"],
            row["tenant"],
            row["name"],
            row["started_at"],
            Compaction(
                row["document_id"],
                row["duration_ms"],
                row["result"],
                row["way"],
                row["why"],
                row["after_seq"],
                row["through_seq"],
                row["rows_merged"],
                row["tail_bytes"],
                row["snapshot_bytes_before"],
                row["snapshot_bytes_after"],
                row["history_bytes"],
                row["error"],
            ),
        )
        for row in rows
    ]


async def drop_compactions(connection: Connection, *, older_than_days: int, keep_newest: int, limit: int) -> int:
    """Delete up to `limit` rows older than the window; returns how many. Raises asyncpg's errors."""
    status = await connection.execute(DROP_COMPACTIONS, older_than_days, keep_newest, limit)
    return affected(status)
