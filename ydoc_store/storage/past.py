"""A document as it was: which seqs of which epoch can be read, and every update up to one of them.

What `repair` begins with. All of it is read at one moment, in one REPEATABLE READ transaction, and nothing is locked:
what lies at or below a seq never changes. How a past is replayed lives in `segments`; what becomes of it is not
known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.errors import CorruptDocument, NoSuchDocument, WrongState
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.segments import replay

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection, Database

# The first seq that can be replayed: none where rows reach back to the first update, else the oldest snapshot's.
READ_EPOCHS = """
SELECT d.id, d.epoch, d.head, d.keep_deleted, d.deleted_at IS NOT NULL AS deleted, d.replaced_at IS NULL AS current,
    d.purged_at IS NOT NULL AS purged,
    CASE WHEN d.head = 0
            OR EXISTS (SELECT FROM ydoc.segments AS g WHERE g.document_id = d.id AND g.after_seq = 0)
            OR EXISTS (SELECT FROM ydoc.updates AS u WHERE u.document_id = d.id AND u.seq = u.count)
        THEN 0
        ELSE (SELECT min(s.through_seq) FROM ydoc.snapshots AS s WHERE s.document_id = d.id)
    END AS earliest_seq
FROM ydoc.documents AS d
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2
ORDER BY d.epoch
"""


@dataclass(frozen=True, slots=True)
class Past:
    """An epoch at `seq`: `updates`, merged, are its content there; `at_head` likewise, None where that is damaged.

    History reaches back to `earliest_seq`, None where nothing can be replayed at all. `current_epoch` is the one
    that a repair would replace.
    """

    document_id: int
    epoch: int
    current_epoch: int
    head: int
    earliest_seq: int | None
    keep_deleted: bool
    seq: int
    updates: list[bytes]
    at_head: list[bytes] | None


async def read_past(database: Database, tenant: str, name: str, seq: int, *, epoch: int | None = None) -> Past:
    """The document as it was at `seq` of an epoch, by default of the current one.

    Raises NoSuchDocument; WrongState where the document is deleted, the epoch unknown or purged, or the seq beyond
    its head; CorruptDocument where history does not reach that seq; ServerFault.
    """
    async with database.acquire() as connection:
        with mapping_errors(f"reading the history of {name!r}"):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _read(connection, tenant, name, seq, epoch)


async def _read(connection: Connection, tenant: str, name: str, seq: int, epoch: int | None) -> Past:
    rows = await connection.fetch(READ_EPOCHS, tenant, name)
    current = next((row for row in rows if row["current"]), None)
    if current is None:
        raise NoSuchDocument(f"no document is named {name!r}")
    if current["deleted"]:
        raise WrongState(f"{name!r} is deleted: undelete it first, or recreate it to begin anew")
    wanted = current if epoch is None else next((row for row in rows if row["epoch"] == epoch), None)
    if wanted is None:
        raise WrongState(f"{name!r} has the epochs 1 to {current['epoch']}, and none of number {epoch}")
    if wanted["purged"]:
        raise WrongState(f"epoch {wanted['epoch']} of {name!r} was purged: nothing of it is left")
    if seq > wanted["head"]:
        raise WrongState(f"epoch {wanted['epoch']} of {name!r} ends at seq {wanted['head']}, before {seq}")
    document_id, earliest_seq = wanted["id"], wanted["earliest_seq"]
    try:
        updates = (await replay(connection, document_id, seq)).updates()
    except CorruptDocument as error:
        reach = "nothing of it can be replayed" if earliest_seq is None else f"history begins at seq {earliest_seq}"
        raise CorruptDocument(f"{error} ({reach})") from error
    try:
        at_head = (await replay(connection, document_id, wanted["head"])).updates()
    except CorruptDocument:
        # Which may be the very reason for the repair.
        at_head = None
    return Past(
        document_id,
        wanted["epoch"],
        current["epoch"],
        wanted["head"],
        earliest_seq,
        wanted["keep_deleted"],
        seq,
        updates,
        at_head,
    )
