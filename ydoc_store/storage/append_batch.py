"""One commit of the appender: what is sent, in which order things are locked, and how the answer is judged.

The heads of all documents of the batch are locked in id order, advanced, and one row a (document, actor run) is
inserted, with the hints for other nodes, in one statement that is its own transaction. What guards an append
(tombstone, replaced epoch, size) is judged on the locked row, in that statement: a condition on another table
would see it as it was before the lock. Nothing here knows rooms; queues and lanes live in `appender`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from ydoc_store.errors import (
    CommitUnknown,
    DocumentDeleted,
    EpochChanged,
    RoomDiscarded,
    StreamClosed,
    TooLarge,
    YdocError,
)
from ydoc_store.storage.append_columns import LogRows, hints_of
from ydoc_store.storage.creating import Created, create_missing
from ydoc_store.storage.guards import judge
from ydoc_store.storage.outcomes import outcome_of
from ydoc_store.storage.producers import lock_guarded, read_states, write_judged

if TYPE_CHECKING:
    from ydoc_store.failpoints import Failpoints
    from ydoc_store.storage.append_columns import Hints
    from ydoc_store.storage.appender import DocumentQueue, QueuedUpdate
    from ydoc_store.storage.guards import Judgement, Verdict

HINT_CHANNEL = "ydoc_log"

# The marker tells that the id still means what its room means by it: in a restored backup, ids and seqs that were
# given after it are given again. What was typed into one document must never land in another.
#
# All columns of a batch are in the order of its ids, which rise, so that `width_bucket`, a binary search, finds a
# document's place in them. Joins would be planned once for all sizes: nested loops over a batch of 1,000 documents
# took 210 ms where this takes 18, and a hash join would read the whole table.
#
# The row of the change feed (see `commits`) is written here, so that no append to a document is without one. A tenant
# is looked up by its place only where a batch has several: texts in an array are found by counting from its start.
APPEND_BATCH = """
WITH locked AS MATERIALIZED (
    SELECT d.id, d.marker, d.head, d.deleted_at, d.replaced_at, d.closed_at, d.accepted_bytes,
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
        AND l.closed_at IS NULL
        AND l.marker = coalesce(($13::bigint[])[l.place], l.marker)
        AND l.accepted_bytes + ($4::bigint[])[l.place] <= ($5::bigint[])[l.place]
), advanced AS (
    UPDATE ydoc.documents AS d
    SET head = d.head + ($2::integer[])[width_bucket(d.id, $1::bigint[])],
        accepted_rows = d.accepted_rows + ($3::integer[])[width_bucket(d.id, $1::bigint[])],
        accepted_bytes = d.accepted_bytes + ($4::bigint[])[width_bucket(d.id, $1::bigint[])],
        changed_at = now()
    WHERE d.id = ANY ((SELECT a.ids FROM admitted AS a)::bigint[])
    RETURNING d.id, d.head, d.marker, width_bucket(d.id, $1::bigint[]) AS place,
        CASE WHEN d.kind = 'document' THEN d.tenant END AS tenant
), heads AS MATERIALIZED (
    SELECT array_agg(a.id ORDER BY a.id) AS ids, array_agg(a.head ORDER BY a.id) AS heads,
        CASE WHEN min(a.tenant) = max(a.tenant) AND count(a.tenant) = count(*) THEN min(a.tenant) END AS one_tenant,
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
    WHERE coalesce(h.one_tenant, h.tenants[width_bucket(i.document_id, h.ids)]) IS NOT NULL
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
    (SELECT count(*) FROM told) AS hints, CASE WHEN l.closed_at IS NOT NULL THEN l.head END AS closed_at_head
FROM locked AS l
CROSS JOIN heads AS h
"""

BEGIN_CREATING = "BEGIN ISOLATION LEVEL READ COMMITTED"
COMMIT_CREATED = "COMMIT"
ROLL_BACK_CREATED = "ROLLBACK"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The COMMIT is known: the updates that were kept are (head - len(updates), head] of this document."""

    head: int
    created: Created | None


@dataclass(eq=False, slots=True)
class DocumentBatch:
    """The part of a batch that belongs to one document, in arrival order. `told` once its owner has its outcome.

    `judgement` is what its guards came to in the last transaction, None where it has none or was not judged.
    """

    queue: DocumentQueue
    updates: list[QueuedUpdate]
    size: int
    told: bool = False
    judgement: Judgement | None = None

    @property
    def is_guarded(self) -> bool:
        return self.queue.has_guards and any(queued.guard is not None for queued in self.updates)

    @property
    def kept(self) -> list[QueuedUpdate]:
        """What is stored if this document is accepted."""
        return self.updates if self.judgement is None else self.judgement.kept

    @property
    def kept_size(self) -> int:
        return self.size if self.judgement is None else self.judgement.size

    def told_by(self, result: Result) -> tuple[list[tuple[QueuedUpdate, Verdict]], list[QueuedUpdate]]:
        """Who is told what its guard came to, and who hears `result` itself."""
        if self.judgement is None:
            return [], self.updates
        if isinstance(result, Accepted):
            return [(left.queued, left.verdict) for left in self.judgement.left], self.judgement.kept
        known = {left.queued: left.otherwise for left in self.judgement.left if left.otherwise is not None}
        return list(known.items()), [queued for queued in self.updates if queued not in known]


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
        raise outcome_of(error) from error
    if not waited_for_standby():
        raise CommitUnknown("the commit did not wait for its standby")
    return results


async def _append(
    connection: asyncpg.Connection[asyncpg.Record],
    batches: list[DocumentBatch],
    hints: Hints | None,
    keep_deleted: bool,
    failpoints: Failpoints | None,
) -> list[Result]:
    new = [batch for batch in batches if batch.queue.document_id is None]
    is_guarded = any(batch.is_guarded for batch in batches)
    if not new and not is_guarded:
        return await _Advance(connection, batches, {}, hints).all()
    # Not asyncpg's own transaction block: on its way out of a time-out that would wait for the answer to a ROLLBACK.
    await connection.execute(BEGIN_CREATING)
    try:
        created: dict[DocumentQueue, Created] = {}
        if new:
            created = await create_missing(connection, new, keep_deleted)
            if failpoints is not None:
                await failpoints.reach("append.after-create")
        advance = _Advance(connection, batches, created, hints)
        results = await (advance.guarded() if is_guarded else advance.all())
        if failpoints is not None:
            await failpoints.reach("append.before-commit")
        await connection.execute(COMMIT_CREATED)
    except (asyncpg.PostgresError, ValueError):
        await connection.execute(ROLL_BACK_CREATED)
        raise
    return results


class _Advance:
    """One transaction's heads: what became of each document, in the order of the batches."""

    def __init__(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        batches: list[DocumentBatch],
        created: dict[DocumentQueue, Created],
        hints: Hints | None,
    ):
        self._connection = connection
        self._batches = batches
        self._created = created
        self._hints = hints
        # As they are for documents that are not found; and at which place each document is.
        self._results: list[Result] = [RoomDiscarded("the document is gone from the database")] * len(batches)
        self._places: dict[int, int] = {}
        for place, batch in enumerate(batches):
            queue = batch.queue
            document_id = created[queue].document_id if queue in created else queue.document_id
            if document_id in self._places:
                # A room that was discarded and its successor: rows of both would claim the same seqs.
                self._results[place] = RoomDiscarded("this document is open twice here: sync again")
            elif document_id is not None:
                self._places[document_id] = place

    async def all(self) -> list[Result]:
        """Append everything."""
        await self._append(self._places)
        return self._results

    async def guarded(self) -> list[Result]:
        """Append what guards leave, and write what they come to."""
        batches, created, places, results = self._batches, self._created, self._places, self._results
        for place, batch in enumerate(batches):
            if batch.queue.document_id is None and batch.queue not in created:
                # Refused before it was created: its judgement, on a document that is not there, stands.
                results[place] = Accepted(0, None)
            else:
                batch.judgement = None
        # All of them: the append locks the rest behind these, and would do it out of order.
        locked = await lock_guarded(self._connection, sorted(places))
        judged = {
            document_id: batches[place]
            for document_id, place in places.items()
            if document_id in locked
            and batches[place].is_guarded
            # The append refuses what is not this document any more.
            and (batches[place].queue in created or batches[place].queue.marker in (None, locked[document_id].marker))
        }
        asked = {
            (document_id, queued.guard.producer.id)
            for document_id, batch in judged.items()
            for queued in batch.updates
            if queued.guard is not None and queued.guard.producer is not None
        }
        ceilings = {document_id: batches[place].queue.bytes_ceiling for document_id, place in places.items()}
        states = await read_states(self._connection, locked, sorted(asked), ceilings)
        for document_id, batch in judged.items():
            if locked[document_id].is_live:
                batch.judgement = judge(states[document_id], batch.updates)
        appended = {document_id: place for document_id, place in places.items() if batches[place].kept}
        if appended:
            await self._append(appended)
        for document_id in places.keys() - appended.keys():
            batch = batches[places[document_id]]
            results[places[document_id]] = Accepted(locked[document_id].head, created.get(batch.queue))
        await write_judged(
            self._connection,
            {
                document_id: batch.judgement
                for document_id, batch in judged.items()
                if batch.judgement is not None and isinstance(results[places[document_id]], Accepted)
            },
        )
        return results

    async def _append(self, places: dict[int, int]) -> None:
        ids = sorted(places)
        in_order = [self._batches[places[document_id]] for document_id in ids]
        kept = [(batch.kept, batch.kept_size) for batch in in_order]
        rows = LogRows()
        row_counts = [rows.add(document_id, updates) for document_id, (updates, _) in zip(ids, kept, strict=True)]
        hint_numbers, hint_texts = hints_of(kept, self._hints)
        answer = await self._connection.fetch(
            APPEND_BATCH,
            ids,
            [len(updates) for updates, _ in kept],
            row_counts,
            [size for _, size in kept],
            [batch.queue.bytes_ceiling for batch in in_order],
            hint_numbers,
            rows.document_ids,
            rows.followed_by,
            rows.counts,
            rows.actors,
            rows.frames,
            hint_texts,
            [None if batch.queue in self._created else batch.queue.marker for batch in in_order],
        )
        for row in answer:
            place = places[row[0]]
            self._results[place] = _judge(row, self._created.get(self._batches[place].queue))


def _judge(row: asyncpg.Record, created: Created | None) -> Result:
    _id, head, deleted, replaced, another, _hints_told, closed_at_head = row
    if head is not None:
        return Accepted(head, created)
    if another:
        return RoomDiscarded("the database went back: sync again")
    if replaced:
        return EpochChanged("this document was recreated or repaired: reload it")
    if deleted:
        return DocumentDeleted("this document was deleted")
    if closed_at_head is not None:
        return StreamClosed(closed_at_head)
    return TooLarge("this document has reached its size; it can still be read")
