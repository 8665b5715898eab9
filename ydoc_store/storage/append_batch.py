"""One commit of the appender: what is sent, in which order things are locked, and how the answer is judged.

The heads of all documents of the batch are locked in id order, advanced, and one row a (document, actor run) is
inserted, with the hints for other nodes, in one statement that is its own transaction. What guards an append
(tombstone, replaced epoch, size) is judged on the locked row, in that statement: a condition on another table
would see it as it was before the lock. Nothing here knows rooms; queues and lanes live in `appender`.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import asyncpg

from ydoc_store.errors import (
    CommitUnknown,
    DocumentDeleted,
    EpochChanged,
    RoomDiscarded,
    StorageBusy,
    TooLarge,
    YdocError,
)
from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

if TYPE_CHECKING:
    from ydoc_store.storage.appender import DocumentQueue, QueuedUpdate

HINT_CHANNEL = "ydoc_log"
# Postgres refuses a payload of 8,000 bytes and more.
HINT_BYTES_MAX = 7_999
# "|id:count:head" of one document, at its longest.
_HINT_DOCUMENT_BYTES_MAX = 64

APPEND_BATCH = """
WITH batch AS (
    SELECT b.document_id, b.updates, b.row_count, b.bytes, b.ceiling, b.hint
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[], $5::bigint[], $6::integer[])
        AS b (document_id, updates, row_count, bytes, ceiling, hint)
), locked AS MATERIALIZED (
    SELECT d.id, d.deleted_at, d.replaced_at, d.accepted_bytes
    FROM ydoc.documents AS d
    WHERE d.id = ANY ($1::bigint[])
    ORDER BY d.id
    FOR NO KEY UPDATE
), advanced AS (
    UPDATE ydoc.documents AS d
    SET head = d.head + b.updates,
        accepted_rows = d.accepted_rows + b.row_count,
        accepted_bytes = d.accepted_bytes + b.bytes,
        changed_at = now()
    FROM locked AS l
    JOIN batch AS b ON b.document_id = l.id
    WHERE d.id = l.id
        AND d.deleted_at IS NULL
        AND d.replaced_at IS NULL
        AND d.accepted_bytes + b.bytes <= b.ceiling
    RETURNING d.id, d.head, b.updates, b.hint
), inserted AS (
    INSERT INTO ydoc.updates (document_id, seq, count, actor, frames)
    SELECT a.id, a.head - a.updates + r.last, r.count, r.actor, r.frames
    FROM unnest($7::bigint[], $8::integer[], $9::integer[], $10::text[], $11::bytea[])
        AS r (document_id, last, count, actor, frames)
    JOIN advanced AS a ON a.id = r.document_id
), told AS (
    SELECT pg_notify('ydoc_log', h.inline || h.heads)
    FROM (
        SELECT i.inline, string_agg('|' || a.id || ':' || a.updates || ':' || a.head, '' ORDER BY a.id) AS heads
        FROM advanced AS a
        JOIN unnest($12::text[]) WITH ORDINALITY AS i (inline, number) ON i.number = a.hint
        GROUP BY i.number, i.inline
    ) AS h
)
SELECT l.id, a.head, l.deleted_at IS NOT NULL AS deleted, l.replaced_at IS NOT NULL AS replaced,
    (SELECT count(*) FROM told) AS hints
