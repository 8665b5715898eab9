"""History segments: the merged rows of (after_seq, through_seq], compressed, so that any seq can be replayed.

Format of `bytes`, for whoever reads it without us: one byte 1 (this format), then a zlib stream. Inflated, it is
the rows in seq order, each of them, all integers big-endian:

    int64  seq            of the row's last update
    int32  count          the row holds the updates (seq - count, seq]
    int64  accepted_at    microseconds since 2000-01-01 00:00 UTC, the database's clock
    int32  length of the actor in bytes, or -1 where there is none; then the actor in UTF-8
    int32  length of the frames in bytes; then `count` updates, each as varUint(length) and its bytes

Replaying begins at a base: a kept snapshot, or nothing where the segments reach back to the first update.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ydoc_store.errors import CorruptDocument
from ydoc_store.yjs.lib0 import Malformed, frames

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

FORMAT_ZLIB = b"\x01"
ZLIB_LEVEL = 6
INFLATED_BYTES_MAX = 2**30
_ROW = struct.Struct(">qiqi")
_LENGTH = struct.Struct(">i")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

INSERT_SEGMENT = """
INSERT INTO ydoc.segments (document_id, after_seq, through_seq, row_count, raw_bytes, bytes)
VALUES ($1, $2, $3, $4, $5, $6)
"""

# The newest base at or before the seq, the segments from there up to it, and what of the log lies before it.
READ_BASE = """
SELECT s.through_seq, s.bytes
FROM ydoc.snapshots AS s
WHERE s.document_id = $1 AND s.through_seq <= $2
ORDER BY s.through_seq DESC
LIMIT 1
"""
READ_SEGMENTS = """
SELECT g.after_seq, g.through_seq, g.row_count, g.bytes
FROM ydoc.segments AS g
WHERE g.document_id = $1 AND g.through_seq > $2 AND g.after_seq < $3
ORDER BY g.through_seq
"""
READ_LOG = """
SELECT u.seq, u.count, u.actor, u.accepted_at, u.frames
FROM ydoc.updates AS u
WHERE u.document_id = $1 AND u.seq > $2 AND u.seq - u.count < $3
ORDER BY u.seq
"""

# The base up to which history is no longer promised: the newest that is older than the window, with at least so
# many snapshots from it on (the current one counts). Segments up to it, and bases before it, go together.
DROP_HISTORY = """
WITH base AS MATERIALIZED (
    SELECT s.document_id, s.through_seq
    FROM (
        SELECT s.document_id, s.through_seq, s.created_at,
            row_number() OVER (ORDER BY s.through_seq DESC) AS newest
        FROM ydoc.snapshots AS s
        WHERE s.document_id = $1
    ) AS s
    WHERE s.created_at < now() - make_interval(days => $2) AND s.newest >= $3
    ORDER BY s.through_seq DESC
    LIMIT 1
), dropped_segments AS (
    DELETE FROM ydoc.segments AS g USING base AS b
    WHERE g.document_id = b.document_id AND g.through_seq <= b.through_seq
    RETURNING octet_length(g.bytes) AS bytes
), dropped_bases AS (
    DELETE FROM ydoc.snapshots AS s USING base AS b
    WHERE s.document_id = b.document_id AND s.through_seq < b.through_seq AND s.superseded_at IS NOT NULL
    RETURNING octet_length(s.bytes) AS bytes
)
SELECT (SELECT count(*) FROM dropped_segments) AS segments, (SELECT count(*) FROM dropped_bases) AS bases,
    coalesce((SELECT sum(g.bytes) FROM dropped_segments AS g), 0)
        + coalesce((SELECT sum(s.bytes) FROM dropped_bases AS s), 0) AS bytes
