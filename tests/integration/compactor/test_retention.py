"""History: replayed to any seq inside the window, and dropped only up to a base that is older than it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import asyncpg
import pytest

from compactor import retention
from compactor.compaction import Compacted, Terms, compact
from compactor.retention import Retained, Retention
from compactor.worker import Worker
from tests.log_rows import Writer, append, create_document, text_of
from ydoc_store.errors import CorruptDocument, ServerFault
from ydoc_store.storage.commits import NEWEST_KEPT
from ydoc_store.storage.pool import Database
from ydoc_store.storage.segments import Replay, replay
from ydoc_store.storage.verification import verify_document

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TEXT = "every keystroke can be replayed"


async def replay_to(connection: Connection, document_id: int, seq: int) -> Replay:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await replay(connection, document_id, seq)


async def days_pass(connection: Connection, days: int) -> None:
    """Everything that stands now was made so many days earlier."""
    for table, column in (("snapshots", "created_at"), ("segments", "created_at"), ("compactions", "started_at")):
        await connection.execute(f"UPDATE ydoc.{table} SET {column} = {column} - make_interval(days => {days})")


async def bases(connection: Connection) -> list[tuple[int, bool]]:
    rows = await connection.fetch("SELECT through_seq, superseded_at IS NULL FROM ydoc.snapshots ORDER BY through_seq")
    return [(row[0], row[1]) for row in rows]


async def segments(connection: Connection) -> list[tuple[int, int]]:
    rows = await connection.fetch("SELECT after_seq, through_seq FROM ydoc.segments ORDER BY through_seq")
    return [(row[0], row[1]) for row in rows]


async def type_and_compact(
    database: Database, connection: Connection, worker: Worker, terms: Terms, document_id: int, updates: list[bytes]
) -> None:
    await append(connection, document_id, updates, a_row=2, actor="ann")
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)


async def compact_thrice(database: Database, connection: Connection, worker: Worker, terms: Terms) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    for _ in range(3):
        await type_and_compact(database, connection, worker, terms, document_id, writer.type_each("ab"))


@pytest.mark.parametrize("compacted_through", [0, 10, 20, 31])
async def test_a_document_is_replayed_to_every_seq_wherever_its_rows_are_by_now(
    database: Database, connection: Connection, worker: Worker, terms: Terms, compacted_through: int
) -> None:
    updates = Writer().type_each(TEXT)
    document_id = await create_document(connection)
    for at in range(0, compacted_through, 5):
        await type_and_compact(
            database, connection, worker, terms, document_id, updates[at : min(at + 5, compacted_through)]
        )
    await append(connection, document_id, updates[compacted_through:], a_row=3)
    for seq in range(1, len(updates) + 1):
        found = await replay_to(connection, document_id, seq)
        assert text_of(found.updates()) == TEXT[:seq], seq


async def test_the_rows_of_a_segment_keep_their_actor_their_time_and_their_seq(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("abcd"), a_row=2, actor="änn")
    logged = [tuple(row) for row in await connection.fetch("SELECT seq, count, actor, accepted_at FROM ydoc.updates")]
    await compact(database, worker, document_id, terms, forced=True)
    found = await replay_to(connection, document_id, 3)
    assert [(row.seq, row.count, row.actor, row.accepted_at) for row in found.rows] == logged


async def test_the_first_superseded_snapshot_of_a_day_is_kept_as_a_base_and_the_others_are_not(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    for _day in range(2):
        for _ in range(3):
            await type_and_compact(database, connection, worker, terms, document_id, writer.type_each("ab"))
        await days_pass(connection, 1)
    assert await bases(connection) == [(2, False), (8, False), (12, True)]


async def test_what_is_inside_the_window_stays(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await compact_thrice(database, connection, worker, terms)
    await days_pass(connection, 6)
    assert await Retention(database, history_days=7, bases_min=1).drop_some() == Retained()
    assert await segments(connection) == [(0, 2), (2, 4), (4, 6)]


async def test_segments_go_only_up_to_a_base_older_than_the_window_and_the_rest_can_be_replayed(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    for day in (5, 4, 0):
        for _ in range(2):
            await type_and_compact(database, connection, worker, terms, document_id, writer.type_each("ab"))
        await days_pass(connection, day)
    # The bases at 2, 6 and 10 are now 9, 4 and 0 days old.
    assert await bases(connection) == [(2, False), (6, False), (10, False), (12, True)]
    dropped = await Retention(database, history_days=7, bases_min=1).drop_some()
    assert (dropped.documents, dropped.bases, dropped.segments) == (1, 0, 1)
    assert await bases(connection) == [(2, False), (6, False), (10, False), (12, True)]
    assert await segments(connection) == [(2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    for seq in range(2, 13):
        assert len(text_of((await replay_to(connection, document_id, seq)).updates())) == seq
    with pytest.raises(CorruptDocument, match="no history from seq 0 to 1"):
        await replay_to(connection, document_id, 1)


async def test_a_quiet_document_keeps_its_snapshot_and_no_history_beyond_the_window(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await compact_thrice(database, connection, worker, terms)
    await days_pass(connection, 8)
    await Retention(database, history_days=7, bases_min=1).drop_some()
    assert (await bases(connection), await segments(connection)) == ([(6, True)], [])


async def test_a_minimum_of_bases_stays_whatever_a_clock_that_jumped_says(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await compact_thrice(database, connection, worker, terms)
    await days_pass(connection, 4_000)
    await Retention(database, history_days=7, bases_min=2).drop_some()
    assert (await bases(connection), await segments(connection)) == ([(2, False), (6, True)], [(2, 4), (4, 6)])


async def test_with_no_window_all_history_is_dropped_at_once(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    await compact_thrice(database, connection, worker, terms)
    await Retention(database, history_days=0, bases_min=3).drop_some()
    assert (await bases(connection), await segments(connection)) == ([(6, True)], [])


async def test_history_that_is_switched_off_ends_at_a_base_until_it_goes(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    """I9: nothing is damaged, and `verify` says so."""
    writer = Writer()
    document_id = await create_document(connection)
    for history_days in (7, 7, 0, 0):
        chosen = replace(terms, history_days=history_days)
        await type_and_compact(database, connection, worker, chosen, document_id, writer.type_each("ab"))
    assert await bases(connection) == [(2, False), (4, False), (8, True)]
    verified = await verify_document(database, document_id)
    assert verified is not None
    assert verified.findings == []
    await Retention(database, history_days=0, bases_min=1).drop_some()
    assert (await bases(connection), await segments(connection)) == ([(8, True)], [])


async def test_history_that_is_switched_on_again_has_a_base_where_it_begins(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    writer = Writer()
    document_id = await create_document(connection)
    for history_days in (7, 7, 0, 7):
        chosen = replace(terms, history_days=history_days)
        await type_and_compact(database, connection, worker, chosen, document_id, writer.type_each("ab"))
    assert await segments(connection) == [(0, 2), (2, 4), (6, 8)]
    assert await bases(connection) == [(2, False), (4, False), (6, False), (8, True)]
    assert len(text_of((await replay_to(connection, document_id, 7)).updates())) == 7
    with pytest.raises(CorruptDocument):
        await replay_to(connection, document_id, 5)


async def test_a_document_that_a_compactor_is_at_is_left_for_the_next_pass(
    database: Database, connection: Connection, worker: Worker, terms: Terms
) -> None:
    document_id = await create_document(connection)
    await type_and_compact(database, connection, worker, terms, document_id, Writer().type_each("ab"))
    async with connection.transaction():
        assert await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('ydoc compaction of ' || $1::bigint, 0))", document_id
        )
        assert (await Retention(database, history_days=0, bases_min=1).drop_some()).documents == 0
    assert (await Retention(database, history_days=0, bases_min=1).drop_some()).segments == 1


async def test_rows_of_what_was_done_go_with_the_window_but_the_newest_thousand(
    database: Database, connection: Connection
) -> None:
    await connection.execute(
        "INSERT INTO ydoc.compactions (document_id, started_at, duration_ms, result, why, after_seq) "
        "SELECT 1, now() - interval '8 days', 1, 'lost', 'rows', 0 FROM generate_series(1, 1200)"
    )
    dropped = await Retention(database, history_days=7, bases_min=1).drop_some()
    assert dropped.compactions == 199
    assert await connection.fetchval("SELECT count(*) FROM ydoc.compactions") == 1_001


@pytest.mark.parametrize(("history_days", "left"), [(0, ["a", "b"]), (7, ["a", "b"]), (30, ["a", "b", "c"])])
async def test_silent_producers_go_with_the_window_and_none_within_a_week(
    database: Database, connection: Connection, history_days: int, left: list[str]
) -> None:
    await connection.execute(
        "INSERT INTO ydoc.producers (document_id, producer_id, epoch, seq, last_at) "
        "VALUES (1, 'a', 0, 0, now()), (1, 'b', 0, 0, now() - interval '6 days'),"
        " (2, 'c', 0, 0, now() - interval '8 days')"
    )
    dropped = await Retention(database, history_days=history_days, bases_min=1).drop_some()
    rows = await connection.fetch("SELECT producer_id FROM ydoc.producers ORDER BY producer_id")
    assert [row[0] for row in rows] == left
    assert dropped.producers == 3 - len(left)


async def fill_feed(connection: Connection, tenant: str, old: int) -> None:
    """So many rows of last week's, and today's as many as are never dropped."""
    await connection.execute(
        "INSERT INTO ydoc.commits (tenant, what, document_ids, at)"
        " SELECT $1, 'created', ARRAY[n], now() - make_interval(days => CASE WHEN n <= $2 THEN 8 ELSE 0 END)"
        " FROM generate_series(1, $3::bigint) AS n",
        tenant,
        old,
        NEWEST_KEPT + old,
    )


COUNT_OLD = "SELECT count(*) FROM ydoc.commits WHERE at < now() - interval '1 day'"


async def pieces(passing: Retention, count: int) -> list[Retained]:
    return [await passing.drop_some() for _ in range(count)]


async def test_a_pass_drops_what_has_left_the_feeds_window_of_every_tenant_piece_by_piece(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("one", "two"):
        await fill_feed(connection, tenant, 40)
    assert (await Retention(database, history_days=9, bases_min=1).drop_some()).commits == 0
    monkeypatch.setattr(retention, "ROWS_MAX", 15)
    monkeypatch.setattr(retention, "PIECE_S", 0)
    passing = Retention(database, history_days=7, bases_min=1)
    dropped = [piece.commits for piece in await pieces(passing, 20)]
    assert [commits for commits in dropped if commits] == [15, 15, 10] * 2
    assert await connection.fetchval(COUNT_OLD) == 0


async def test_a_pass_comes_to_its_end_before_the_next_begins_however_late(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the next one began by the clock, the same tenants were looked at again and the others never."""
    for number in range(5):
        await fill_feed(connection, f"tenant {number}", 1)
    monkeypatch.setattr(retention, "PIECE_S", 0)
    monkeypatch.setattr(retention, "PASS_INTERVAL_S", 0)
    await pieces(Retention(database, history_days=7, bases_min=1), 12)
    assert await connection.fetchval(COUNT_OLD) == 0


