"""The connection of a lane: made for appends alone, on a server that takes them, with plans and time-outs of its own.

When it is made, lost and made again is the lane's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ydoc_store.errors import StorageUnavailable
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Database

# The first wait for a lock takes at most this share of a batch's time; the neighbours are committed in the rest.
LOCK_SHARE = 0.15
# The server gives a statement up this long after we did, so that nothing of it commits much later.
SERVER_GRACE_S = 1.0

# Every look-up of an append goes by primary key. A generic plan, made once, must stay that: made on an empty table
# it would scan the table it later runs on.
SET_UP_LANE = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false)
"""
IS_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"


async def connect_lane(database: Database, timeout_s: float) -> asyncpg.Connection[asyncpg.Record]:
    """A connection for batches that take at most `timeout_s`, to be ended by whoever asked for it.

    Raises StorageUnavailable, also where the server takes no writes, or another ServerFault.
    """
    connection = await database.connect_alone()
    try:
        with mapping_errors("setting up an append connection"):
            if await connection.fetchval(IS_READ_ONLY):
                raise StorageUnavailable("this server takes no writes: a standby, or set to read-only")
            statement_s = timeout_s + SERVER_GRACE_S
            lock_s = min(database.lock_timeout_s, timeout_s * LOCK_SHARE)
            await connection.execute(SET_UP_LANE, f"{statement_s * 1000:.0f}", f"{lock_s * 1000:.0f}")
    except BaseException:
        connection.terminate()
        raise
    return connection


def tells_of_no_standby(message: Any) -> bool:
    """Whether the server says that a commit did not wait for its standby: it is here only, and a failover loses it."""
    # The words may be in any language; the file that they come from is not.
    return message.server_source_filename == "syncrep.c" or "replication" in (message.message or "")
