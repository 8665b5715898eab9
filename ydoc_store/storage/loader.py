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

from ydoc_store.errors import CorruptDocument, DocumentDeleted, EpochChanged, RoomDiscarded
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Database

# The tail comes as one array a column: a record a row costs this process's event loop three times as much.
_READ_FROM_CURSOR = """
), snapshot AS MATERIALIZED (
    SELECT s.through_seq, s.bytes, s.state_vector, s.delete_set, s.merged_rows, s.merged_bytes
    FROM document AS d
    JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
)
SELECT d.id, d.epoch, d.marker, d.head, d.accepted_rows, d.accepted_bytes, d.deleted_at IS NOT NULL AS deleted,
    d.replaced_at IS NOT NULL AS replaced,
    s.through_seq, CASE WHEN s.through_seq > {cursor} THEN s.bytes END AS bytes,
    s.state_vector, s.delete_set, octet_length(s.bytes) AS snapshot_bytes, s.merged_rows, s.merged_bytes,
    t.seqs, t.counts, t.frames
FROM document AS d
LEFT JOIN snapshot AS s ON true
CROSS JOIN LATERAL (
    SELECT array_agg(r.seq) AS seqs, array_agg(r.count) AS counts, array_agg(r.frames) AS frames
    FROM (
        SELECT u.seq, u.count, u.frames
        FROM ydoc.updates AS u
        WHERE u.document_id = d.id AND u.seq > greatest({cursor}, coalesce(s.through_seq, 0))
        ORDER BY u.seq
    ) AS r
) AS t
"""

_DOCUMENT = """
    SELECT d.id, d.epoch, d.marker, d.head, d.accepted_rows, d.accepted_bytes, d.deleted_at, d.replaced_at
    FROM ydoc.documents AS d
"""

LOAD_BY_NAME = (
    "WITH document AS MATERIALIZED ("
    + _DOCUMENT
    + "    WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL"
    + _READ_FROM_CURSOR.format(cursor="0::bigint")
)

READ_AFTER = (
    "WITH document AS MATERIALIZED ("
    + _DOCUMENT
    + "    WHERE d.id = $1"
    + _READ_FROM_CURSOR.format(cursor="$2::bigint")
)

# An epoch that is deleted or replaced has no snapshot for anybody.
FIND_SNAPSHOT = """
SELECT s.through_seq
FROM ydoc.documents AS d
JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL
WHERE d.id = $1 AND d.marker = $2 AND d.deleted_at IS NULL AND d.replaced_at IS NULL
"""

READ_SNAPSHOT = """
SELECT s.bytes
FROM ydoc.documents AS d
JOIN ydoc.snapshots AS s ON s.document_id = d.id AND s.superseded_at IS NULL AND s.through_seq = $3
WHERE d.id = $1 AND d.marker = $2 AND d.deleted_at IS NULL AND d.replaced_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row of the log: the updates (seq - count, seq], as `count` lib0 frames."""

    seq: int
    count: int
    frames: bytes


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The current snapshot. `bytes` is None where the cursor is not behind it: the reader has all that it holds."""

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
    async with database.acquire_in_turn() as connection:
        with mapping_errors(f"loading {name!r}"):
            row = await connection.fetchrow(LOAD_BY_NAME, tenant, name)
    return Absent(tenant, name) if row is None else _checked(row, 0)


async def read_after(database: Database, document_id: int, cursor: int, marker: int | None = None) -> StoredDocument:
    """What a reader at `cursor` lacks: the tail, or the snapshot and then the tail where the cursor lies behind it.

    Raises like `load`; also EpochChanged where this epoch was replaced, and RoomDiscarded where the document is
    gone, its marker is not `marker`, or the cursor is ahead of its head: the database is not the one that the cursor
    comes from.
    """
    async with database.acquire_in_turn() as connection:
        with mapping_errors("reading the log"):
            row = await connection.fetchrow(READ_AFTER, document_id, cursor)
    if row is None:
        raise RoomDiscarded(f"document {document_id} is gone from the database: sync again")
    if marker not in (None, row["marker"]):
        raise RoomDiscarded(f"the database went back: document {document_id} is another one there; sync again")
    return _checked(row, cursor)


async def find_snapshot(database: Database, document_id: int, marker: int) -> int | None:
    """Up to which seq the current snapshot reaches; None where there is none. Raises ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("looking for a snapshot"):
            through_seq: int | None = await connection.fetchval(FIND_SNAPSHOT, document_id, marker)
    return through_seq


async def read_snapshot(database: Database, document_id: int, marker: int, through_seq: int) -> bytes | None:
    """The current snapshot, if it is the one through this seq. Raises ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("reading a snapshot"):
            found: bytes | None = await connection.fetchval(READ_SNAPSHOT, document_id, marker, through_seq)
    return found


def _checked(row: asyncpg.Record, cursor: int) -> StoredDocument:
    if row["replaced"]:
        raise EpochChanged("this document was recreated or repaired: reload it")
    if row["deleted"]:
        raise DocumentDeleted("this document was deleted")
    if cursor > row["head"]:
        raise RoomDiscarded(f"the database went back: its head is {row['head']}, not {cursor}; sync again")
    snapshot = None
    if row["through_seq"] is not None:
        snapshot = SnapshotRow(
            row["through_seq"],
            row["state_vector"],
            row["delete_set"],
            row["snapshot_bytes"],
            row["merged_rows"],
            row["merged_bytes"],
            row["bytes"],
        )
    tail = list(map(LogRow, row["seqs"] or (), row["counts"] or (), row["frames"] or ()))
    check_contiguous(tail, snapshot.through_seq if snapshot else 0, row["head"], row["id"], cursor)
    return StoredDocument(
        row["id"],
        row["epoch"],
        row["marker"],
        row["head"],
        row["accepted_rows"],
        row["accepted_bytes"],
        snapshot,
        tail,
    )


def check_contiguous(tail: Sequence[LogRow], through_seq: int, head: int, document_id: int, cursor: int = 0) -> None:
    """Raises CorruptDocument unless the rows run from the snapshot, or the cursor behind it, to the head.

    A cursor may point inside the first row; the snapshot's end may not: compaction cuts between rows.
    """
    at = max(cursor, through_seq)
    for index, row in enumerate(tail):
        begins = row.seq - row.count
        may_begin_before = index == 0 and cursor > through_seq
        if begins != at and not (may_begin_before and through_seq <= begins < at < row.seq):
            raise CorruptDocument(
                f"document {document_id}: the log has a hole, row {row.seq} begins at {begins} and not at {at}"
            )
        at = row.seq
    if at != head:
        raise CorruptDocument(f"document {document_id}: the log ends at {at}, its head is {head}")
