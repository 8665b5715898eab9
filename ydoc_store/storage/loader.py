"""Reading a document: snapshot, tail and head in ONE statement, and checked before anyone sees a byte (I6).

Two statements would see two moments: a compaction in between leaves the snapshot of before and the tail of
after, which is an empty document. So every read here is one statement, and its answer must hold together: the
tail begins where the snapshot ends, has no hole, and ends at the head. A read from a cursor that lies behind the
snapshot is given the snapshot and then the tail; nobody is ever told to start again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.errors import CorruptDocument, DocumentDeleted
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Database

# The first row carries the head row and the snapshot, the others one row of the tail each.
_TAIL_FROM_CURSOR = """
), snapshot AS (
    SELECT s.through_seq, s.bytes, s.state_vector, s.delete_set, s.merged_rows, s.merged_bytes
    FROM document AS d
    JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
)
SELECT 0::bigint AS seq, 0 AS count, NULL::bytea AS frames,
    d.id, d.epoch, d.marker, d.head, d.accepted_rows, d.accepted_bytes, d.deleted_at IS NOT NULL AS deleted,
    d.replaced_at IS NOT NULL AS replaced,
    s.through_seq, CASE WHEN s.through_seq > {cursor} THEN s.bytes END AS bytes,
    s.state_vector, s.delete_set, octet_length(s.bytes) AS snapshot_bytes, s.merged_rows, s.merged_bytes
FROM document AS d
LEFT JOIN snapshot AS s ON true
UNION ALL
SELECT u.seq, u.count, u.frames,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM document AS d
JOIN ydoc.updates AS u ON u.document_id = d.id
WHERE u.seq > greatest({cursor}, coalesce((SELECT s.through_seq FROM snapshot AS s), 0))
ORDER BY 1
"""

_DOCUMENT = """
    SELECT d.id, d.epoch, d.marker, d.head, d.accepted_rows, d.accepted_bytes, d.deleted_at, d.replaced_at
    FROM ydoc.documents AS d
"""

LOAD_BY_NAME = (
    "WITH document AS MATERIALIZED ("
    + _DOCUMENT
    + "    WHERE d.tenant = $1 AND d.name = $2 AND d.replaced_at IS NULL"
    + _TAIL_FROM_CURSOR.format(cursor="0::bigint")
)

READ_AFTER = (
    "WITH document AS MATERIALIZED ("
    + _DOCUMENT
    + "    WHERE d.id = $1"
    + _TAIL_FROM_CURSOR.format(cursor="$2::bigint")
)


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row of the log: the updates (seq - count, seq], as `count` lib0 frames."""

    seq: int
    count: int
    frames: bytes


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The current snapshot. `bytes` is None when the cursor of the read lies at or behind nothing it holds."""

    through_seq: int
    state_vector: bytes
    delete_set: bytes
    size_bytes: int
    merged_rows: int
    merged_bytes: int
    bytes: bytes | None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as one moment of the database had it: `snapshot` and `tail` together are all that was asked for.

    `tail` holds every row with seq > max(cursor, snapshot.through_seq); its first row may begin before the cursor.
    """

    id: int
    epoch: int
    marker: int
    head: int
    accepted_rows: int
    accepted_bytes: int
    snapshot: SnapshotRow | None
    tail: list[LogRow]

    @property
    def tail_bytes(self) -> int:
        """Bytes of the whole backlog, as the counters tell them, whatever the cursor was."""
        return self.accepted_bytes - (self.snapshot.merged_bytes if self.snapshot else 0)

    @property
    def size_bytes(self) -> int:
        """What the document's size limit is about: the snapshot and the tail behind it."""
        return (self.snapshot.size_bytes if self.snapshot else 0) + self.tail_bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """No update was ever accepted under this name."""

    tenant: str
    name: str


async def load(database: Database, tenant: str, name: str) -> StoredDocument | Absent:
    """The whole document under this name, verified.

    Raises DocumentDeleted where it has a tombstone, CorruptDocument where the log has a hole (it is never opened
    as an empty document), StorageUnavailable or StorageBusy.
    """
    async with database.acquire() as connection:
        with mapping_errors(f"loading {name!r}"):
            rows = await connection.fetch(LOAD_BY_NAME, tenant, name)
    return _checked(rows, 0) if rows else Absent(tenant, name)


async def read_after(database: Database, document_id: int, cursor: int) -> StoredDocument:
    """What a reader at `cursor` lacks: the tail, or the snapshot and then the tail where the cursor lies behind it.

    Raises like `load`; CorruptDocument also where the document is gone from the database.
    """
    async with database.acquire() as connection:
        with mapping_errors("reading the log"):
            rows = await connection.fetch(READ_AFTER, document_id, cursor)
    if not rows:
        raise CorruptDocument(f"document {document_id} is gone from the database")
    return _checked(rows, cursor)


def _checked(rows: Sequence[asyncpg.Record], cursor: int) -> StoredDocument:
    head_row = rows[0]
    if head_row["deleted"] or head_row["replaced"]:
        raise DocumentDeleted("this document was deleted")
    snapshot = None
    if head_row["through_seq"] is not None:
        snapshot = SnapshotRow(
            head_row["through_seq"],
            head_row["state_vector"],
            head_row["delete_set"],
            head_row["snapshot_bytes"],
            head_row["merged_rows"],
            head_row["merged_bytes"],
            head_row["bytes"],
        )
    tail = [LogRow(row["seq"], row["count"], row["frames"]) for row in rows[1:]]
    check_contiguous(
        tail, max(cursor, snapshot.through_seq if snapshot else 0), head_row["head"], head_row["id"], cursor
    )
    return StoredDocument(
        head_row["id"],
        head_row["epoch"],
        head_row["marker"],
        head_row["head"],
        head_row["accepted_rows"],
        head_row["accepted_bytes"],
        snapshot,
        tail,
    )


def check_contiguous(tail: list[LogRow], after_seq: int, head: int, document_id: int, cursor: int = 0) -> None:
    """Raises CorruptDocument unless the rows run from `after_seq` to `head` without a hole.

    Only a cursor may point inside the first row: compaction cuts between rows.
    """
    at = after_seq
    for index, row in enumerate(tail):
        begins = row.seq - row.count
        inside_first = index == 0 and cursor == after_seq and begins < at < row.seq
        if begins != at and not inside_first:
            raise CorruptDocument(
                f"document {document_id}: the log has a hole, row {row.seq} begins at {begins} and not at {at}"
            )
        at = row.seq
    if at != head and after_seq <= head:
        raise CorruptDocument(f"document {document_id}: the log ends at {at}, its head is {head}")
    if after_seq > head:
        raise CorruptDocument(f"document {document_id}: a cursor at {after_seq} is ahead of the head {head}")
