"""The documents that an append finds missing: created in its own transaction, exactly once among all nodes.

Whoever loses that race adopts what the other made. Nothing is created for updates that a guard refuses. Streams are
created elsewhere, with what they are; an append to one always knows its id.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.guards import GuardedState, judge
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.append_batch import DocumentBatch
    from ydoc_store.storage.appender import DocumentQueue

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
JOIN ydoc.documents AS d ON d.tenant = n.tenant AND d.kind = 'document' AND d.name = n.name AND d.replaced_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Created:
    """The identity of a document that this append found missing: its own or, after a race, another node's."""

    document_id: int
    epoch: int
    marker: int


def new_marker(used: Collection[int] = ()) -> int:
    """The marker of a new epoch: random, and drawn again where an epoch of the same name has had it (`used`)."""
    marker = random.randrange(RESERVED_CLIENT_ID_MIN, 2**53)
    return new_marker(used) if marker in used else marker


async def create_missing(
    connection: asyncpg.Connection[asyncpg.Record], new: list[DocumentBatch], keep_deleted: bool
) -> dict[DocumentQueue, Created]:
    """The identities of documents that have none here yet, made where they are missing, inside the append's
    transaction; left out are those that would only be created for updates that their guards refuse.

    Raises asyncpg's errors.
    """
    wanted = await _without_refused(connection, new)
    names = [batch.queue.name for batch in wanted]
    tenants = [batch.queue.tenant for batch in wanted]
    if wanted:
        markers = [new_marker() for _ in wanted]
        await connection.execute(CREATE_DOCUMENTS, tenants, names, markers, keep_deleted)
    return await _find(connection, wanted)


async def _find(
    connection: asyncpg.Connection[asyncpg.Record], wanted: list[DocumentBatch]
) -> dict[DocumentQueue, Created]:
    tenants, names = [batch.queue.tenant for batch in wanted], [batch.queue.name for batch in wanted]
    rows = await connection.fetch(FIND_DOCUMENTS, tenants, names)
    return {wanted[row[0] - 1].queue: Created(row[1], row[2], row[3]) for row in rows}


async def _without_refused(
    connection: asyncpg.Connection[asyncpg.Record], new: list[DocumentBatch]
) -> list[DocumentBatch]:
    """Those whose document is to be created, or is there already: not for updates that a guard refuses all of.

    Where another node creates one behind this look, our CREATE finds it, and it is judged as it is.
    """
    guarded = [batch for batch in new if batch.is_guarded]
    if not guarded:
        return new
    found = await _find(connection, guarded)
    for batch in guarded:
        batch.judgement = None if batch.queue in found else judge(GuardedState(), batch.updates)
    return [batch for batch in new if batch.judgement is None or batch.judgement.kept]
