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
    ServerFault,
    StorageBusy,
    StorageUnavailable,
    TooLarge,
    YdocError,
)
from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

if TYPE_CHECKING:
    from ydoc_store.failpoints import Failpoints
    from ydoc_store.storage.appender import DocumentQueue, QueuedUpdate

HINT_CHANNEL = "ydoc_log"
# Postgres refuses a payload of 8,000 bytes and more.
HINT_BYTES_MAX = 7_999
# Above this many documents in one commit the bytes are not sent along: the commit's time is worth more than the
# one read that each of the other nodes saves, and the notification queue is a bounded thing.
INLINE_HINTS_MAX = 16
# "|id:count:head:marker" of one document, at its longest.
_HINT_DOCUMENT_BYTES_MAX = 72

# The marker tells that the id still means what its room means by it: in a restored backup, ids and seqs that were
# given after it are given again. What was typed into one document must never land in another.
#
# All columns of a batch are in the order of its ids, which rise, so that `width_bucket`, a binary search, finds a
# document's place in them. Joins would be planned once for all sizes: nested loops over a batch of 1,000 documents
# took 210 ms where this takes 18, and a hash join would read the whole table.
#
# The row of the change feed (see `commits`) is written here, so that no append is without one. A tenant is looked
# up by its place only where a batch has several: texts in an array are found by counting from its start.
APPEND_BATCH = """
WITH locked AS MATERIALIZED (
    SELECT d.id, d.tenant, d.marker, d.deleted_at, d.replaced_at, d.accepted_bytes,
        width_bucket(d.id, $1::bigint[]) AS place
    FROM ydoc.documents AS d
    WHERE d.id = ANY ($1::bigint[])
    ORDER BY d.id
    FOR NO KEY UPDATE
), admitted AS MATERIALIZED (
    SELECT array_agg(l.id) AS ids
    FROM locked AS l
    WHERE l.deleted_at IS NULL
        AND l.replaced_at IS NULL
        AND l.marker = coalesce(($13::bigint[])[l.place], l.marker)
        AND l.accepted_bytes + ($4::bigint[])[l.place] <= ($5::bigint[])[l.place]
), advanced AS (
    UPDATE ydoc.documents AS d
    SET head = d.head + ($2::integer[])[width_bucket(d.id, $1::bigint[])],
        accepted_rows = d.accepted_rows + ($3::integer[])[width_bucket(d.id, $1::bigint[])],
        accepted_bytes = d.accepted_bytes + ($4::bigint[])[width_bucket(d.id, $1::bigint[])],
        changed_at = now()
    WHERE d.id = ANY ((SELECT a.ids FROM admitted AS a)::bigint[])
    RETURNING d.id, d.tenant, d.head, d.marker, width_bucket(d.id, $1::bigint[]) AS place
), heads AS MATERIALIZED (
    SELECT array_agg(a.id ORDER BY a.id) AS ids, array_agg(a.head ORDER BY a.id) AS heads,
        CASE WHEN min(a.tenant) = max(a.tenant) THEN min(a.tenant) END AS one_tenant,
        array_agg(a.tenant ORDER BY a.id) AS tenants
    FROM advanced AS a
), inserted AS (
    INSERT INTO ydoc.updates (document_id, seq, count, actor, frames)
    SELECT r.document_id, h.heads[width_bucket(r.document_id, h.ids)] - r.followed_by, r.count, r.actor, r.frames
    FROM heads AS h
    CROSS JOIN unnest($7::bigint[], $8::integer[], $9::integer[], $10::text[], $11::bytea[])
        AS r (document_id, followed_by, count, actor, frames)
    WHERE h.ids[width_bucket(r.document_id, h.ids)] = r.document_id
    RETURNING document_id, seq, count, actor
), noted AS (
    INSERT INTO ydoc.commits (tenant, what, document_ids, seqs, counts, actors)
    SELECT coalesce(h.one_tenant, h.tenants[width_bucket(i.document_id, h.ids)]), 'append',
        array_agg(i.document_id), array_agg(i.seq), array_agg(i.count),
        CASE WHEN count(i.actor) > 0 THEN array_agg(i.actor) END
    FROM inserted AS i
    CROSS JOIN heads AS h
    GROUP BY 1
), told AS (
    SELECT pg_notify('ydoc_log', ($12::text[])[t.hint] || t.heads)
    FROM (
        SELECT ($6::integer[])[a.place] AS hint,
            string_agg(
                '|' || a.id || ':' || ($2::integer[])[a.place] || ':' || a.head || ':' || a.marker, '' ORDER BY a.id
            ) AS heads
        FROM advanced AS a
        WHERE ($6::integer[])[a.place] > 0
        GROUP BY 1
    ) AS t
)
SELECT l.id,
    CASE WHEN h.ids[width_bucket(l.id, h.ids)] = l.id THEN h.heads[width_bucket(l.id, h.ids)] END AS head,
    l.deleted_at IS NOT NULL AS deleted, l.replaced_at IS NOT NULL AS replaced,
    l.marker <> coalesce(($13::bigint[])[l.place], l.marker) AS another,
    (SELECT count(*) FROM told) AS hints
FROM locked AS l
CROSS JOIN heads AS h
"""

