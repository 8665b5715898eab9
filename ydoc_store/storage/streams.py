"""Streams: bytes in the order in which they came, in the same rows as documents and with what they were created with.

A stream is a head row of its own kind. It is created here, with its first bytes; appends are the appender's, and
nothing ever merges them. One that is deleted, or that nobody used for as long as it was to live, is dead at once for
everybody; what becomes of it then is in `dead_streams`. A name whose stream is dead may be used again, as another
epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import CorruptDocument, NoSuchStream, StorageBusy, StreamDiffers
from ydoc_store.storage.creating import new_marker
from ydoc_store.storage.epochs import LOCK_TRIES_MAX, REPLACE, SET_TOMBSTONE, tell_changed
from ydoc_store.storage.loader import LogRow
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.yjs.lib0 import frame

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Connection, Database

TTL_SLACK: Final = 0.05
"""A stream lives this share longer than it was to, so that not every use of it has to be written down."""

_IS_ALIVE = """d.deleted_at IS NULL AND d.replaced_at IS NULL AND s.expired_at IS NULL
    AND (s.expires_at IS NULL OR s.expires_at > now())
    AND (s.ttl_s IS NULL OR s.used_at + make_interval(secs => s.ttl_s * (1 + <slack>)) > now())"""

_COLUMNS = """d.id, d.epoch, d.marker, d.head, d.closed_at IS NOT NULL AS closed, s.content_type, s.ttl_s,
    s.expires_text, extract(epoch FROM s.expires_at - now())::double precision AS expires_in_s,
    (<alive>) AS alive"""


def about_life(statement: str) -> str:
    """A statement about `d`, a head row, and `s`, what it was created with, that asks `<alive>` or for `<columns>`."""
    return statement.replace("<columns>", _COLUMNS).replace("<alive>", _IS_ALIVE).replace("<slack>", str(TTL_SLACK))


FIND_STREAM = about_life("""
SELECT <columns>
FROM ydoc.documents AS d
JOIN ydoc.streams AS s ON s.document_id = d.id
WHERE d.tenant = $1 AND d.kind = 'stream' AND d.name = $2 AND d.replaced_at IS NULL
""")
LOCK_STREAM = FIND_STREAM.replace("SELECT ", "SELECT s.expires_at, ", 1) + "FOR NO KEY UPDATE OF d\n"

# Rows are bounded before their bytes are added up, or a long stream would be walked to its end for each page. The
# first is taken however large it is. One statement, so that the head and the rows are of one moment.
_PAGE = """
SELECT h.*, p.seqs, p.counts, p.frames
FROM head AS h
CROSS JOIN LATERAL (
    SELECT array_agg(b.seq ORDER BY b.seq) AS seqs, array_agg(b.count ORDER BY b.seq) AS counts,
        array_agg(b.frames ORDER BY b.seq) AS frames
    FROM (
        SELECT r.seq, r.count, r.frames,
            sum(octet_length(r.frames)) OVER (ORDER BY r.seq ROWS UNBOUNDED PRECEDING) AS bytes_through
        FROM (
            SELECT u.seq, u.count, u.frames
            FROM ydoc.updates AS u
            WHERE u.document_id = h.id AND u.seq > {cursor}::bigint
            ORDER BY u.seq
            LIMIT {rows}
        ) AS r
    ) AS b
    WHERE b.bytes_through - octet_length(b.frames) < {bytes}::bigint
) AS p
"""
READ_STREAM = "WITH head AS MATERIALIZED (" + FIND_STREAM + ")" + _PAGE.format(cursor="$3", rows="$4", bytes="$5")
READ_STREAM_AFTER = about_life("""
WITH head AS MATERIALIZED (
    SELECT <columns>
    FROM ydoc.documents AS d
    JOIN ydoc.streams AS s ON s.document_id = d.id
    WHERE d.id = $1 AND d.marker = $2
)""") + _PAGE.format(cursor="$3", rows="$4", bytes="$5")

# No index is named for the conflict: with one named, the other unique index raises where two nodes race.
INSERT_STREAM = """
INSERT INTO ydoc.documents
    (tenant, kind, name, epoch, marker, head, accepted_rows, accepted_bytes, closed_at, keep_deleted)