async def test_what_postgres_refuses_of_one_thing_keeps_no_other_from_going(
    database: Database, connection: Connection, worker: Worker, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged page stays damaged: a pass that ended there would never come to what lies behind it."""
    await compact_thrice(database, connection, worker, terms)
    await days_pass(connection, 8)
    await fill_feed(connection, "one", 3)
    rows = await connection.fetch(
        "INSERT INTO ydoc.documents (tenant, kind, name, marker, deleted_at)"
        " SELECT 't', 'stream', n, $1::bigint + n, now() FROM generate_series(1, 3) AS n RETURNING id",
        2**53 - 2**24,
    )
    for row in rows:
        await connection.execute("INSERT INTO ydoc.streams (document_id, content_type) VALUES ($1, 'text/plain')", *row)
    damaged = rows[1]["id"]
    purge = retention.purge_stream_rows

    async def refuses(connection: Connection, document_id: int, limit: int) -> int:
        if document_id == damaged:
            raise ServerFault("invalid page in block 7")
        return await purge(connection, document_id, limit)

    async def refuses_all(*_arguments: object, **_keywords: object) -> int:
        raise ServerFault("invalid page in block 7")

    monkeypatch.setattr(retention, "purge_stream_rows", refuses)
    monkeypatch.setattr(retention, "drop_compactions", refuses_all)
    dropped = await Retention(database, history_days=7, bases_min=1).drop_some()
    assert (dropped.segments, dropped.streams, dropped.commits) == (3, 2, 3)
