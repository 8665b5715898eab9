"""Tombstones and epochs: a document is deleted, undeleted, purged, begun anew, or replaced by a repaired one.

Each of these is one transaction on the locked head row, which every append locks and judges in the statement that
writes: an append is either before, and part of the old history, or refused (I12, I10). An epoch is a row of its own
with an id and a random marker that were never used; a replaced one keeps its rows until they are purged. Open rooms
hear of it by a hint, or by their poll. What a repaired epoch holds is made elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ydoc_store.errors import ConditionFailed, DocumentDeleted, NoSuchDocument, StorageBusy, WrongState
from ydoc_store.storage.append_batch import HINT_CHANNEL
from ydoc_store.storage.commits import note
from ydoc_store.storage.compactions import TRY_LOCK
from ydoc_store.storage.creating import new_marker
from ydoc_store.storage.pool import affected, mapping_errors
from ydoc_store.storage.quarantine import clear_failures
from ydoc_store.storage.requests import is_repeat, note_done
from ydoc_store.yjs.lib0 import frame

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.commits import Happening
    from ydoc_store.storage.guards import Producer
    from ydoc_store.storage.pool import Connection, Database

# A row that another transaction replaces while its lock is waited for is no longer current, and is left out then.
LOCK_CURRENT = """
SELECT d.id, d.epoch, d.head, d.keep_deleted, d.deleted_at, d.purged_at
FROM ydoc.documents AS d
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL
FOR NO KEY UPDATE
"""
EXISTS_CURRENT = """
SELECT EXISTS (
    SELECT
    FROM ydoc.documents AS d
    WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2 AND d.replaced_at IS NULL
)
"""
# Two that replace the same document take turns; nobody loses this race more often than there are others.
LOCK_TRIES_MAX = 5

SET_TOMBSTONE = """
UPDATE ydoc.documents SET deleted_at = now(), changed_at = now() WHERE id = $1 RETURNING deleted_at
"""
TAKE_TOMBSTONE = "UPDATE ydoc.documents SET deleted_at = NULL, changed_at = now() WHERE id = $1"

REPLACE = "UPDATE ydoc.documents SET replaced_at = now() WHERE id = $1"
MARKERS_OF = """
SELECT d.marker FROM ydoc.documents AS d WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2
"""
INSERT_EPOCH = """
INSERT INTO ydoc.documents (tenant, name, epoch, marker, head, accepted_rows, accepted_bytes, keep_deleted)
VALUES ($1, $2, $3, $4, $5, $5, $6, $7)
RETURNING id
"""
INSERT_CONTENT = "INSERT INTO ydoc.updates (document_id, seq, count, frames) VALUES ($1, 1, 1, $2)"

LIST_EPOCHS = """
SELECT d.id, d.epoch, d.head, d.created_at, d.changed_at, d.deleted_at, d.replaced_at, d.purged_at,
    (SELECT coalesce(sum(pg_column_size(s.bytes)), 0) FROM ydoc.snapshots AS s WHERE s.document_id = d.id)
    + (SELECT coalesce(sum(octet_length(g.bytes)), 0) FROM ydoc.segments AS g WHERE g.document_id = d.id)
    + (SELECT coalesce(sum(pg_column_size(u.frames)), 0) FROM ydoc.updates AS u WHERE u.document_id = d.id)
    AS stored_bytes