VALUES ($1, 'stream', $2, $3, $4, $5, $5, $6, CASE WHEN $7 THEN now() END, true)
ON CONFLICT DO NOTHING
RETURNING id
"""
INSERT_STREAM_SETTINGS = """
INSERT INTO ydoc.streams (document_id, content_type, ttl_s, expires_text, expires_at) VALUES ($1, $2, $3, $4, $5)
"""
INSERT_FIRST = """
INSERT INTO ydoc.updates (document_id, seq, count, actor, frames) VALUES ($1, 1, 1, $2, $3)
"""
STREAM_MARKERS_OF = """
SELECT d.marker FROM ydoc.documents AS d WHERE d.tenant = $1 AND d.kind = 'stream' AND d.name = $2
"""
TOUCH_STREAM = about_life("""
UPDATE ydoc.streams AS s
SET used_at = now()
FROM ydoc.documents AS d
WHERE s.document_id = $1 AND d.id = s.document_id AND <alive>
RETURNING 1
""")

# Where a name has no row: behind every epoch that one of its streams can have had.
FREE_EPOCH = "SELECT e.spent + 1 FROM ydoc.stream_epochs AS e"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a stream is created with. It lives `ttl_s` after its last use, or until `expires_at`, or for ever.

    `content_type` is kept as it was given, `expires_text` too; two are the same stream's if what they mean is.
    """

    content_type: str
    ttl_s: int | None = None
    expires_at: datetime | None = None
    expires_text: str | None = None

    @property
    def media_type(self) -> str:
        return media_type_of(self.content_type)


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream that is alive, as one moment of the database had it. It expires `expires_in_s` from then."""

    id: int
    epoch: int
    marker: int
    head: int
    closed: bool
    content_type: str
    ttl_s: int | None
    expires_text: str | None
    expires_in_s: float | None


@dataclass(frozen=True, slots=True)
class StoredPage:
    """The rows that follow a cursor, as many as fit: the first may begin before it, and more may follow the last."""

    stream: StoredStream
    rows: Sequence[LogRow]


def media_type_of(content_type: str) -> str:
    """`text/plain` of `Text/Plain; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


async def create_stream(
    database: Database,
    tenant: str,
    name: str,
    settings: StreamSettings,
    *,
    first: bytes,
    actor: str | None,
    closed: bool,
) -> tuple[StoredStream, bool]:
    """The stream of this name, and whether this call created it, with `first` as its first bytes (b"": none).

    Raises StreamDiffers where there is one that was created otherwise, or that is not as `closed` as asked for;
    ServerFault.
    """
    with mapping_errors(f"creating the stream {name!r}"):
        async with database.transaction() as connection:
            for _ in range(LOCK_TRIES_MAX):
                row = await connection.fetchrow(LOCK_STREAM, tenant, name)
                if row is not None and row["alive"]:
                    _compare(row, settings, closed=closed)
                    return _stream(row), False
                if row is None:
                    epoch = await connection.fetchval(FREE_EPOCH)
                else:
                    epoch = row["epoch"] + 1
                    await connection.execute(REPLACE, row["id"])
                    await tell_changed(connection, row["id"])
                made = await _insert(connection, tenant, name, settings, epoch, first, actor, closed=closed)
                if made is not None:
                    return made, True
    raise StorageBusy(f"the stream {name!r} is being created and deleted by others: try again")


async def read_stream(
    database: Database, tenant: str, name: str, cursor: int, *, rows_max: int, bytes_max: int
) -> StoredPage:
    """The stream of this name and what follows `cursor`. Raises NoSuchStream, CorruptDocument, ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors(f"reading the stream {name!r}"):
            row = await connection.fetchrow(READ_STREAM, tenant, name, cursor, rows_max, bytes_max)
    return _page(row, cursor)


async def read_stream_after(
    database: Database, document_id: int, marker: int, cursor: int, *, rows_max: int, bytes_max: int
) -> StoredPage:
    """As `read_stream`, of this very stream: NoSuchStream also where its name means another by now."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("reading a stream"):
            row = await connection.fetchrow(READ_STREAM_AFTER, document_id, marker, cursor, rows_max, bytes_max)
    return _page(row, cursor)


async def find_stream(database: Database, tenant: str, name: str) -> StoredStream:
    """The stream of this name. Raises NoSuchStream, ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors(f"looking for the stream {name!r}"):
            row = await connection.fetchrow(FIND_STREAM, tenant, name)
    return _alive(row)


async def touch_stream(database: Database, document_id: int) -> bool:
    """Count its life from now on; False where that is over."""
    async with database.acquire() as connection:
        with mapping_errors("using a stream"):
            return await connection.fetchval(TOUCH_STREAM, document_id) is not None


async def delete_stream(database: Database, tenant: str, name: str) -> int:
    """End the stream of this name for good; returns its id. Raises NoSuchStream, ServerFault."""
    with mapping_errors(f"deleting the stream {name!r}"):
        async with database.transaction() as connection:
            stream = _alive(await connection.fetchrow(LOCK_STREAM, tenant, name))
            await connection.execute(SET_TOMBSTONE, stream.id)
            await tell_changed(connection, stream.id)
    return stream.id


async def _insert(
    connection: Connection,
    tenant: str,
    name: str,
    settings: StreamSettings,
    epoch: int,
    first: bytes,
    actor: str | None,
    *,
    closed: bool,
) -> StoredStream | None:
    used = {row["marker"] for row in await connection.fetch(STREAM_MARKERS_OF, tenant, name)}
    marker = new_marker(used)
    head = int(bool(first))
    stream_id = await connection.fetchval(INSERT_STREAM, tenant, name, epoch, marker, head, len(first), closed)
    if stream_id is None:
        return None
    await connection.execute(
        INSERT_STREAM_SETTINGS,
        stream_id,
        settings.content_type,
        settings.ttl_s,
        settings.expires_text,
        settings.expires_at,
    )
    if first:
        await connection.execute(INSERT_FIRST, stream_id, actor, frame(first))
    return _alive(await connection.fetchrow(FIND_STREAM, tenant, name), but_expired=True)


def _compare(row: asyncpg.Record, settings: StreamSettings, *, closed: bool) -> None:
    there = (media_type_of(row["content_type"]), row["ttl_s"], row["expires_at"], row["closed"])
    if there != (settings.media_type, settings.ttl_s, settings.expires_at, closed):
        raise StreamDiffers("there is a stream of this name that was created otherwise")


def _stream(row: asyncpg.Record) -> StoredStream:
    return StoredStream(
        row["id"],
        row["epoch"],
        row["marker"],
        row["head"],
        row["closed"],
        row["content_type"],
        row["ttl_s"],
        row["expires_text"],
        row["expires_in_s"],
    )


def _alive(row: asyncpg.Record | None, *, but_expired: bool = False) -> StoredStream:
    if row is None or not (row["alive"] or but_expired):
        raise NoSuchStream("there is no stream of this name")
    return _stream(row)


def _page(row: asyncpg.Record | None, cursor: int) -> StoredPage:
    stream = _alive(row)
    assert row is not None  # noqa: S101 # or it had not been alive
    rows = list(map(LogRow, row["seqs"] or (), row["counts"] or (), row["frames"] or ()))
    at = cursor
    for index, found in enumerate(rows):
        begins = found.seq - found.count
        if begins != at and not (index == 0 and begins < at < found.seq):
            raise CorruptDocument(f"stream {stream.id}: row {found.seq} begins at {begins} and not at {at}")
        at = found.seq
    if not rows and at < stream.head:
        raise CorruptDocument(f"stream {stream.id}: nothing follows {at}, its head is {stream.head}")
    return StoredPage(stream, rows)
