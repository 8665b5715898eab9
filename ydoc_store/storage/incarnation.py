"""Which database this is, as far as it can tell: what changes when a backup is restored or a standby takes over.

Heads and seqs cannot tell it: a restored database that was written to again stands where the lost one stood, with
other content. So nodes compare this value instead (I11). Rows that are loaded back into the same tables of a running
server leave no trace in it; an operator's bump says so then. What follows from a change is decided by the rooms.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ydoc_store.storage.append_batch import HINT_CHANNEL
from ydoc_store.storage.epochs import TELL_CHANGED
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection, Database

# The timeline that is written to now stands in the name of the current WAL file; the control file's is only that of
# the last checkpoint. A cluster that was copied while it was stopped has nothing new but the time of its start.
READ_INCARNATION = """
SELECT (SELECT s.system_identifier FROM pg_control_system() AS s) AS system_identifier,
    CASE WHEN pg_is_in_recovery() THEN (SELECT c.timeline_id FROM pg_control_checkpoint() AS c)
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
    END AS timeline,
    pg_postmaster_start_time() AS started_at,
    (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())::bigint AS database_oid,
    'ydoc.documents'::regclass::oid::bigint AS table_oid,
    i.bump, i.bumped_at
FROM ydoc.incarnation AS i
"""
BUMP = "UPDATE ydoc.incarnation SET bump = gen_random_uuid(), bumped_at = now()"


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Two that are equal are one database, as far as anybody can tell. `bumped_at` is for people."""

    system_identifier: int
    timeline: int
    started_at: datetime
    database_oid: int
    table_oid: int
    bump: UUID
    bumped_at: datetime


async def read_incarnation(connection: Connection) -> Incarnation:
    """As it is now. Raises asyncpg's errors."""
    row = await connection.fetchrow(READ_INCARNATION)
    assert row is not None  # noqa: S101 # the migration inserts the one row, and nothing deletes it
    return Incarnation(*row)


async def show_incarnation(database: Database) -> Incarnation:
    """As it is now. Raises StorageUnavailable or StorageBusy."""
    async with database.acquire() as connection:
        with mapping_errors("asking which database this is"):
            return await read_incarnation(connection)


async def bump_incarnation(database: Database) -> Incarnation:
    """Tell every node that this is no longer the database that it knew: rooms are loaded anew, clients sync again."""
    async with database.transaction() as connection:
        with mapping_errors("telling that the database was restored"):
            await connection.execute(BUMP)
            # No document has this id, so every node polls at once.
            await connection.execute(TELL_CHANGED, HINT_CHANNEL, 0)
            return await read_incarnation(connection)
