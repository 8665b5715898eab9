"""The rows behind a document's snapshot: read as one value for the compactor, and deleted exactly.

Postgres packs the rows itself (the format is in `segments`), so that the process which asks spends no time a row:
the value goes to the compactor's child as it is, and is compressed there into the history segment. Both
statements run inside the compactor's transaction; neither decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import affected

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

# One statement, so that the snapshot and the tail belong together whatever another compactor does meanwhile. The
# first row is taken however large it is, or a row over the limit would never be merged.
READ_FOR_MERGE = """
WITH snapshot AS MATERIALIZED (
    SELECT s.through_seq, s.bytes, s.merged_rows, s.merged_bytes
    FROM ydoc.snapshots AS s
    WHERE s.document_id = $1 AND s.superseded_at IS NULL
), tail AS (
    SELECT u.seq, u.count, u.actor, u.accepted_at, u.frames,
        sum(octet_length(u.frames)) OVER (ORDER BY u.seq ROWS UNBOUNDED PRECEDING) AS bytes_through
    FROM ydoc.updates AS u
    WHERE u.document_id = $1
        AND u.seq > coalesce((SELECT s.through_seq FROM snapshot AS s), 0)
    ORDER BY u.seq
    LIMIT $2
), bite AS (
    SELECT count(*) AS row_count, max(t.seq) AS through_seq,
        string_agg(
            int8send(t.seq) || int4send(t.count) || timestamptz_send(t.accepted_at)
                || coalesce(int4send(octet_length(convert_to(t.actor, 'UTF8'))), int4send(-1))
                || coalesce(convert_to(t.actor, 'UTF8'), ''::bytea)
                || int4send(octet_length(t.frames)) || t.frames,
            ''::bytea ORDER BY t.seq
        ) AS rows
    FROM tail AS t
    WHERE t.bytes_through - octet_length(t.frames) < $3::bigint
)
SELECT d.head, d.keep_deleted,
    s.through_seq AS snapshot_through_seq, s.bytes AS snapshot, s.merged_rows, s.merged_bytes,
    b.row_count, b.through_seq, b.rows
FROM ydoc.documents AS d
LEFT JOIN snapshot AS s ON true
CROSS JOIN bite AS b
WHERE d.id = $1 AND d.kind = 'document'
"""

DELETE_MERGED = "DELETE FROM ydoc.updates WHERE document_id = $1 AND seq > $2 AND seq <= $3"


@dataclass(frozen=True, slots=True)
class Mergeable:
    """What one compaction works on: the current snapshot (None where there is none) and the oldest of its tail.

    `packed_rows` holds `row_count` rows as a history segment does, uncompressed, of the updates
    (after_seq, through_seq]; `head` is greater than `through_seq` where more of the tail is left. The counters
    are those at the snapshot.
    """

    after_seq: int
    through_seq: int
    head: int
    snapshot: bytes | None
    packed_rows: bytes
    row_count: int
    merged_rows: int
    merged_bytes: int
    keep_deleted: bool


async def read_for_merge(
    connection: Connection, document_id: int, *, rows_max: int, bytes_max: int
) -> Mergeable | None:
    """The snapshot and the oldest rows behind it: at most `rows_max`, and about `bytes_max` of frames.

    None where the tail is empty, the document is gone, or it is a stream. Raises asyncpg's errors.
    """
    row = await connection.fetchrow(READ_FOR_MERGE, document_id, rows_max, bytes_max)
    if row is None or not row["row_count"]:
        return None
    return Mergeable(
        after_seq=row["snapshot_through_seq"] or 0,
        through_seq=row["through_seq"],
        head=row["head"],
        snapshot=row["snapshot"],
        packed_rows=row["rows"],
        row_count=row["row_count"],
        merged_rows=row["merged_rows"] or 0,
        merged_bytes=row["merged_bytes"] or 0,
        keep_deleted=row["keep_deleted"],
    )


async def delete_merged(connection: Connection, document_id: int, after_seq: int, through_seq: int) -> int:
    """Delete the rows that end in (after_seq, through_seq]; returns how many there were."""
    status = await connection.execute(DELETE_MERGED, document_id, after_seq, through_seq)
    return affected(status)
