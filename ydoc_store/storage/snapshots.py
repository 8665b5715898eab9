"""Snapshot rows: each equals all updates up to its `through_seq`; the one not superseded is current.

A new one takes over by compare-and-swap: it is inserted only where the snapshot that it was made from is still the
current one. The superseded one is deleted, or kept as a base from which history can be replayed. Everything here
runs inside the compactor's transaction and raises asyncpg's errors as they come; the caller maps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import affected

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

# While history is kept, a base a day is enough to replay the segments on, and a chain of segments needs one where it
# begins. Once none is, the chain that there was needs one where it ends. Days are the database's, in UTC.
SUPERSEDE_AS_BASE = """
UPDATE ydoc.snapshots AS s
SET superseded_at = now()
WHERE s.document_id = $1 AND s.through_seq = $2 AND s.superseded_at IS NULL
    AND CASE
        WHEN EXISTS (SELECT FROM ydoc.segments AS g WHERE g.document_id = $1 AND g.through_seq = $2) THEN
            NOT $3::boolean OR NOT EXISTS (
                SELECT FROM ydoc.snapshots AS k
                WHERE k.document_id = $1 AND k.superseded_at IS NOT NULL
                    AND (k.created_at AT TIME ZONE 'UTC')::date = (s.created_at AT TIME ZONE 'UTC')::date
            )
        ELSE $3::boolean
    END
"""

DELETE_SUPERSEDED = """
DELETE FROM ydoc.snapshots WHERE document_id = $1 AND through_seq = $2 AND superseded_at IS NULL
"""

# Where another compactor's snapshot is current by now, the one-current index (or the key) makes this nothing.
# The history window counts on a time after everything merged was accepted; now() is the transaction's start.
INSERT_SNAPSHOT = """
INSERT INTO ydoc.snapshots
    (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp())
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A snapshot to insert; the counters are the head row's at `through_seq`."""

    document_id: int
    through_seq: int
    content: bytes
    state_vector: bytes
    delete_set: bytes
    merged_rows: int
    merged_bytes: int
    way: str


async def take_over(connection: Connection, new: NewSnapshot, after_seq: int, *, keep_base: bool) -> bool:
    """Make `new` the current snapshot if the one through `after_seq` (0 = none) still is; False if it is not.

    With `keep_base` the superseded one is kept where it is the first of its day or nothing leads up to it; without,
    where history ends at it; else it is deleted. After False the transaction must be rolled back. A concurrent
    take-over is waited for, within lock_timeout.
    """
    if after_seq:
        retired = affected(await connection.execute(SUPERSEDE_AS_BASE, new.document_id, after_seq, keep_base))
        if not retired and not affected(await connection.execute(DELETE_SUPERSEDED, new.document_id, after_seq)):
            return False
    status = await connection.execute(
        INSERT_SNAPSHOT,
        new.document_id,
        new.through_seq,
        new.content,
        new.state_vector,
        new.delete_set,
        new.merged_rows,
        new.merged_bytes,
        new.way,
    )
    return affected(status) == 1
