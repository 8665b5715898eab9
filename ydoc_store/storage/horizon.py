"""What keeps vacuum from freeing the rows that compactions delete, and the change feed from telling what is new: the
oldest transaction that may still read the former, and the oldest that may still write before the latter.

An open transaction with a snapshot or an id of its own, a prepared one, a replication slot. Who may not look into
other accounts' sessions sees the ids all the same. For how long is the caller's to find out, by looking again: no
clock of the server's stands in this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

# A snapshot that no transaction has ended behind holds nothing: its age is 0. Autovacuum's own does not count.
FIND_OLDEST_TRANSACTION = """
SELECT h.xid::text AS xid, h.holder
FROM (
    SELECT x.xid, a.xact_start AS began_at,
        'process ' || a.pid || coalesce(' (' || nullif(a.application_name, '') || ')', '') AS holder
    FROM pg_stat_activity AS a
    CROSS JOIN unnest(ARRAY[a.backend_xid, a.backend_xmin]) AS x (xid)
    WHERE a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
        AND (a.datname = current_database() OR a.datname IS NULL)
    UNION ALL
    SELECT p.transaction, p.prepared, 'prepared transaction ' || p.gid
    FROM pg_prepared_xacts AS p
    WHERE p.database = current_database()
    UNION ALL
    SELECT s.xmin, NULL, 'replication slot ' || s.slot_name
    FROM pg_replication_slots AS s
) AS h
WHERE age(h.xid) > 0
ORDER BY age(h.xid) DESC, h.began_at
LIMIT 1
"""

# Of every database of the server, because ids are given to all of them from one row: a transaction that only reads
# has none, and holds no feed back.
FIND_OLDEST_WRITER = """
SELECT h.xid::text AS xid, h.holder
FROM (
    SELECT a.backend_xid AS xid, a.xact_start AS began_at,
        'process ' || a.pid || coalesce(' (' || nullif(a.application_name, '') || ')', '') AS holder
    FROM pg_stat_activity AS a
    WHERE a.pid <> pg_backend_pid() AND a.backend_xid IS NOT NULL AND a.backend_type <> 'autovacuum worker'
    UNION ALL
    SELECT p.transaction, p.prepared, 'prepared transaction ' || p.gid
    FROM pg_prepared_xacts AS p
) AS h
ORDER BY age(h.xid) DESC, h.began_at
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest transaction id that somebody still needs, and who that is, in words for a person."""

    xid: str
    holder: str


async def find_oldest_transaction(database: Database) -> Oldest | None:
    """What holds vacuum back at this moment, in this database; None where nothing does."""
    async with database.acquire() as connection:
        with mapping_errors("looking for old transactions"):
            row = await connection.fetchrow(FIND_OLDEST_TRANSACTION)
    return None if row is None else Oldest(row[0], row[1])


async def find_oldest_writer(database: Database) -> Oldest | None:
    """Which transaction the change feed waits for at this moment, on the whole server; None where it waits for none."""
    async with database.acquire() as connection:
        with mapping_errors("looking for transactions that write"):
            row = await connection.fetchrow(FIND_OLDEST_WRITER)
    return None if row is None else Oldest(row[0], row[1])