"""

# A loose index scan, as in `backlog`: one probe a document that has history, however long. Every document of the
# page comes back, because the last one is where the next page begins.
FIND_EXPIRED = """
WITH RECURSIVE found (document_id, number) AS (
    (SELECT g.document_id, 1 FROM ydoc.segments AS g WHERE g.document_id > $1 ORDER BY g.document_id LIMIT 1)
    UNION ALL
    SELECT n.document_id, f.number + 1
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT g.document_id
        FROM ydoc.segments AS g
        WHERE g.document_id > f.document_id
        ORDER BY g.document_id
        LIMIT 1
    ) AS n
    WHERE f.number < $2
)
SELECT f.document_id, EXISTS (
    SELECT
    FROM ydoc.snapshots AS s
    WHERE s.document_id = f.document_id AND s.created_at < now() - make_interval(days => $3)
) AS expired
FROM found AS f
"""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of the log as it was accepted: the updates (seq - count, seq], as `count` lib0 frames."""

    seq: int
    count: int
    actor: str | None
    accepted_at: datetime
    frames: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """A document as it was at `seq`: the base (None = from nothing) and the rows of (base_seq, seq] behind it.

    The last row may end after `seq`; `updates()` stops at it exactly.
    """

    base_seq: int
    base: bytes | None
    rows: list[HistoryRow]
    seq: int

    def updates(self) -> list[bytes]:
        """The base, then every update in the order in which they were accepted; merged, the document at `seq`."""
        found = [] if self.base is None else [self.base]
        for row in self.rows:
            within = list(frames(row.frames))[: self.seq - (row.seq - row.count)]
            found.extend(within)
        return found


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one retention pass took from a document: rows of each table, and their bytes."""

    segments: int
    bases: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ExpiredPage:
    """What one look found; the next begins behind `next_after_id`, None at the end."""

    expired: list[int]
    next_after_id: int | None


def pack_row(row: HistoryRow) -> bytes:
    """The inflated form of one row; Postgres packs the same (`tail.READ_FOR_MERGE`)."""
    micros = (row.accepted_at - _EPOCH) // timedelta(microseconds=1)
    actor = None if row.actor is None else row.actor.encode()
    head = _ROW.pack(row.seq, row.count, micros, -1 if actor is None else len(actor))
    return head + (actor or b"") + _LENGTH.pack(len(row.frames)) + row.frames


def unpack_rows(packed: bytes) -> Iterator[HistoryRow]:
    """The rows of an inflated segment, in order. Raises CorruptDocument where they do not fill it exactly."""
    for seq, count, micros, actor, row_frames in _fields(packed):
        accepted_at = _EPOCH + timedelta(microseconds=micros)
        yield HistoryRow(seq, count, None if actor is None else actor.decode(), accepted_at, row_frames)


def _fields(packed: bytes) -> Iterator[tuple[int, int, int, bytes | None, bytes]]:
    at, end = 0, len(packed)
    try:
        while at < end:
            seq, count, micros, actor_bytes = _ROW.unpack_from(packed, at)
            at += _ROW.size
            actor = None if actor_bytes < 0 else packed[at : at + actor_bytes]
            at += max(actor_bytes, 0)
            (length,) = _LENGTH.unpack_from(packed, at)
            at += _LENGTH.size
            if length < 0 or at + length > end:
                raise CorruptDocument("a history row reaches past its segment")
            yield seq, count, micros, actor, packed[at : at + length]
            at += length
    except struct.error as error:
        raise CorruptDocument(f"a history segment is damaged: {error}") from error


def unpack_updates(packed: bytes, after_seq: int) -> tuple[list[bytes], int, int]:
    """Every update of an inflated segment, in order, with the number of rows and the last row's seq.

    Raises CorruptDocument unless the rows run on from `after_seq` without a hole and each holds as many frames
    as it says: what does not is never merged.
    """
    updates: list[bytes] = []
    at, rows = after_seq, 0
    for seq, count, _micros, _actor, row_frames in _fields(packed):
        if seq - count != at:
            raise CorruptDocument(f"the log has a hole: row {seq} begins at {seq - count}, not at {at}")
        before = len(updates)
        try:
            updates.extend(frames(row_frames))
        except Malformed as error:
            raise CorruptDocument(f"row {seq} does not hold whole frames: {error}") from error
        if len(updates) - before != count:
            raise CorruptDocument(f"row {seq} holds {len(updates) - before} updates and says {count}")
        at, rows = seq, rows + 1
    return updates, rows, at


def deflate(packed: bytes) -> bytes:
    """Packed rows as the column holds them."""
    return FORMAT_ZLIB + zlib.compress(packed, ZLIB_LEVEL)


def inflate(stored: bytes) -> bytes:
    """The packed rows of a column's value. Raises CorruptDocument for another format or damaged bytes."""
    if stored[:1] != FORMAT_ZLIB:
        raise CorruptDocument(f"a history segment of unknown format {stored[:1].hex() or 'empty'}")
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(stored[1:], INFLATED_BYTES_MAX)
    except zlib.error as error:
        raise CorruptDocument(f"a history segment is damaged: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise CorruptDocument("a history segment is damaged: its stream is cut, or something follows it")
    return packed


async def insert_segment(
    connection: Connection,
    document_id: int,
    after_seq: int,
    through_seq: int,
    *,
    row_count: int,
    raw_bytes: int,
    stored: bytes,
) -> None:
    """Put the merged rows away, inside the transaction that deletes them. Raises asyncpg's errors."""
    await connection.execute(INSERT_SEGMENT, document_id, after_seq, through_seq, row_count, raw_bytes, stored)


async def replay(connection: Connection, document_id: int, seq: int) -> Replay:
    """The document as it was at `seq`, whatever has been merged since.

    The connection must be in a REPEATABLE READ transaction, because this reads in several statements. Raises
    CorruptDocument where the history does not reach: the window has passed, or history was off.
    """
    found = await connection.fetchrow(READ_BASE, document_id, seq)
    base_seq, base = (found["through_seq"], found["bytes"]) if found else (0, None)
    rows: list[HistoryRow] = []
    for segment in await connection.fetch(READ_SEGMENTS, document_id, base_seq, seq):
        rows.extend(unpack_rows(inflate(segment["bytes"])))
    covered = rows[-1].seq if rows else base_seq
    rows.extend(HistoryRow(*row) for row in await connection.fetch(READ_LOG, document_id, covered, seq))
    rows = [row for row in rows if row.seq - row.count < seq]
    at = base_seq
    for row in rows:
        if row.seq - row.count != at:
            break
        at = row.seq
    if at < seq:
        raise CorruptDocument(f"document {document_id}: no history from seq {at} to {seq}; the window has passed")
    return Replay(base_seq, base, rows, seq)


async def drop_history(connection: Connection, document_id: int, *, history_days: int, bases_min: int) -> Dropped:
    """Drop what lies before the newest base older than the window; with 0 days, all but the current snapshot.

    Raises asyncpg's errors.
    """
    minimum = bases_min if history_days else 1
    row = await connection.fetchrow(DROP_HISTORY, document_id, history_days, minimum)
    assert row is not None  # noqa: S101 # a SELECT of scalars always has its one row
    return Dropped(row["segments"], row["bases"], int(row["bytes"]))


async def find_expired(connection: Connection, after_id: int, limit: int, history_days: int) -> ExpiredPage:
    """Which of the next `limit` documents with history, by id behind `after_id`, have a snapshot older than that.

    Raises asyncpg's errors.
    """
    rows = await connection.fetch(FIND_EXPIRED, after_id, limit, history_days)
    expired = [row["document_id"] for row in rows if row["expired"]]
    return ExpiredPage(expired, rows[-1]["document_id"] if len(rows) == limit else None)
