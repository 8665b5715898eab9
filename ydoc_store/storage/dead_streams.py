"""What becomes of streams that are deleted or have expired: their rows go soon, what is left of them after a while.

Nothing brings a dead stream back, so there is no window for its bytes. Its head row stays for as long as producers are
remembered, and then goes too, by a function of the schema that finds such heads and no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.storage.pool import affected
from ydoc_store.storage.streams import about_life

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

FIND_DEAD_STREAMS = about_life("""
SELECT s.document_id
FROM ydoc.streams AS s
JOIN ydoc.documents AS d ON d.id = s.document_id
WHERE s.purged_at IS NULL AND s.document_id > $1 AND NOT (<alive>)
ORDER BY s.document_id
LIMIT $2
""")
# A use that was not committed when it was found dead is waited for by this, and then it is alive.
EXPIRE_STREAM = about_life("""
UPDATE ydoc.streams AS s
SET expired_at = now()
FROM ydoc.documents AS d
WHERE s.document_id = $1 AND d.id = s.document_id AND NOT (<alive>)
RETURNING 1
""")
PURGE_STREAM_ROWS = """
DELETE FROM ydoc.updates AS u
WHERE u.document_id = $1 AND u.seq = ANY (ARRAY(
    SELECT o.seq FROM ydoc.updates AS o WHERE o.document_id = $1 ORDER BY o.seq LIMIT $2
))
"""
MARK_STREAM_PURGED = "UPDATE ydoc.streams SET purged_at = now() WHERE document_id = $1"
DROP_TOMBSTONES = "SELECT ydoc.drop_stream_tombstones($1, $2)"


async def find_dead_streams(connection: Connection, after_id: int, limit: int) -> list[int]:
    """The next streams behind `after_id` that are dead and still have their rows."""
    return [row[0] for row in await connection.fetch(FIND_DEAD_STREAMS, after_id, limit)]


async def expire_stream(connection: Connection, document_id: int) -> bool:
    """Write down that it is dead, so that nothing can use it any more; False where it was used meanwhile."""
    return await connection.fetchval(EXPIRE_STREAM, document_id) is not None


async def purge_stream_rows(connection: Connection, document_id: int, limit: int) -> int:
    """Delete its oldest rows; returns how many. Fewer than `limit`: none are left, and that is written down."""
    purged = affected(await connection.execute(PURGE_STREAM_ROWS, document_id, limit))
    if purged < limit:
        await connection.execute(MARK_STREAM_PURGED, document_id)
    return purged


async def drop_tombstones(connection: Connection, *, kept_days: int, limit: int) -> int:
    """Forget streams whose rows went so long ago; returns how many. How far their epochs came stays."""
    dropped: int = await connection.fetchval(DROP_TOMBSTONES, kept_days, limit)
    return dropped