# Which of these heads nobody holds right now.
FIND_FREE_HEADS = """
SELECT d.id
FROM ydoc.documents AS d
WHERE d.id = ANY ($1::bigint[])
ORDER BY d.id
FOR NO KEY UPDATE SKIP LOCKED
"""

BEGIN_CREATING = "BEGIN ISOLATION LEVEL READ COMMITTED"
COMMIT_CREATED = "COMMIT"
ROLL_BACK_CREATED = "ROLLBACK"

# In (tenant, name) order, so that two nodes that create the same documents wait for each other and never both.
# No index is named for the conflict: with one named, the other unique index raises where the two nodes race.
CREATE_DOCUMENTS = """
WITH created AS (
    INSERT INTO ydoc.documents (tenant, name, marker, keep_deleted)
    SELECT n.tenant, n.name, n.marker, $4
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (tenant, name, marker)
    ORDER BY n.tenant, n.name
    ON CONFLICT DO NOTHING
    RETURNING id, tenant
)
INSERT INTO ydoc.commits (tenant, what, document_ids)
SELECT c.tenant, 'created', array_agg(c.id)
FROM created AS c
GROUP BY c.tenant
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


@dataclass(eq=False, slots=True)
class DocumentBatch:
    """The part of a batch that belongs to one document, in arrival order. `told` once its owner has its outcome."""

    queue: DocumentQueue
    updates: list[QueuedUpdate]
    size: int
    told: bool = False


Result = Accepted | YdocError


async def append_batch(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    *,
    timeout_s: float,
    hints: Hints | None,
    waited_for_standby: Callable[[], bool],
    keep_deleted: bool = False,
    failpoints: Failpoints | None = None,
) -> list[Result]:
    """Commit the batches together; one result a batch, in their order, each accepted or refused alone.

    Raises StorageBusy when the transaction is known to have been rolled back, StorageUnavailable where this server
    takes no writes, CommitUnknown when the outcome is not known (the answer was lost or late, or the standby was
    not waited for). Cancelling leaves it unknown. After the latter three the connection is of no more use.
    """
    try:
        async with asyncio.timeout(timeout_s):
            results = await _append(connection, batches, hints, keep_deleted, failpoints)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _outcome_of(error) from error
    if not waited_for_standby():
        raise CommitUnknown("the commit did not wait for its standby")
    return results


async def find_free_heads(
    connection: asyncpg.Connection[asyncpg.Record], batches: list[DocumentBatch], *, timeout_s: float
) -> set[int]:
    """The ids of those documents of the batches whose heads nobody holds at this moment. Raises as `append_batch`."""
    ids = [batch.queue.document_id for batch in batches if batch.queue.document_id is not None]
    try:
        async with asyncio.timeout(timeout_s):
            return {row[0] for row in await connection.fetch(FIND_FREE_HEADS, ids)}
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _outcome_of(error) from error


def _outcome_of(error: Exception) -> ServerFault:
    """What this error says about the transaction: rolled back for certain, or unknown."""
    words = str(error) or type(error).__name__
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return StorageUnavailable(f"this server takes no writes: {words}")
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError):
        # A session that is ended may have written its commit record before; a query that is cancelled has not.
        ended = getattr(error, "severity_en", None) in ("FATAL", "PANIC")
        shut_down = isinstance(error, asyncpg.OperatorInterventionError)
        if not ended and (not shut_down or isinstance(error, asyncpg.QueryCanceledError)):
            return StorageBusy(f"the append was rolled back: {words}")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # A value that cannot be encoded: asyncpg found it before it sent the statement.
        return StorageBusy(f"the append was never sent: {words}")
    return CommitUnknown(f"no answer to the commit: {words}")


async def _append(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    hints: Hints | None,
    keep_deleted: bool,
    failpoints: Failpoints | None,
) -> list[Result]:
    new = [batch for batch in batches if batch.queue.document_id is None]
    if not new:
        return await _advance(connection, batches, {}, hints)
    # Not asyncpg's own transaction block: on its way out of a time-out that would wait for the answer to a ROLLBACK.
    await connection.execute(BEGIN_CREATING)
    try:
        created = await _create(connection, new, keep_deleted)
        if failpoints is not None:
            await failpoints.reach("append.after-create")
        results = await _advance(connection, batches, created, hints)
        if failpoints is not None:
            await failpoints.reach("append.before-commit")
        await connection.execute(COMMIT_CREATED)
    except (asyncpg.PostgresError, ValueError):
        await connection.execute(ROLL_BACK_CREATED)
        raise
    return results


async def _create(
    connection: asyncpg.Connection[asyncpg.Record], new: list[DocumentBatch], keep_deleted: bool
) -> dict[DocumentQueue, Created]:
    tenants = [batch.queue.tenant for batch in new]
    names = [batch.queue.name for batch in new]
    markers = [random.randrange(RESERVED_CLIENT_ID_MIN, 2**53) for _ in new]
    await connection.execute(CREATE_DOCUMENTS, tenants, names, markers, keep_deleted)
    rows = await connection.fetch(FIND_DOCUMENTS, tenants, names)
    return {new[row[0] - 1].queue: Created(row[1], row[2], row[3]) for row in rows}


async def _advance(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    created: dict[DocumentQueue, Created],
    hints: Hints | None,
) -> list[Result]:
    results: list[Result] = [RoomDiscarded("the document is gone from the database")] * len(batches)
    places: dict[int, int] = {}
    for place, batch in enumerate(batches):
        queue = batch.queue
        document_id = created[queue].document_id if queue in created else queue.document_id
        if document_id in places:
            # A room that was discarded and its successor: rows of both would claim the same seqs.
            results[place] = RoomDiscarded("this document is open twice here: sync again")
        elif document_id is not None:
            places[document_id] = place
    ids = sorted(places)
    in_order = [batches[places[document_id]] for document_id in ids]
    rows = _Rows()
    row_counts = [rows.add(document_id, batch.updates) for document_id, batch in zip(ids, in_order, strict=True)]
    hint_numbers, hint_texts = _hints(in_order, hints)
    answer = await connection.fetch(
        APPEND_BATCH,
        ids,
        [len(batch.updates) for batch in in_order],
        row_counts,
        [batch.size for batch in in_order],
        [batch.queue.bytes_ceiling for batch in in_order],
        hint_numbers,
        rows.document_ids,
        rows.followed_by,
        rows.counts,
        rows.actors,
        rows.frames,
        hint_texts,
        [None if batch.queue in created else batch.queue.marker for batch in in_order],
    )
    for row in answer:
        place = places[row[0]]
        results[place] = _judge(row, created.get(batches[place].queue))
    return results


class _Rows:
    """The log rows of a batch, column by column: consecutive updates of one actor share a row.

    `followed_by` counts the document's updates behind a row, so that its seq is the new head less those.
    """

    def __init__(self) -> None:
        self.document_ids: list[int] = []
        self.followed_by: list[int] = []
        self.counts: list[int] = []
        self.actors: list[str | None] = []
        self.frames: list[bytes] = []

    def add(self, document_id: int, updates: list[QueuedUpdate]) -> int:
        """Append the rows of one document; returns how many there are."""
        rows_before = len(self.counts)
        frames: list[bytes] = []
        actor = updates[0].actor
        first = 0
        for place, queued in enumerate(updates):
            if queued.actor != actor:
                self._end_row(document_id, len(updates) - place, place - first, actor, frames)
                frames, actor, first = [], queued.actor, place
            frames.append(encode_uint(len(queued.update)))
            frames.append(queued.update)
        self._end_row(document_id, 0, len(updates) - first, actor, frames)
        return len(self.counts) - rows_before

    def _end_row(self, document_id: int, followed_by: int, count: int, actor: str | None, frames: list[bytes]) -> None:
        self.document_ids.append(document_id)
        self.followed_by.append(followed_by)
        self.counts.append(count)
        self.actors.append(actor)
        self.frames.append(b"".join(frames))


def _hints(batches: list[DocumentBatch], hints: Hints | None) -> tuple[list[int], list[str]]:
    """For each batch the number of the hint that names it (0 = none), and the texts that the hints begin with.

    A hint is `prefix;inline|id:count:head:marker|…`; inline is base64 of the frames of its one document where they fit,
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


def _judge(row: asyncpg.Record, created: Created | None) -> Result:
    _id, head, deleted, replaced, another, _hints_told = row
    if head is not None:
        return Accepted(head, created)
    if another:
        return RoomDiscarded("the database went back: sync again")
    if replaced:
        return EpochChanged("this document was recreated or repaired: reload it")
    if deleted:
        return DocumentDeleted("this document was deleted")
    return TooLarge("this document has reached its size; it can still be read")
