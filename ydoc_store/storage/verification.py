"""Does what is stored of a document hold together? The reading side of `verify`.

Checks the gapless seq (I3), that snapshot, tail and head belong together (I6), that nothing merged is still in the
log (I8), that history is whole (I9) and that every byte decodes (I14). All of it is seen at one moment, in one
REPEATABLE READ transaction, and everything wrong is told, not only the first of it. Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import CorruptDocument, InvalidUpdate, TooLarge
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.segments import inflate, unpack_updates
from ydoc_store.yjs.document import decode_check
from ydoc_store.yjs.lib0 import Malformed, frames
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Connection, Database

ROWS_A_READ: Final = 2_000

READ_HEAD = "SELECT d.head, d.accepted_rows, d.accepted_bytes FROM ydoc.documents AS d WHERE d.id = $1"
READ_SNAPSHOTS = """
SELECT s.through_seq, s.bytes, s.state_vector, s.delete_set, s.merged_rows, s.merged_bytes,
    s.superseded_at IS NULL AS current
FROM ydoc.snapshots AS s
WHERE s.document_id = $1
ORDER BY s.through_seq
"""
READ_ROWS = """
SELECT u.seq, u.count, u.frames
FROM ydoc.updates AS u
WHERE u.document_id = $1 AND u.seq > $2
ORDER BY u.seq
LIMIT $3
"""
READ_SEGMENTS = """
SELECT g.after_seq, g.through_seq, g.row_count, g.raw_bytes, g.bytes
FROM ydoc.segments AS g
WHERE g.document_id = $1
ORDER BY g.through_seq
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, under the promise that it breaks."""

    promise: str
    text: str


@dataclass(slots=True)
class Verified:
    """What was looked at, and what is wrong with it: nothing, where `findings` is empty.

    `pending` tells that structs wait for predecessors that have not come, which is no fault of the store.
    """

    document_id: int
    head: int = 0
    tail_rows: int = 0
    updates: int = 0
    segments: int = 0
    pending: bool = False
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, promise: str, text: str) -> None:
        self.findings.append(Finding(promise, text))


async def verify_document(database: Database, document_id: int) -> Verified | None:
    """Everything that is wrong with one document; None where it is gone.

    Reads all of it and decodes it in this process, seconds for a large one: not for a process that serves.
    Raises StorageUnavailable or StorageBusy.
    """
    verified = Verified(document_id)
    async with database.acquire() as connection:
        with mapping_errors("verifying"):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                head = await connection.fetchrow(READ_HEAD, document_id)
                if head is None:
                    return None
                verified.head = head["head"]
                snapshots = await connection.fetch(READ_SNAPSHOTS, document_id)
                current = _check_snapshots(verified, snapshots)
                updates = [] if current is None else [current["bytes"]]
                updates += await _check_tail(connection, verified, head, current)
                await _check_history(connection, verified, snapshots)
    _check_content(verified, updates)
    return verified


def _check_snapshots(verified: Verified, snapshots: list[asyncpg.Record]) -> asyncpg.Record | None:
    for snapshot in snapshots:
        what = f"the snapshot through {snapshot['through_seq']}"
        if snapshot["through_seq"] > verified.head:
            verified.wrong("I6", f"{what} is ahead of the head {verified.head}")
        known = Knowledge()
        try:
            known.add(walk(snapshot["bytes"], UNLIMITED))
        except (InvalidUpdate, TooLarge) as error:
            verified.wrong("I14", f"{what} does not decode: {error}")
            continue
        if known.encode_state_vector() != snapshot["state_vector"]:
            verified.wrong("I6", f"{what} has another state vector than the one stored with it")
        if known.encode_delete_set() != snapshot["delete_set"]:
            verified.wrong("I6", f"{what} has another delete set than the one stored with it")
    current = [snapshot for snapshot in snapshots if snapshot["current"]]
    if not current and snapshots:
        verified.wrong("I6", "there are superseded snapshots and no current one")
    return current[0] if current else None


async def _check_tail(
    connection: Connection, verified: Verified, head: asyncpg.Record, current: asyncpg.Record | None
) -> list[bytes]:
    """The updates of the tail, having checked that it runs from the snapshot to the head, counted."""
    at = through_seq = 0 if current is None else current["through_seq"]
    left_behind, row_bytes, cursor = 0, 0, 0
    updates: list[bytes] = []
    while rows := await connection.fetch(READ_ROWS, verified.document_id, cursor, ROWS_A_READ):
        for seq, count, row_frames in rows:
            cursor = seq
            if seq <= through_seq:
                left_behind += 1
                continue
            if seq - count != at:
                verified.wrong("I3", f"row {seq} begins at {seq - count} and not at {at}")
            at = seq
            verified.tail_rows += 1
            found = _check_row(verified, seq, count, row_frames)
            row_bytes += sum(map(len, found))
            updates += found
    if left_behind:
        verified.wrong("I8", f"{left_behind} rows are still there that the snapshot through {through_seq} holds")
    if at != verified.head:
        verified.wrong("I6", f"the log ends at {at} and the head is {verified.head}")
    merged_rows, merged_bytes = (0, 0) if current is None else (current["merged_rows"], current["merged_bytes"])
    if head["accepted_rows"] - merged_rows != verified.tail_rows:
        told = head["accepted_rows"] - merged_rows
        verified.wrong("I3", f"the tail has {verified.tail_rows} rows and the counters say {told}")
    if head["accepted_bytes"] - merged_bytes != row_bytes:
        told = head["accepted_bytes"] - merged_bytes
        verified.wrong("I3", f"the tail's updates have {row_bytes} bytes and the counters say {told}")
    return updates


def _check_row(verified: Verified, seq: int, count: int, row_frames: bytes) -> list[bytes]:
    try:
        updates = list(frames(row_frames))
    except Malformed as error:
        verified.wrong("I14", f"row {seq} does not hold whole frames: {error}")
        return []
    if len(updates) != count:
        verified.wrong("I3", f"row {seq} holds {len(updates)} updates and says {count}")
    for number, update in enumerate(updates, seq - len(updates) + 1):
        try:
            walk(update, UNLIMITED)
        except (InvalidUpdate, TooLarge) as error:
            verified.wrong("I14", f"update {number} does not decode: {error}")
            return []
    verified.updates += len(updates)
    return updates


async def _check_history(connection: Connection, verified: Verified, snapshots: list[asyncpg.Record]) -> None:
    """Segments follow each other, each begins where another ends or a base stands, the last at the snapshot."""
    bases = {0, *(snapshot["through_seq"] for snapshot in snapshots)}
    at = None
    for segment in await connection.fetch(READ_SEGMENTS, verified.document_id):
        after_seq, through_seq = segment["after_seq"], segment["through_seq"]
        what = f"the segment ({after_seq}, {through_seq}]"
        if after_seq != at and after_seq not in bases:
            verified.wrong("I9", f"{what} has neither a base nor another segment before it")
        if at is not None and after_seq < at:
            verified.wrong("I9", f"{what} overlaps the one before it")
        try:
            packed = inflate(segment["bytes"])
            _, row_count, last = unpack_updates(packed, after_seq)
        except CorruptDocument as error:
            verified.wrong("I9", f"{what}: {error}")
        else:
            if (len(packed), row_count, last) != (segment["raw_bytes"], segment["row_count"], through_seq):
                verified.wrong("I9", f"{what} holds {row_count} rows through {last}, in {len(packed)} bytes")
        at = through_seq
        verified.segments += 1
    if at is not None and at not in bases:
        verified.wrong("I9", f"history ends at {at}, where no snapshot stands")


def _check_content(verified: Verified, updates: list[bytes]) -> None:
    """The whole document decodes. Left out where an update was refused: native code may not see it."""
    if any(finding.promise == "I14" for finding in verified.findings):
        return
    try:
        verified.pending = decode_check(merge(updates)).has_pending
    except InvalidUpdate as error:
        verified.wrong("I14", f"the document does not decode: {error}")
