"""The change feed of a tenant: what happened to all its documents, in an order in which nothing comes late.

A row is read once every transaction through its `through_xid` has ended: those that are still to commit draw a
later place, so that nobody who has read up to a row has passed one that was not there yet. What one transaction did
after it waited for another's lock stands behind what that one did, which keeps the seqs of a document in order. One
transaction that stays open, in any database of the server, holds the feed back for as long. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import CursorExpired
from ydoc_store.storage.feed_cursor import OLDEST, START_OVER, Place, also_told, read_cursor, write_cursor
from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.timelines import READ_THROUGH_LSN, read_source

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Connection, Database

EVENTS_A_PAGE: Final = 500
"""Some 100 kB of lines; one row more may add as many events as a commit has documents and actors."""

EMPTY_PLACE_HOURS: Final = 12
"""Half of the least that the feed keeps: what came behind the cursor of an empty feed is there for so long."""

# From the cursor's own row on, so that its absence shows.
READ_CHANGES = """
WITH page AS MATERIALIZED (
    SELECT c.through_xid, c.id, c.at, c.what, c.document_ids, c.seqs, c.counts, c.actors, c.name_before,
        sum(cardinality(c.document_ids)) OVER (ORDER BY c.through_xid, c.id) - cardinality(c.document_ids) AS behind
    FROM (
        SELECT r.through_xid, r.id, r.at, r.what, r.document_ids, r.seqs, r.counts, r.actors, r.name_before
        FROM ydoc.commits AS r
        WHERE r.tenant = $1
            AND (r.through_xid, r.id) >= ($2::bigint, $3::bigint)
            AND r.through_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            AND r.xmin = r.writer
        ORDER BY r.through_xid, r.id
        LIMIT $4 + 1
    ) AS c
)
SELECT p.through_xid, p.id, p.at, p.what, e.document_id, d.epoch, e.seq, e.count, e.actor,
    coalesce(
        (
            SELECT n.name_before
            FROM ydoc.commits AS n
            WHERE n.what = 'renamed' AND n.document_ids[1] = e.document_id AND n.tenant = $1
                AND (n.through_xid, n.id) > (p.through_xid, p.id)
            ORDER BY n.through_xid, n.id
            LIMIT 1
        ),
        d.name
    ) AS name,
    p.name_before
FROM page AS p
CROSS JOIN LATERAL unnest(p.document_ids, p.seqs, p.counts, p.actors) AS e (document_id, seq, count, actor)
LEFT JOIN ydoc.documents AS d ON d.id = e.document_id
WHERE p.behind < $4 + $5
ORDER BY p.through_xid, p.id, e.document_id, e.seq
"""

FIND_NEWEST = """
SELECT t.tenant, s.through_xid, s.id, s.at, s.events,
    EXISTS (
        SELECT
        FROM ydoc.commits AS u
        WHERE u.tenant = t.tenant AND u.xmin = u.writer
            AND u.through_xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            AND u.through_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    ) AS is_held
FROM unnest($1::text[]) AS t (tenant)
LEFT JOIN LATERAL (
    SELECT c.through_xid, c.id, c.at, cardinality(c.document_ids) AS events
    FROM ydoc.commits AS c
    WHERE c.tenant = t.tenant AND c.xmin = c.writer
        AND c.through_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY c.through_xid DESC, c.id DESC
    LIMIT 1
) AS s ON true
"""
NOW = "SELECT now()"

_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to one document. `cursor` is the place behind it.

    `what` is append, created, compacted, deleted, undeleted, recreated, replaced, purged or renamed. An append, and
    what a new epoch begins with, is (seq - count, seq] by `actor`; elsewhere `seq` is where the document stood.
    `name` is what the document was called then, a renamed one's new name; `name_before` that one's old name.
    """

    cursor: str
    what: str
    document_id: int
    name: str
    epoch: int
    seq: int | None
    count: int | None
    actor: str | None
    at: datetime
    name_before: str | None


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another server took over since a cursor was handed out, and that was first seen `at` some time. `cursor` is the
    same place, handed out since."""

    cursor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedPage:
    """The next changes in order, and the `cursor` behind them; `at_end` tells that there were no more just then.

    They are also for whoever else stands where it was read from, and was told what is before `good_through_lsn`.
    """

    changes: list[Change]
    cursor: str
    at_end: bool
    taken_over: TakenOver | None = None
    good_through_lsn: int = 0

    def for_another(self, cursor: str) -> FeedPage:
        """The page for somebody at the same place, who keeps what their `cursor` says that they were told."""
        taken_over = self.taken_over
        if taken_over is not None:
            taken_over = replace(taken_over, cursor=also_told(taken_over.cursor, cursor))
        return replace(self, cursor=also_told(self.cursor, cursor), taken_over=taken_over)


@dataclass(frozen=True, slots=True)
class Newest:
    """Where a tenant's feed ends, None while nothing of it can be read; `is_held` tells that rows wait behind it for
    some transaction's end."""

    place: tuple[int, int] | None
    is_held: bool


