"""Streams as an operator looks at them: which there are, how large, and all that one holds. Reads only.

A list reads no stream's bytes. Looking at a stream is no use of it: one that lives by being used is not kept alive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.streams import StoredStream, about_life, read_stream_after
from ydoc_store.yjs.lib0 import frames

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

PAGE_ROWS_MAX: Final = 2_000
PAGE_BYTES_MAX: Final = 1024 * 1024

LIST_STREAMS = about_life("""
SELECT d.name, d.epoch, d.head, d.accepted_bytes AS size_bytes, s.content_type, s.ttl_s, s.expires_at,
    d.closed_at, d.created_at, d.changed_at, s.used_at
FROM ydoc.documents AS d
JOIN ydoc.streams AS s ON s.document_id = d.id
WHERE d.tenant = $1 AND d.kind = 'stream' AND d.name > $2 AND <alive>
ORDER BY d.name
LIMIT $3
""")


@dataclass(frozen=True, slots=True)
class ListedStream:
    """A stream that is alive until `expires_at`, or `ttl_s` after `used_at`, which is written down now and then."""

    name: str
    epoch: int
    head: int
    size_bytes: int
    content_type: str
    ttl_s: int | None
    expires_at: datetime | None
    closed_at: datetime | None
    created_at: datetime
    changed_at: datetime
    used_at: datetime


async def list_streams(database: Database, tenant: str, after_name: str, limit: int) -> list[ListedStream]:
    """The next of a tenant's streams in name order behind `after_name`. Raises ServerFault."""
    async with database.acquire() as connection:
        with mapping_errors("listing streams"):
            return [ListedStream(*row) for row in await connection.fetch(LIST_STREAMS, tenant, after_name, limit)]


async def read_whole(database: Database, stream: StoredStream) -> AsyncIterator[bytes]:
    """What was appended to this very stream, one after another up to the head that it was found at, page by page.

    Raises NoSuchStream where it dies meanwhile, CorruptDocument for a hole, ServerFault.
    """
    cursor = 0
    while cursor < stream.head:
        page = await read_stream_after(
            database, stream.id, stream.marker, cursor, rows_max=PAGE_ROWS_MAX, bytes_max=PAGE_BYTES_MAX
        )
        for row in page.rows:
            # What was appended since is in rows of its own.
            if row.seq <= stream.head:
                for appended in frames(row.frames):
                    yield appended
            cursor = row.seq
