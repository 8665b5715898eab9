"""Streams that are deleted or have expired: their rows go, what is left goes later, no offset is reused."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from compactor import retention
from compactor.retention import PRODUCERS_DAYS_MIN, Retention
from tests.waiting import until
from ydoc_store.errors import NoSuchStream
from ydoc_store.storage.dead_streams import drop_tombstones
from ydoc_store.storage.pool import Database
from ydoc_store.storage.streams import StreamSettings, create_stream, delete_stream, find_stream

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

TEXT = StreamSettings("text/plain")
TABLES = ("updates", "producers", "streams", "documents")


async def created(database: Database, name: str, first: bytes = b"first") -> int:
    """Its epoch."""
    stream, is_new = await create_stream(database, "t", name, TEXT, first=first, actor=None, closed=False)
    assert is_new
    return stream.epoch


async def pass_of(database: Database, history_days: int = 7) -> retention.Retained:
    passing = Retention(database, history_days=history_days, bases_min=1)
    dropped = await passing.drop_some()
    while passing._left:
        # A slow machine does a pass in several pieces.
        dropped = dropped.and_also(await passing.drop_some())
    return dropped


async def days_pass(connection: Connection, days: int) -> None:
    for table, column in (("streams", "purged_at"), ("producers", "last_at")):
        await connection.execute(f"UPDATE ydoc.{table} SET {column} = {column} - make_interval(days => $1)", days)


async def counts(connection: Connection) -> list[int]:
    return [await connection.fetchval(f"SELECT count(*) FROM ydoc.{table}") for table in TABLES]


async def test_what_is_left_of_a_dead_stream_goes_when_its_producers_are_forgotten(
    database: Database, connection: Connection
) -> None:
    await created(database, "kept")
    await created(database, "dead")
    stream_id = await delete_stream(database, "t", "dead")
    await connection.execute(
        "INSERT INTO ydoc.producers (document_id, producer_id, epoch, seq) VALUES ($1, 'p', 0, 0)", stream_id
    )
    assert (await pass_of(database)).streams == 1
    await days_pass(connection, PRODUCERS_DAYS_MIN - 1)
    assert (await pass_of(database)).tombstones == 0
    await days_pass(connection, 2)
    assert (await pass_of(database, history_days=30)).tombstones == 0
    # A row that was appended while those before it were being purged.
    await connection.execute(
        "INSERT INTO ydoc.updates (document_id, seq, count, frames) VALUES ($1, 2, 1, '\\x0178')", stream_id
    )
    assert (await pass_of(database)).tombstones == 1
    assert await counts(connection) == [1, 0, 1, 1]
    assert (await find_stream(database, "t", "kept")).epoch == 1


async def test_a_name_that_is_used_again_has_an_epoch_that_none_of_its_streams_had(
    database: Database, connection: Connection
) -> None:
    epochs = []
    for _ in range(3):
        epochs.append(await created(database, "s"))
        await delete_stream(database, "t", "s")
    for _ in range(3):
        await pass_of(database)
        await days_pass(connection, PRODUCERS_DAYS_MIN + 1)
        assert (await pass_of(database)).tombstones in (1, 3)
        assert await counts(connection) == [0, 0, 0, 0]
        epochs.append(await created(database, "s"))
        await delete_stream(database, "t", "s")
    assert epochs == sorted(set(epochs))


async def test_many_go_in_pieces_and_documents_never(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TOMBSTONES_MAX", 2)
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, marker, deleted_at, purged_at)"
        " VALUES ('t', 's1', 2::bigint ^ 53 - 1, now() - interval '1 year', now() - interval '1 year')"
    )
    for number in range(5):
        await created(database, f"s{number}")
        await delete_stream(database, "t", f"s{number}")
    await pass_of(database)
    await days_pass(connection, PRODUCERS_DAYS_MIN + 1)
    assert (await pass_of(database)).tombstones == 5
    assert await counts(connection) == [0, 0, 0, 1]


async def test_a_name_that_is_taken_while_its_tombstone_goes_begins_behind_it(
    database: Database, database_url: str, connection: Connection
) -> None:
    for _ in range(2):
        epoch = await created(database, "s")
        await delete_stream(database, "t", "s")
    await pass_of(database)
    await days_pass(connection, PRODUCERS_DAYS_MIN + 1)
    patient = await Database.open(database_url, lock_timeout_s=30)
    async with connection.transaction():
        assert await drop_tombstones(connection, kept_days=PRODUCERS_DAYS_MIN, limit=10) == 2
        creating = asyncio.create_task(created(patient, "s"))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )

        async def is_waiting() -> bool:
            return bool(await connection.fetchval(waiting))

        await until(is_waiting)
    assert await creating == epoch + 1
    await patient.close()


async def test_a_tombstone_whose_name_is_being_taken_goes_all_the_same(
    database: Database, connection: Connection
) -> None:
    await created(database, "s")
    await delete_stream(database, "t", "s")
    await pass_of(database)
    await days_pass(connection, PRODUCERS_DAYS_MIN + 1)
    assert await created(database, "s") == 2
    assert (await pass_of(database)).tombstones == 1
    assert (await find_stream(database, "t", "s")).epoch == 2
    assert await counts(connection) == [1, 0, 1, 1]


async def test_a_stream_that_postgres_cannot_purge_holds_up_no_other(
    database: Database, connection: Connection
) -> None:
    for name in ("broken", "dead"):
        await created(database, name)
    broken = await delete_stream(database, "t", "broken")
    await delete_stream(database, "t", "dead")
    await connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE data_corrupted; END $$"
    )
    await connection.execute(
        f"CREATE TRIGGER refuse BEFORE DELETE ON ydoc.updates FOR EACH ROW WHEN (OLD.document_id = {broken})"
        " EXECUTE FUNCTION refuse()"
    )
    assert (await pass_of(database)).streams == 1
    assert await counts(connection) == [1, 0, 2, 2]
    with pytest.raises(NoSuchStream):
        await find_stream(database, "t", "broken")


async def test_a_database_whose_roles_are_of_a_release_before_loses_no_pass(
    database: Database, connection: Connection
) -> None:
    await connection.execute("ALTER FUNCTION ydoc.drop_stream_tombstones(integer, integer) RENAME TO gone")
    await connection.execute(
        "INSERT INTO ydoc.commits (tenant, what, document_ids, at) SELECT 't', 'created', ARRAY[1],"
        " now() - interval '8 days' FROM generate_series(1, 1001)"
    )
    assert (await pass_of(database)).commits == 1
