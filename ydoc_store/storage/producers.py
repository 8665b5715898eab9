"""What guards are judged by, read and written: the locked head rows, the producers' places, closed streams.

The purge apart, all of it runs inside an append's transaction. Heads are locked first, in id order as
every append locks them; the places are read by a later statement, which sees what whoever held a lock before
committed. They are written under those locks only, so they need none of their own, and a purge in between takes
nothing that is not written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.guards import GuardedState, Judgement, Place
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection, Database

LOCK_GUARDED = """
SELECT d.id, d.epoch, d.marker, d.head, d.closed_at IS NOT NULL AS closed, d.stream_seq,
    d.deleted_at IS NULL AND d.replaced_at IS NULL AS live,
    CASE WHEN d.kind = 'stream' THEN d.accepted_bytes END AS stream_bytes
FROM ydoc.documents AS d
WHERE d.id = ANY ($1::bigint[])
ORDER BY d.id
FOR NO KEY UPDATE
"""
READ_PRODUCERS = """
SELECT p.document_id, p.producer_id, p.epoch, p.seq
FROM unnest($1::bigint[], $2::text[]) AS a (document_id, producer_id)
JOIN ydoc.producers AS p ON p.document_id = a.document_id AND p.producer_id = a.producer_id
"""
WRITE_PRODUCERS = """
INSERT INTO ydoc.producers (document_id, producer_id, epoch, seq)
SELECT w.document_id, w.producer_id, w.epoch, w.seq
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) AS w (document_id, producer_id, epoch, seq)
ORDER BY w.document_id, w.producer_id
ON CONFLICT (document_id, producer_id) DO UPDATE
SET epoch = excluded.epoch, seq = excluded.seq, last_at = excluded.last_at
"""
# The hint of an append says nothing of a close, and a close without bytes has none: this tells to look.
WRITE_STREAM_STATES = """
WITH written AS (
    UPDATE ydoc.documents AS d
    SET closed_at = CASE WHEN w.closes THEN now() ELSE d.closed_at END,
        stream_seq = coalesce(w.stream_seq, d.stream_seq),
        changed_at = now()
    FROM unnest($1::bigint[], $2::boolean[], $3::text[]) AS w (id, closes, stream_seq)
    WHERE d.id = w.id
    RETURNING d.id, w.closes
)
SELECT pg_notify('ydoc_log', ';|' || w.id || ':0:0')
FROM written AS w
WHERE w.closes AND pg_notification_queue_usage() < 0.5
"""

# A page in key order; a row that an append has at this moment is no old one.
DROP_PRODUCERS = """
WITH page AS MATERIALIZED (
    SELECT p.document_id, p.producer_id
    FROM ydoc.producers AS p
    WHERE (p.document_id, p.producer_id) > ($1::bigint, $2::text)
    ORDER BY p.document_id, p.producer_id
    LIMIT $3
), old AS MATERIALIZED (
    SELECT p.document_id, p.producer_id
    FROM page AS g
    JOIN ydoc.producers AS p ON p.document_id = g.document_id AND p.producer_id = g.producer_id
    WHERE p.last_at < now() - make_interval(days => $4)
    FOR UPDATE OF p SKIP LOCKED
), dropped AS (
    DELETE FROM ydoc.producers AS p
    USING old AS o
    WHERE p.document_id = o.document_id AND p.producer_id = o.producer_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM dropped) AS dropped, g.document_id, g.producer_id
FROM page AS g
ORDER BY g.document_id DESC, g.producer_id DESC
LIMIT 1
"""


# Whose numbers were used in a history of this document that is over.
FIND_REPLACED_PRODUCER = """
SELECT max(p.epoch)
FROM ydoc.documents AS d
JOIN ydoc.producers AS p ON p.document_id = d.id AND p.producer_id = $3
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Locked:
    """A head row as its lock found it; `stream_bytes` were ever appended to it, None where it is a document's."""

    epoch: int
    marker: int
    head: int
    closed: bool
    stream_seq: str | None
    is_live: bool
    stream_bytes: int | None


@dataclass(frozen=True, slots=True)
class DroppedProducers:
    """What one page of a purge dropped, and behind which key the next page begins; None at the end of the table."""

    producers: int
    next_after: tuple[int, str] | None


async def lock_guarded(connection: Connection, document_ids: Sequence[int]) -> dict[int, Locked]:
    """Lock these head rows in id order, for the rest of the transaction. Raises asyncpg's errors."""
    rows = await connection.fetch(LOCK_GUARDED, document_ids)
    return {row[0]: Locked(*tuple(row)[1:]) for row in rows}


async def read_states(
    connection: Connection,
    locked: Mapping[int, Locked],
    asked: Sequence[tuple[int, str]],
    bytes_ceilings: Mapping[int, int],
) -> dict[int, GuardedState]:
    """What the guards of these locked documents are judged by; `asked` are the (document, producer) that matter."""
    states = {
        key: GuardedState(
            head.epoch,
            head.head,
            head.closed,
            head.stream_seq,
            None if head.stream_bytes is None else bytes_ceilings[key] - head.stream_bytes,
        )
        for key, head in locked.items()
    }
    if asked:
        rows = await connection.fetch(READ_PRODUCERS, [pair[0] for pair in asked], [pair[1] for pair in asked])
        for document_id, producer_id, epoch, seq in rows:
            states[document_id].producers[producer_id] = Place(epoch, seq)
    return states


async def write_judged(connection: Connection, judged: Mapping[int, Judgement]) -> None:
    """What the judgements of these documents, whose updates were appended, change beside the log."""
    places = [(key, name, place) for key, judgement in judged.items() for name, place in judgement.producers.items()]
    if places:
        await connection.execute(
            WRITE_PRODUCERS,
            [document_id for document_id, _, _ in places],
            [producer_id for _, producer_id, _ in places],
            [place.epoch for _, _, place in places],
            [place.seq for _, _, place in places],
        )
    changed = {key: said for key, said in judged.items() if said.closes or said.stream_seq is not None}
    if changed:
        await connection.fetch(
            WRITE_STREAM_STATES,
            list(changed),
            [judgement.closes for judgement in changed.values()],
            [judgement.stream_seq for judgement in changed.values()],
        )


async def drop_producers(
    connection: Connection, after: tuple[int, str], *, silent_days: int, limit: int
) -> DroppedProducers:
    """Forget those of the next `limit` producers that were silent for so long. Raises asyncpg's errors."""
    row = await connection.fetchrow(DROP_PRODUCERS, *after, limit, silent_days)
    if row is None:
        return DroppedProducers(0, None)
    return DroppedProducers(row[0], (row[1], row[2]))


async def find_replaced_producer(database: Database, tenant: str, name: str, producer_id: str) -> int | None:
    """The latest epoch in which this producer wrote to a replaced history of the document; None where it never did.

    Raises ServerFault.
    """
    async with database.acquire() as connection:
        with mapping_errors(f"looking for a producer of {name!r}"):
            epoch: int | None = await connection.fetchval(FIND_REPLACED_PRODUCER, tenant, name, producer_id)
    return epoch
