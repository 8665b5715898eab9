"""What keeps vacuum from freeing the rows that compactions delete: the oldest transaction that may still read them.

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
