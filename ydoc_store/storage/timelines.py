"""The timelines that this database has been on: which cursors of the change feed are good here, and up to where.

A row says on which timeline it was written, so whoever finds it is on that one or on one that came from it. A server
that was a standby until it took over tells up to where it had followed, until its next restart: nodes note it when
they see it. Where a link is missing, what was handed out before is not trusted.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from ydoc_store.storage.feed_cursor import Source, Timeline
from ydoc_store.storage.incarnation import read_incarnation
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.incarnation import Incarnation
    from ydoc_store.storage.pool import Connection, Database

# What a snapshot shows was written before this place of the WAL, if it was taken before; a standby has it received.
READ_THROUGH_LSN = """
SELECT (
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_flush_lsn()
    END - '0/0'
)::bigint
"""
# The next in number is the next in line, for each takes a greater number than those it knows. How far a primary is
# cannot be told by its standby; on which timeline, a standby's control file knows only since its last checkpoint, and
# the rows that it has replayed know before.
READ_TIMELINES = """
WITH known AS MATERIALIZED (
    SELECT t.timeline, t.marker, t.noted_at, t.began_at, greatest(max(t.timeline) OVER (), $2) AS newest
    FROM ydoc.timelines AS t
    WHERE t.system_identifier = $1 AND (t.timeline <= $2 OR pg_is_in_recovery())
)
SELECT k.timeline, k.marker, k.noted_at,
    (
        CASE WHEN k.timeline < k.newest THEN n.began_at
            WHEN pg_is_in_recovery() THEN '7FFFFFFF/FFFFFFFF'
            ELSE pg_current_wal_flush_lsn()
        END - '0/0'
    )::bigint AS ends_at
FROM known AS k
LEFT JOIN known AS n ON n.timeline = k.timeline + 1
ORDER BY k.timeline
"""
# Only a server that received WAL in this life was a standby in it: any other replayed its own, behind a crash. Whoever
# read the number from a server that was followed by another since writes nothing there. It is of no worth to a client,
# and lost it only expires cursors: a primary whose standby is away must not hold up for it whoever reads.
NOTE_TIMELINE = """
INSERT INTO ydoc.timelines (system_identifier, timeline, began_at)
SELECT $1, $2, CASE WHEN pg_last_wal_receive_lsn() IS NOT NULL THEN pg_last_wal_replay_lsn() END
FROM set_config('synchronous_commit', 'local', true)
WHERE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer = $2
ON CONFLICT (system_identifier, timeline) DO NOTHING
"""


async def read_source(connection: Connection) -> Source:
    """Whose cursors are good on this connection, as of now; notes the timeline if nobody has. Raises asyncpg's
    errors."""
    incarnation = await read_incarnation(connection)
    timelines = await _timelines(connection, incarnation)
    if not _ends_with(timelines, incarnation):
        await _note(connection, incarnation)
        timelines = await _timelines(connection, incarnation)
    if not _ends_with(timelines, incarnation):
        # The database takes no writes. Good for as long as nobody who may write has come by.
        unnoted = Timeline(incarnation.timeline, f"timeline {incarnation.timeline}", incarnation.started_at, 2**63)
        timelines = [*timelines, unnoted]
    named = (incarnation.system_identifier, incarnation.database_oid, incarnation.table_oid, incarnation.bump)
    return Source("\0".join(map(str, named)), timelines)


async def note_timeline(database: Database, incarnation: Incarnation) -> None:
    """Keep where this timeline began, as long as that can be told, unless the database takes no writes. Raises
    ServerFault."""
    async with database.acquire() as connection:
        with mapping_errors("noting the timeline"):
            await _note(connection, incarnation)


async def _note(connection: Connection, incarnation: Incarnation) -> None:
    with contextlib.suppress(asyncpg.ReadOnlySQLTransactionError):
        await connection.execute(NOTE_TIMELINE, incarnation.system_identifier, incarnation.timeline)


def _ends_with(timelines: list[Timeline], incarnation: Incarnation) -> bool:
    return bool(timelines) and timelines[-1].number >= incarnation.timeline


async def _timelines(connection: Connection, incarnation: Incarnation) -> list[Timeline]:
    rows = await connection.fetch(READ_TIMELINES, incarnation.system_identifier, incarnation.timeline)
    return [Timeline(row["timeline"], str(row["marker"]), row["noted_at"], row["ends_at"]) for row in rows]
