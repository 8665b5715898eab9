"""What was accepted when: the rows of a document's log, merged ones included, for somebody who looks for a seq.

Reads only. What a segment holds, and how a document is replayed to a seq, is told by `segments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.segments import HistoryRow, Replay, inflate, replay, unpack_rows
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

READ_NEWEST_ROWS = """
SELECT u.seq, u.count, u.actor, u.accepted_at, u.frames
FROM ydoc.updates AS u
WHERE u.document_id = $1 AND u.seq <= $2
ORDER BY u.seq DESC
LIMIT $3
"""
READ_SEGMENT_BEFORE = """
SELECT g.after_seq, g.bytes
FROM ydoc.segments AS g
WHERE g.document_id = $1 AND g.after_seq < $2
ORDER BY g.through_seq DESC
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the log: the updates (seq - count, seq]. `written` and `deleted` count units: characters of text,
    entries of lists and maps."""

    seq: int
    count: int
    accepted_at: datetime
    actor: str | None
    bytes: int
    written: int
    deleted: int


async def read_history(database: Database, document_id: int, *, until_seq: int, limit: int) -> list[Change]:
    """The newest `limit` rows that end at `until_seq` or before, newest first, as far back as history reaches.

    Raises CorruptDocument for a damaged segment, ServerFault.
    """
    async with database.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        with mapping_errors("reading the history"):
            tail = await connection.fetch(READ_NEWEST_ROWS, document_id, until_seq, limit)
            changes = [_change(HistoryRow(*row)) for row in tail]
            # One segment at a time: inflated, a long history takes more memory than a look at its end is worth.
            before_seq = until_seq
            while len(changes) < limit:
                segment = await connection.fetchrow(READ_SEGMENT_BEFORE, document_id, before_seq)
                if segment is None:
                    break
                rows = [row for row in unpack_rows(inflate(segment["bytes"])) if row.seq <= until_seq]
                changes += [_change(row) for row in rows[: -1 - limit + len(changes) : -1]]
                before_seq = segment["after_seq"]
    return changes


def _change(row: HistoryRow) -> Change:
    written = deleted = 0
    for update in frames(row.frames):
        walked = walk(update, UNLIMITED)
        written += sum(end - start for _, start, end in walked.structs)
        deleted += sum(end - start for _, start, end in walked.deletes)
    return Change(row.seq, row.count, row.accepted_at, row.actor, len(row.frames), written, deleted)


async def read_at(database: Database, document_id: int, seq: int) -> Replay:
    """The document as it was at `seq`. Raises CorruptDocument where history does not reach it, ServerFault."""
    async with database.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        with mapping_errors("reading the history"):
            return await replay(connection, document_id, seq)