async def read_changes(database: Database, tenant: str, cursor: str | None, limit: int = EVENTS_A_PAGE) -> FeedPage:
    """The changes behind `cursor`, the oldest that are kept where there is none: `limit` of them at most.

    Raises InvalidRequest for what is no cursor, CursorExpired where the database cannot say any more what came
    behind it or has not all that was told before it, ServerFault.
    """
    async with database.acquire_in_turn() as connection:
        with mapping_errors("reading the change feed"):
            source = await read_source(connection)
            after, then = (OLDEST, source.now) if cursor is None else read_cursor(source, tenant, cursor)
            rows = await connection.fetch(READ_CHANGES, tenant, after.through_xid, after.id, limit, after.seen)
            if after.id == 0:
                after = await _check_empty_place(connection, after, is_empty=not rows)
            is_behind = _check_row(after, rows)
            through_lsn = await connection.fetchval(READ_THROUGH_LSN)
    changes: list[Change] = []
    place, in_row = after, 0
    for row in rows:
        in_row = in_row + 1 if (row["through_xid"], row["id"]) == (place.through_xid, place.id) else 1
        place = Place(row["through_xid"], row["id"], _microseconds(row["at"]), in_row, through_lsn)
        if is_behind > 0:
            is_behind -= 1
        elif len(changes) < limit:
            changes.append(_change(row, write_cursor(source, tenant, place)))
    here = write_cursor(source, tenant, after)
    taken_over = None if then is source.now else TakenOver(here, source.now.noted_at)
    cursor = changes[-1].cursor if changes else here
    return FeedPage(changes, cursor, len(changes) < limit, taken_over, then.ends_at or 0)


async def newest_cursor(database: Database, tenant: str) -> str:
    """The place behind everything that can be read at this moment. Raises ServerFault."""
    async with database.acquire_in_turn() as connection:
        with mapping_errors("looking for the change feed's end"):
            source = await read_source(connection)
            row = await connection.fetchrow(FIND_NEWEST, [tenant])
            now, through_lsn = await connection.fetchval(NOW), await connection.fetchval(READ_THROUGH_LSN)
    assert row is not None  # noqa: S101 # one row a tenant that is asked for
    if row["id"] is None:
        place = Place(at_us=_microseconds(now), through_lsn=through_lsn)
    else:
        place = Place(row["through_xid"], row["id"], _microseconds(row["at"]), row["events"], through_lsn)
    return write_cursor(source, tenant, place)


async def find_newest(database: Database, tenants: Sequence[str]) -> dict[str, Newest]:
    """Where the feeds of these tenants end now: one query for all of them. Raises ServerFault."""
    async with database.acquire() as connection:
        with mapping_errors("polling the change feed"):
            rows = await connection.fetch(FIND_NEWEST, list(tenants))
    return {
        row["tenant"]: Newest(None if row["id"] is None else (row["through_xid"], row["id"]), row["is_held"])
        for row in rows
    }


def _check_row(after: Place, rows: list[asyncpg.Record]) -> int:
    """How many of the rows' events are behind us; CursorExpired where the cursor's own row is not among them."""
    if after.id == 0:
        return 0
    own = [row for row in rows[: after.seen] if (row["through_xid"], row["id"]) == (after.through_xid, after.id)]
    if len(own) < after.seen or not own or _microseconds(own[0]["at"]) != after.at_us:
        raise CursorExpired(f"what came behind this cursor is not kept any more: {START_OVER}")
    return after.seen


async def _check_empty_place(connection: Connection, after: Place, *, is_empty: bool) -> Place:
    """The place to go on from; where the feed is still empty it is of this moment."""
    if after.at_us == 0 and not is_empty:
        return after
    now_us = _microseconds(await connection.fetchval(NOW))
    if after.at_us and now_us - after.at_us > EMPTY_PLACE_HOURS * 3_600_000_000:
        raise CursorExpired(f"what came behind this cursor may not be kept any more: {START_OVER}")
    return Place(at_us=now_us, through_lsn=after.through_lsn) if is_empty else after


def _microseconds(at: datetime) -> int:
    return (at - _1970) // timedelta(microseconds=1)


def _change(row: asyncpg.Record, cursor: str) -> Change:
    return Change(
        cursor,
        row["what"],
        row["document_id"],
        row["name"] or "",
        row["epoch"] or 0,
        row["seq"],
        row["count"],
        row["actor"],
        row["at"],
        row["name_before"],
    )