FROM locked AS l
LEFT JOIN advanced AS a ON a.id = l.id
"""

# In (tenant, name) order, so that two nodes that create the same documents wait for each other and never both.
CREATE_DOCUMENTS = """
INSERT INTO ydoc.documents (tenant, name, marker)
SELECT n.tenant, n.name, n.marker
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (tenant, name, marker)
ORDER BY n.tenant, n.name
ON CONFLICT (tenant, name) WHERE replaced_at IS NULL DO NOTHING
"""

FIND_DOCUMENTS = """
SELECT n.number, d.id, d.epoch, d.marker
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (tenant, name, number)
JOIN ydoc.documents AS d ON d.tenant = n.tenant AND d.name = n.name AND d.replaced_at IS NULL
"""


class Hints(Protocol):
    """What the fan-out wants said with each commit."""

    hint_prefix: str
    inline_bytes_max: int


@dataclass(frozen=True, slots=True)
class Created:
    """The identity of a document that this append found missing: its own or, after a race, another node's."""

    document_id: int
    epoch: int
    marker: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The COMMIT is known: the updates are (head - len(updates), head] of this document."""

    head: int
    created: Created | None


@dataclass(slots=True)
class DocumentBatch:
    """The part of a batch that belongs to one document, in arrival order."""

    queue: DocumentQueue
    updates: list[QueuedUpdate]
    size: int


async def append_batch(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    *,
    timeout_s: float,
    hints: Hints | None,
    waited_for_standby: Callable[[], bool],
) -> list[Accepted | YdocError]:
    """Commit the batches together; one result a batch, in their order, each accepted or refused alone.

    Raises StorageBusy when the transaction is known to have been rolled back, CommitUnknown when its outcome is
    not known (the answer was lost or late, or the standby was not waited for). Cancelling leaves it unknown.
    """
    try:
        async with asyncio.timeout(timeout_s):
            created = await _append(connection, batches, hints)
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError) as error:
        raise StorageBusy(f"the append was rolled back: {error}") from error
    except (asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError) as error:
        # A backend that is told to die after its commit record dies before its answer.
        raise CommitUnknown(f"the connection ended before the answer: {error}") from error
    except asyncpg.PostgresError as error:
        raise StorageBusy(f"the append was rolled back: {error}") from error
    except (asyncpg.InterfaceError, OSError) as error:
        raise CommitUnknown(f"no answer to the commit: {error or type(error).__name__}") from error
    if not waited_for_standby():
        raise CommitUnknown("the commit did not wait for its standby")
    return created


async def _append(
    connection: asyncpg.Connection[asyncpg.Record], batches: list[DocumentBatch], hints: Hints | None
) -> list[Accepted | YdocError]:
    new = [batch for batch in batches if batch.queue.document_id is None]
    if not new:
        return await _advance(connection, batches, {}, hints)
    async with connection.transaction():
        created = await _create(connection, new)
        return await _advance(connection, batches, created, hints)


async def _create(
    connection: asyncpg.Connection[asyncpg.Record], new: list[DocumentBatch]
) -> dict[DocumentQueue, Created]:
    tenants = [batch.queue.tenant for batch in new]
    names = [batch.queue.name for batch in new]
    markers = [random.randrange(RESERVED_CLIENT_ID_MIN, 2**53) for _ in new]
    await connection.execute(CREATE_DOCUMENTS, tenants, names, markers)
    rows = await connection.fetch(FIND_DOCUMENTS, tenants, names)
    return {new[row[0] - 1].queue: Created(row[1], row[2], row[3]) for row in rows}


async def _advance(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    created: dict[DocumentQueue, Created],
    hints: Hints | None,
) -> list[Accepted | YdocError]:
    ids = [created[b.queue].document_id if b.queue in created else b.queue.document_id or 0 for b in batches]
    rows = _Rows()
    row_counts = [rows.add(document_id, batch.updates) for document_id, batch in zip(ids, batches, strict=True)]
    hint_numbers, hint_texts = _hints(batches, hints)
    answer = await connection.fetch(
        APPEND_BATCH,
        ids,
        [len(batch.updates) for batch in batches],
        row_counts,
        [batch.size for batch in batches],
        [batch.queue.bytes_ceiling for batch in batches],
        hint_numbers,
        rows.document_ids,
        rows.lasts,
        rows.counts,
        rows.actors,
        rows.frames,
        hint_texts,
    )
    by_id = {row[0]: row for row in answer}
    return [
        _judge(by_id.get(document_id), created.get(batch.queue))
        for document_id, batch in zip(ids, batches, strict=True)
    ]


class _Rows:
    """The log rows of a batch, column by column: consecutive updates of one actor share a row."""

    def __init__(self) -> None:
        self.document_ids: list[int] = []
        self.lasts: list[int] = []
        self.counts: list[int] = []
        self.actors: list[str | None] = []
        self.frames: list[bytes] = []

    def add(self, document_id: int, updates: list[QueuedUpdate]) -> int:
        """Append the rows of one document; returns how many there are."""
        rows_before = len(self.lasts)
        frames: list[bytes] = []
        actor = updates[0].actor
        in_row = 0
        for last, queued in enumerate(updates):
            if queued.actor != actor:
                self._end_row(document_id, last, in_row, actor, frames)
                frames, actor, in_row = [], queued.actor, 0
            frames.append(encode_uint(len(queued.update)))
            frames.append(queued.update)
            in_row += 1
        self._end_row(document_id, len(updates), in_row, actor, frames)
        return len(self.lasts) - rows_before

    def _end_row(self, document_id: int, last: int, count: int, actor: str | None, frames: list[bytes]) -> None:
        self.document_ids.append(document_id)
        self.lasts.append(last)
        self.counts.append(count)
        self.actors.append(actor)
        self.frames.append(b"".join(frames))


def _hints(batches: list[DocumentBatch], hints: Hints | None) -> tuple[list[int], list[str]]:
    """For each batch the number of the hint that names it (0 = none), and the texts that the hints begin with.

    A hint is `prefix;inline|id:count:head|…`; inline is base64 of the frames of its one document where they fit,
    else empty. Documents without inline bytes share hints, as many as fit.
    """
    if hints is None:
        return [0] * len(batches), []
    numbers: list[int] = []
    texts: list[str] = []
    shared_number = 0
    shared_room = 0
    bare = f"{hints.hint_prefix};"
    for batch in batches:
        # Base64 of the frames of a batch of small updates; a frame's length takes up to 4 bytes here.
        inline_bytes = (batch.size + 4 * len(batch.updates)) * 4 // 3 + 4
        if inline_bytes <= hints.inline_bytes_max and len(batches) <= INLINE_HINTS_MAX:
            frames = b"".join(encode_uint(len(q.update)) + q.update for q in batch.updates)
            texts.append(bare + base64.b64encode(frames).decode())
            numbers.append(len(texts))
            continue
        if shared_room < _HINT_DOCUMENT_BYTES_MAX:
            texts.append(bare)
            shared_number, shared_room = len(texts), HINT_BYTES_MAX - len(bare)
        shared_room -= _HINT_DOCUMENT_BYTES_MAX
        numbers.append(shared_number)
    return numbers, texts


# Above this many documents in one commit the bytes are not sent along: the commit's time is worth more than the
# one read that each of the other nodes saves, and the notification queue is a bounded thing.
INLINE_HINTS_MAX = 16


def _judge(row: asyncpg.Record | None, created: Created | None) -> Accepted | YdocError:
    if row is None:
        return RoomDiscarded("the document is gone from the database")
    _id, head, deleted, replaced, _hints_told = row
    if head is not None:
        return Accepted(head, created)
    if replaced:
        return EpochChanged("this document was recreated or repaired: reload it")
    if deleted:
        return DocumentDeleted("this document was deleted")
    return TooLarge("this document has reached its size; it can still be read")