FROM ydoc.documents AS d
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2
ORDER BY d.epoch
"""

# In the order in which appends lock heads: a room that was discarded may have one under way to an epoch before.
LOCK_EPOCHS = """
SELECT d.id, d.deleted_at, d.replaced_at, d.purged_at
FROM ydoc.documents AS d
WHERE d.tenant = $1 AND d.kind = 'document' AND d.name = $2
ORDER BY d.id
FOR NO KEY UPDATE
"""
# The counters go with the content: what is left holds together, as an epoch to which nothing was ever accepted.
MARK_PURGED = """
UPDATE ydoc.documents
SET purged_at = now(), head = 0, accepted_rows = 0, accepted_bytes = 0
WHERE id = $1
"""
PURGE_SNAPSHOTS = "DELETE FROM ydoc.snapshots WHERE document_id = $1"
PURGE_UPDATES = "DELETE FROM ydoc.updates WHERE document_id = $1"
PURGE_SEGMENTS = "DELETE FROM ydoc.segments WHERE document_id = $1"
PURGE_PRODUCERS = "DELETE FROM ydoc.producers WHERE document_id = $1"
PURGE_COMPACTIONS = "DELETE FROM ydoc.compactions WHERE document_id = $1"

# "Look at this document, it is not what it was": no commit has a count of 0. See fanout/hints. A notification queue
# that is full would abort the transaction, and the poll finds it anyway.
TELL_CHANGED = """
SELECT pg_notify($1, ';|' || $2::bigint || ':0:0') WHERE pg_notification_queue_usage() < 0.5
"""


@dataclass(frozen=True, slots=True)
class Content:
    """What a new epoch begins with, as its first update: verified, and `way` tells how it was merged."""

    update: bytes
    way: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A deleted document. `changed` is False where it was deleted before, `deleted_at` None where that was undone."""

    document_id: int
    epoch: int
    head: int
    deleted_at: datetime | None
    changed: bool


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """`epoch` replaced the one before it, whose head was `replaced_head` at that moment."""

    document_id: int
    epoch: int
    replaced_document_id: int
    replaced_epoch: int
    replaced_head: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """One history of a name, current unless `replaced_at` is set; `stored_bytes` are those on disk."""

    document_id: int
    epoch: int
    head: int
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None
    replaced_at: datetime | None
    purged_at: datetime | None
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge took, over all epochs that it was about."""

    epochs: int
    updates: int
    snapshots: int
    segments: int


async def delete_document(
    database: Database,
    tenant: str,
    name: str,
    *,
    expected: tuple[int, int] | None = None,
    actor: str | None = None,
    request: Producer | None = None,
) -> Tombstone:
    """Set the tombstone; deleting twice changes nothing, nor does a `request` that was done before. Content and history
    stay for an undelete until purged.

    Nothing is accepted for the document from the COMMIT on; its open rooms close. Raises NoSuchDocument, KeyReused,
    ServerFault; ConditionFailed where it is not at the `expected` epoch and head.
    """
    with mapping_errors(f"deleting {name!r}"):
        async with database.transaction() as connection:
            row = await _lock_current(connection, tenant, name)
            unchanged = Tombstone(row["id"], row["epoch"], row["head"], row["deleted_at"], changed=False)
            if await is_repeat(connection, row["id"], request):
                return unchanged
            if row["deleted_at"] is None and expected not in (None, (row["epoch"], row["head"])):
                raise ConditionFailed(row["head"])
            await note_done(connection, row["id"], request)
            if row["deleted_at"] is not None:
                return unchanged
            deleted_at = await connection.fetchval(SET_TOMBSTONE, row["id"])
            await note(connection, "deleted", row["id"], seq=row["head"], actor=actor)
            await tell_changed(connection, row["id"])
    return Tombstone(row["id"], row["epoch"], row["head"], deleted_at, changed=True)


async def undelete_document(
    database: Database, tenant: str, name: str, *, actor: str | None = None, request: Producer | None = None
) -> Epoch:
    """Take the tombstone away: the same epoch goes on, and clients that knew it may bring what they hold. A `request`
    that was done before changes nothing.

    Raises NoSuchDocument, WrongState where it is not deleted or its content is purged, KeyReused, ServerFault.
    """
    with mapping_errors(f"undeleting {name!r}"):
        async with database.transaction() as connection:
            row = await _lock_current(connection, tenant, name)
            if await is_repeat(connection, row["id"], request):
                return (await _epochs(connection, tenant, name))[-1]
            if row["deleted_at"] is None:
                raise WrongState(f"{name!r} is not deleted")
            if row["purged_at"] is not None:
                raise WrongState(f"{name!r} was purged: nothing is left to undelete; recreate it to begin anew")
            await note_done(connection, row["id"], request)
            await connection.execute(TAKE_TOMBSTONE, row["id"])
            await note(connection, "undeleted", row["id"], seq=row["head"], actor=actor)
            epochs = await _epochs(connection, tenant, name)
    return epochs[-1]


async def recreate_document(database: Database, tenant: str, name: str, *, actor: str | None = None) -> NewEpoch:
    """Begin a deleted document anew: an empty epoch, which no client of the old one can write to.

    Raises NoSuchDocument, WrongState where it is not deleted, ServerFault.
    """
    with mapping_errors(f"recreating {name!r}"):
        async with database.transaction() as connection:
            row = await _lock_current(connection, tenant, name)
            if row["deleted_at"] is None:
                raise WrongState(f"{name!r} is not deleted: only a deleted document is begun anew")
            return await _replace(connection, tenant, name, row, None, "recreated", actor)


async def replace_content(
    database: Database, tenant: str, name: str, content: Content | None, *, epoch: int
) -> NewEpoch:
    """Replace the current epoch by a new one that holds `content` (None: nothing) as its first update.

    `epoch` is the one that the caller looked at: where another is current by now, WrongState is raised. What was
    appended until the switch stays in the old epoch and is told by `replaced_head`; what comes later is refused
    with EpochChanged. Raises NoSuchDocument, DocumentDeleted, ServerFault.
    """
    with mapping_errors(f"replacing {name!r}"):
        async with database.transaction() as connection:
            row = await _lock_current(connection, tenant, name)
            if row["deleted_at"] is not None:
                raise DocumentDeleted(f"{name!r} was deleted meanwhile")
            if row["epoch"] != epoch:
                raise WrongState(f"{name!r} was replaced meanwhile: it is at epoch {row['epoch']}, not {epoch}")
            return await _replace(connection, tenant, name, row, content, "replaced")


async def purge_document(
    database: Database, tenant: str, name: str, *, replaced_only: bool, deleted_at: datetime | None = None
) -> Purged:
    """Delete content and history of a deleted document and of all epochs before it, for good; tombstones stay.

    With `replaced_only` the current epoch is left alone, whatever its state. `deleted_at` names the tombstone that is
    meant: one that was taken away meanwhile, or set anew, is WrongState. A compaction that is under way is
    waited for, within the lock time-out. Raises NoSuchDocument, WrongState where there is nothing that may be
    purged, StorageBusy.
    """
    with mapping_errors(f"purging {name!r}"):
        async with database.transaction() as connection:
            rows = await connection.fetch(LOCK_EPOCHS, tenant, name)
            if not rows:
                raise NoSuchDocument(f"no document is named {name!r}")
            current = next((row for row in rows if row["replaced_at"] is None), None)
            if current is None:
                raise StorageBusy(f"{name!r} was replaced this moment: try again")
            if not replaced_only and current["deleted_at"] is None:
                raise WrongState(f"{name!r} is not deleted: only a deleted document is purged")
            if deleted_at is not None and current["deleted_at"] != deleted_at:
                raise WrongState(f"{name!r} was undeleted meanwhile")
            wanted = [row for row in rows if row is not current or not replaced_only]
            ids = [row["id"] for row in wanted if row["purged_at"] is None]
            updates = snapshots = segments = 0
            for document_id in ids:
                # Without it a compaction under way could put its snapshot behind our DELETE.
                if not await connection.fetchval(TRY_LOCK, document_id):
                    raise StorageBusy(f"a compaction of {name!r} is under way: try again in a moment")
                snapshots += affected(await connection.execute(PURGE_SNAPSHOTS, document_id))
                updates += affected(await connection.execute(PURGE_UPDATES, document_id))
                segments += affected(await connection.execute(PURGE_SEGMENTS, document_id))
                await connection.execute(PURGE_PRODUCERS, document_id)
                await connection.execute(PURGE_COMPACTIONS, document_id)
                await clear_failures(connection, document_id)
                await connection.execute(MARK_PURGED, document_id)
                await note(connection, "purged", document_id, seq=0)
    return Purged(len(ids), updates, snapshots, segments)


async def list_epochs(database: Database, tenant: str, name: str) -> list[Epoch]:
    """Every epoch of a name in order, the current one last; none where nothing was ever accepted under it."""
    async with database.acquire() as connection:
        with mapping_errors(f"looking up the epochs of {name!r}"):
            return await _epochs(connection, tenant, name)


async def tell_changed(connection: Connection, document_id: int) -> None:
    """Have every node look at this document as soon as the transaction is committed."""
    await connection.execute(TELL_CHANGED, HINT_CHANNEL, document_id)


async def _epochs(connection: Connection, tenant: str, name: str) -> list[Epoch]:
    return [Epoch(*row) for row in await connection.fetch(LIST_EPOCHS, tenant, name)]


async def _lock_current(connection: Connection, tenant: str, name: str) -> asyncpg.Record:
    for _ in range(LOCK_TRIES_MAX):
        row = await connection.fetchrow(LOCK_CURRENT, tenant, name)
        if row is not None:
            return row
        if not await connection.fetchval(EXISTS_CURRENT, tenant, name):
            raise NoSuchDocument(f"no document is named {name!r}")
    raise StorageBusy(f"{name!r} is being replaced by others: try again")


async def _replace(
    connection: Connection,
    tenant: str,
    name: str,
    old: asyncpg.Record,
    content: Content | None,
    what: Happening,
    actor: str | None = None,
) -> NewEpoch:
    used = {row["marker"] for row in await connection.fetch(MARKERS_OF, tenant, name)}
    marker = new_marker(used)
    await connection.execute(REPLACE, old["id"])
    await clear_failures(connection, old["id"])
    size = 0 if content is None else len(content.update)
    epoch, head = old["epoch"] + 1, int(content is not None)
    new_id = await connection.fetchval(INSERT_EPOCH, tenant, name, epoch, marker, head, size, old["keep_deleted"])
    if content is not None:
        await connection.execute(INSERT_CONTENT, new_id, frame(content.update))
    await note(connection, what, new_id, seq=head, count=head, actor=actor)
    await tell_changed(connection, old["id"])
    return NewEpoch(new_id, epoch, old["id"], old["epoch"], old["head"])
