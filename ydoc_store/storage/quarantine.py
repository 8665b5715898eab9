"""Documents that the compactor fails at: counted, and left alone from the limit on.

A row stands here from the first failure and goes with the first success. A quarantined document is read and
written as ever; only its tail grows, which is why an operator is shown the reason and can release it. What counts
as a document's own failure is decided by the compactor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import affected, mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection, Database

REASON_CHARACTERS_MAX = 1_000

RECORD_FAILURE = """
INSERT INTO ydoc.quarantines AS q (document_id, failures, reason, quarantined_at)
VALUES ($1, 1, $2, CASE WHEN $3::integer <= 1 THEN now() END)
ON CONFLICT (document_id) DO UPDATE
SET failures = q.failures + 1,
    reason = excluded.reason,
    last_failed_at = now(),
    quarantined_at = coalesce(q.quarantined_at, CASE WHEN q.failures + 1 >= $3::integer THEN now() END)
RETURNING q.failures, q.quarantined_at IS NOT NULL AS quarantined
"""
CLEAR_FAILURES = "DELETE FROM ydoc.quarantines WHERE document_id = $1"
COUNT_QUARANTINED = """
SELECT count(*)
FROM ydoc.quarantines AS q
WHERE q.quarantined_at IS NOT NULL AND NOT EXISTS (
    SELECT
    FROM ydoc.documents AS d
    WHERE d.id = q.document_id AND (d.deleted_at IS NOT NULL OR d.replaced_at IS NOT NULL)
)
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """What recording a failure came to."""

    failures: int
    quarantined: bool


async def record_failure(connection: Connection, document_id: int, reason: str, failures_max: int) -> Counted:
    """Count one more failure, and quarantine the document when it is the `failures_max`-th in a row."""
    row = await connection.fetchrow(RECORD_FAILURE, document_id, reason[:REASON_CHARACTERS_MAX], failures_max)
    assert row is not None  # noqa: S101 # an upsert without a condition always returns its row
    return Counted(row["failures"], row["quarantined"])


async def clear_failures(connection: Connection, document_id: int) -> bool:
    """Forget the failures, and with them the quarantine; False if there were none."""
    return bool(affected(await connection.execute(CLEAR_FAILURES, document_id)))


async def count_quarantined(database: Database) -> int:
    """How many documents are quarantined, for the gauge; a deleted one troubles nobody."""
    async with database.acquire() as connection:
        with mapping_errors("counting the quarantined"):
            return int(await connection.fetchval(COUNT_QUARANTINED))
