"""I5 I20: the change feed tells everything once, in order, and passes by nothing that is committed late."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from tests.appending import Owner, numbered
from tests.log_rows import create_document
from tests.waiting import until
from ydoc_store.errors import CursorExpired, InvalidRequest
from ydoc_store.storage.append_batch import append_batch
from ydoc_store.storage.appender import Appender
from ydoc_store.storage.commits import drop_outlived
from ydoc_store.storage.epochs import delete_document
from ydoc_store.storage.feed import Change, find_newest, newest_cursor, read_changes
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.lane_connection import SET_UP_LANE
from ydoc_store.storage.pool import Database
from ydoc_store.storage.renaming import rename_document

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

WAIT_S = 60.0


@pytest.fixture
async def appender(database: Database) -> AsyncIterator[Appender]:
    started = Appender(database, timeout_s=WAIT_S)
    await started.start()
    yield started
    await started.drain(5)


async def read_on(
    database: Database, cursor: str | None = None, *, tenant: str = "t", limit: int = 500
) -> tuple[list[Change], str]:
    """Every change behind the cursor, page by page, and the place behind them."""
    found: list[Change] = []
    while True:
        page = await read_changes(database, tenant, cursor, limit)
        found += page.changes
        cursor = page.cursor
        if page.at_end:
            return found, cursor


def placed(changes: list[Change]) -> list[Change]:
    """The changes, without how much of the WAL each reader's cursor speaks for."""
    return [replace(change, cursor=change.cursor[:64]) for change in changes]


def told(changes: list[Change]) -> list[tuple[str, str, int | None, int | None]]:
    return [(change.what, change.name, change.seq, change.count) for change in changes]


async def commit(connection: Connection, *owners_and_updates: tuple[Owner, int]) -> None:
    """One group commit on this connection, as a lane of another node makes it."""
    await append_batch(
        connection,
        [owner.batch(*numbered(count)) for owner, count in owners_and_updates],
        timeout_s=WAIT_S,
        hints=None,
        waited_for_standby=lambda: True,
    )


async def owners(appender: Appender, connection: Connection, *names: str) -> list[Owner]:
    """Documents that exist, in the order of their ids."""
    made = []
    for name in names:
        made.append(Owner(appender, name))
        made[-1].queue.document_id = await create_document(connection, name)
    return made


@pytest.fixture
async def lanes(database_url: str) -> AsyncIterator[list[Connection]]:
    """Connections that are set up as a lane's are."""
    made = []
    for _ in range(3):
        made.append(await asyncpg.connect(database_url))
        await made[-1].execute(SET_UP_LANE, "60000", "60000")
    yield made
    for lane in made:
        await lane.close()


async def test_an_append_and_what_it_creates_are_told_once_in_order(appender: Appender, database: Database) -> None:
    owner = Owner(appender, "notes")
    owner.put(b"u1", actor="ann")
    await owner.heard_of(1)
    owner.put(b"u2", b"u3", actor="ann")
    owner.put(b"u4", actor="ben")
    await owner.heard_of(4)
    changes, cursor = await read_on(database)
    assert told(changes)[:2] == [("created", "notes", None, None), ("append", "notes", 1, 1)]
    appended = [change for change in changes if change.what == "append"]
    assert [(change.seq, change.count, change.actor) for change in appended] == [
        (1, 1, "ann"),
        (3, 2, "ann"),
        (4, 1, "ben"),
    ]
    assert {change.document_id for change in changes} == {owner.document_id}
    assert {change.epoch for change in changes} == {1}
    assert await read_on(database, cursor) == ([], cursor)


async def test_a_tenant_is_told_its_own_alone(appender: Appender, database: Database) -> None:
    for tenant in ("one", "two"):
        owner = Owner(appender, "same name", tenant)
        owner.put(b"u")
        await owner.heard_of(1)
    (one, _), (two, cursor) = await read_on(database, tenant="one"), await read_on(database, tenant="two")
    assert len(one) == len(two) == 2
    assert {change.document_id for change in one}.isdisjoint(change.document_id for change in two)
    with pytest.raises(CursorExpired):
        await read_changes(database, "one", cursor)


async def test_one_commit_of_several_tenants_is_a_row_for_each(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    made = []
    for tenant in ("b", "a", "b"):
        made.append(Owner(appender, f"of {tenant} {len(made)}", tenant))
        made[-1].queue.document_id = await create_document(connection, made[-1].name, tenant=tenant)
    await commit(lanes[0], *((owner, 2) for owner in made))
    assert told((await read_on(database, tenant="a"))[0]) == [("append", "of a 1", 2, 2)]
    assert told((await read_on(database, tenant="b"))[0]) == [("append", "of b 0", 2, 2), ("append", "of b 2", 2, 2)]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.commits") == 2


@pytest.mark.parametrize("documents", [0, 1, 2])
async def test_appends_to_streams_are_not_told_whatever_else_is_in_their_commit(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database, documents: int
) -> None:
    made = await owners(appender, connection, *(f"doc {number}" for number in range(documents)), "a", "b")
    await connection.execute("UPDATE ydoc.documents SET kind = 'stream' WHERE name IN ('a', 'b')")
    await commit(lanes[0], *((owner, 2) for owner in made))
    changes, _ = await read_on(database)
    assert told(changes) == [("append", f"doc {number}", 2, 2) for number in range(documents)]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == documents + 2


async def test_nothing_is_told_while_a_transaction_may_still_write_before_it(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    late, early = await owners(appender, connection, "late", "early")
    _, start = await read_on(database)
    await lanes[0].execute("BEGIN")
    await commit(lanes[0], (late, 1))
    await commit(lanes[1], (early, 1))
    # Committed, and behind one that is not.
    assert (await read_on(database, start))[0] == [], "told, though another may still commit before it"
    assert (await find_newest(database, ["t"]))["t"].is_held
    await lanes[0].execute("COMMIT")
    changes, _ = await read_on(database, start, limit=1)
    assert told(changes) == [("append", "late", 1, 1), ("append", "early", 1, 1)]
    assert not (await find_newest(database, ["t"]))["t"].is_held


async def test_whoever_waited_for_anothers_commit_stands_behind_it_whichever_began_first(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    first, second, shared = await owners(appender, connection, "first", "second", "shared")
    waiting, other, holder = lanes
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM ydoc.documents WHERE id = $1 FOR NO KEY UPDATE", second.document_id)
    # It has its transaction id, from the lock on the first, and waits for the second.
    slow = asyncio.create_task(commit(waiting, (first, 1), (second, 1), (shared, 1)))
    await until(lambda: waits_for(connection, waiting, holder))
    await other.execute("BEGIN")
    await commit(other, (shared, 1))
    await holder.execute("COMMIT")
    await until(lambda: waits_for(connection, waiting, other))
    await other.execute("COMMIT")
    await slow
    assert await connection.fetchval(
        "SELECT min(u.xmin::text::bigint) FILTER (WHERE seq = 2) < min(u.xmin::text::bigint) FILTER (WHERE seq = 1)"
        " FROM ydoc.updates AS u WHERE document_id = $1",
        shared.document_id,
    ), "the one that came second began first"
    changes, _ = await read_on(database, limit=1)
    assert [change.seq for change in changes if change.name == "shared"] == [1, 2]


async def waits_for(connection: Connection, who: Connection, whom: Connection) -> bool:
    pids = who.get_server_pid(), whom.get_server_pid()
    return bool(await connection.fetchval("SELECT $2 = ANY (pg_blocking_pids($1))", *pids))


async def test_every_seq_is_read_once_in_order_while_many_write_and_one_transaction_stays_open(
    database_url: str, database: Database, lanes: list[Connection]
) -> None:
    dice = random.Random(7)
    names = [f"doc {number}" for number in range(12)]
    # Two nodes that share every document, so that their batches wait for each other's heads.
    nodes = [Appender(database, timeout_s=WAIT_S, lanes=2) for _ in range(2)]
    for node in nodes:
        await node.start()
    rooms = [Owner(node, name) for node in nodes for name in names]
    finished, written = asyncio.Event(), asyncio.Event()
    total = 0

    async def write() -> None:
        nonlocal total
        for _ in range(60):
            for room in dice.sample(rooms, 5):
                room.put(b"u")
                total += 1
            await asyncio.sleep(0)
            await asyncio.gather(*(room.heard_of(heard_by[room]) for room in rooms if counted(room)))
        finished.set()

    heard_by: dict[Owner, int] = defaultdict(int)

    def counted(room: Owner) -> bool:
        heard_by[room] = len(room.accepted_updates) + len(room.queue.waiting) + len(room.queue.in_flight)
        return bool(heard_by[room])

    async def hold() -> None:
        """Now and then a transaction has written, and takes its time to commit."""
        while not finished.is_set():
            document_id = await create_document(lanes[0], f"held {dice.random()}")
            await lanes[0].execute("BEGIN")
            await lanes[0].execute(
                "INSERT INTO ydoc.commits (tenant, what, document_ids) VALUES ('t', 'created', ARRAY[$1::bigint])",
                document_id,
            )
            await asyncio.sleep(dice.random() / 20)
            await lanes[0].execute("COMMIT")

    async def follow(limit: int) -> list[Change]:
        found: list[Change] = []
        cursor: str | None = None
        while True:
            is_whole = written.is_set() and not (await find_newest(database, ["t"]))["t"].is_held
            page = await read_changes(database, "t", cursor, limit)
            found += page.changes
            cursor = page.cursor
            if page.at_end and is_whole:
                return found

    readers = [asyncio.create_task(follow(limit)) for limit in (1, 7, 500)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        tasks.create_task(hold())
    written.set()
    read = [await reader for reader in readers]
    for node in nodes:
        await node.drain(5)
    assert sum(len(room.refused_updates) for room in rooms) == 0
    for changes in read:
        heads: dict[int, int] = defaultdict(int)
        for change in changes:
            if change.what == "append":
                assert change.seq is not None
                assert change.count is not None
                assert change.seq - change.count == heads[change.document_id], "passed by, repeated or out of order"
                heads[change.document_id] = change.seq
        assert sum(heads.values()) == total, "not all of it was told"
        assert len({change.cursor for change in changes}) == len(changes)
    assert placed(read[0]) == placed(read[1]) == placed(read[2]), "there is one order"
    cursors = [change.cursor for change in read[0]]
    assert cursors == sorted(cursors), "the texts sort as their places do"


async def test_a_page_may_end_inside_a_commit(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    made = await owners(appender, connection, *(f"doc {number}" for number in range(7)))
    await commit(lanes[0], *((owner, 1) for owner in made))
    await commit(lanes[0], *((owner, 2) for owner in made))
    whole, _ = await read_on(database)
    assert len(whole) == 14
    for limit in (1, 2, 3, 5, 7, 13, 14):
        assert placed((await read_on(database, limit=limit))[0]) == placed(whole)
    for place, change in enumerate(whole):
        assert placed((await read_on(database, change.cursor))[0]) == placed(whole[place + 1 :])


async def test_the_newest_cursor_is_behind_everything_and_a_page_of_nothing_keeps_its_place(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    empty = await newest_cursor(database, "t")
    assert (await read_changes(database, "t", empty)).changes == []
    one, two = await owners(appender, connection, "one", "two")
    await commit(lanes[0], (one, 1), (two, 1))
    newest = await newest_cursor(database, "t")
    assert await read_on(database, newest) == ([], newest)
    await commit(lanes[0], (one, 1))
    assert told((await read_on(database, newest))[0]) == [("append", "one", 2, 1)]
    assert len((await read_on(database, empty))[0]) == 3
    assert await find_newest(database, ["t", "nobody"]) == {
        "t": (await find_newest(database, ["t"]))["t"],
        "nobody": (await find_newest(database, ["nobody"]))["nobody"],
    }
    assert (await find_newest(database, ["nobody"]))["nobody"].place is None


async def test_what_was_called_otherwise_then_is_told_by_the_name_of_then(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    for name_before, name in (("a", "b"), ("b", "c")):
        await commit(lanes[0], (owner, 1))
        await rename_document(database, "t", name_before, name, actor="ann")
    await commit(lanes[0], (owner, 1))
    changes, _ = await read_on(database)
    assert told(changes) == [
        ("append", "a", 1, 1),
        ("renamed", "b", None, None),
        ("append", "b", 2, 1),
        ("renamed", "c", None, None),
        ("append", "c", 3, 1),
    ]
    assert [change.name_before for change in changes if change.what == "renamed"] == ["a", "b"]


# Cursors that are of no more use


@pytest.mark.parametrize(
    "cursor", ["", "x", "0" * 76, "0" * 78, "=" * 77, "é" * 77, "0" * 75 + "==", "z" * 77, "v" * 76 + "0"]
)
async def test_what_is_no_cursor_is_refused_as_that(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        await read_changes(database, "t", cursor)


async def test_a_cursor_from_before_a_restore_is_refused(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    empty = await newest_cursor(database, "t")
    await commit(lanes[0], (owner, 1))
    _, cursor = await read_on(database)
    await bump_incarnation(database)
    for old in (empty, cursor):
        with pytest.raises(CursorExpired, match="restored"):
            await read_changes(database, "t", old)


async def test_a_database_that_takes_no_writes_hands_out_cursors_too(
    appender: Appender, connection: Connection, lanes: list[Connection], database_url: str
) -> None:
    (owner,) = await owners(appender, connection, "a")
    await commit(lanes[0], (owner, 1))
    assert await connection.fetchval("SELECT count(*) FROM ydoc.timelines") == 0
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    read_only = await Database.open(database_url)
    changes, cursor = await read_on(read_only)
    assert told(changes) == [("append", "a", 1, 1)]
    assert await read_on(read_only, cursor) == ([], cursor)
    await read_only.close()


async def test_a_cursor_whose_row_is_another_by_now_is_refused(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    await commit(lanes[0], (owner, 1))
    _, cursor = await read_on(database)
    # As in a stopped cluster's copy that was put back and written to: the same numbers, at another moment.
    await connection.execute("UPDATE ydoc.commits SET at = at + interval '1 s', writer = pg_current_xact_id()::xid")
    with pytest.raises(CursorExpired, match="begin again"):
        await read_changes(database, "t", cursor)


async def test_rows_from_a_dump_are_told_to_nobody_and_go_first(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    for ahead in (0, 10_000):
        await connection.execute(
            "INSERT INTO ydoc.commits (tenant, through_xid, id, writer, what, document_ids) OVERRIDING SYSTEM VALUE"
            " VALUES ('t', ydoc.newest_xid() + $1, 1000, '7', 'created', ARRAY[$2::bigint])",
            ahead,
            owner.document_id,
        )
    await commit(lanes[0], (owner, 1))
    changes, cursor = await read_on(database)
    assert told(changes) == [("append", "a", 1, 1)]
    assert not (await find_newest(database, ["t"]))["t"].is_held
    assert await read_on(database, await newest_cursor(database, "t")) == ([], cursor)
    await drop_outlived(connection, "t", history_days=7, limit=100, keep_newest=1)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.commits") == 2
    # The other is in the window still, and leaves with it.
    await connection.execute("UPDATE ydoc.commits SET at = at - interval '8 days' WHERE writer = '7'")
    await drop_outlived(connection, "t", history_days=7, limit=100, keep_newest=1)
    assert told((await read_on(database))[0]) == [("append", "a", 1, 1)]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.commits") == 1


async def test_rows_that_vacuum_froze_or_moved_are_told_as_before(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    for _ in range(3):
        await commit(lanes[0], (owner, 1))
    before, _ = await read_on(database)
    assert len(before) == 3
    for way in ("FREEZE", "FULL"):
        await connection.execute(f"VACUUM ({way}) ydoc.commits")
        assert placed((await read_on(database))[0]) == placed(before)
        assert placed((await read_on(database, before[0].cursor))[0]) == placed(before[1:])


# Retention

GROW_OLD = """
UPDATE ydoc.commits SET at = now() - make_interval(days => $2), writer = pg_current_xact_id()::xid WHERE id <= $1
"""


async def test_the_window_drops_the_oldest_without_a_gap_and_keeps_the_newest(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    (owner,) = await owners(appender, connection, "a")
    for _ in range(10):
        await commit(lanes[0], (owner, 1))
    ids = [row[0] for row in await connection.fetch("SELECT id FROM ydoc.commits ORDER BY id")]
    await connection.execute(GROW_OLD, ids[5], 8)
    whole, end = await read_on(database)
    assert await drop_outlived(connection, "t", history_days=9, limit=100, keep_newest=1) == 0
    assert await drop_outlived(connection, "t", history_days=7, limit=4, keep_newest=1) == 4
    assert await drop_outlived(connection, "t", history_days=7, limit=4, keep_newest=1) == 2
    assert await drop_outlived(connection, "t", history_days=7, limit=4, keep_newest=1) == 0
    assert placed((await read_on(database))[0]) == placed(whole[6:])
    for expired in whole[:6]:
        with pytest.raises(CursorExpired, match="not kept"):
            await read_changes(database, "t", expired.cursor)
    assert placed((await read_on(database, whole[6].cursor))[0]) == placed(whole[7:])
    await connection.execute(GROW_OLD, ids[9], 8)
    whole, end = await read_on(database)
    assert await drop_outlived(connection, "t", history_days=7, limit=100, keep_newest=1) == 3
    # Who has read it all has missed nothing, however long it was quiet.
    assert await read_on(database, end) == ([], end)


async def test_a_clock_that_jumps_leaves_the_newest_rows_where_they_are(
    appender: Appender, connection: Connection, lanes: list[Connection], database: Database
) -> None:
    """I20."""
    (owner,) = await owners(appender, connection, "a")
    for _ in range(5):
        await commit(lanes[0], (owner, 1))
    await connection.execute(GROW_OLD, 2**40, 400)
    whole, _ = await read_on(database)
    assert await drop_outlived(connection, "t", history_days=7, limit=100) == 0
    assert await drop_outlived(connection, "t", history_days=7, limit=100, keep_newest=3) == 2
    assert placed((await read_on(database, whole[2].cursor))[0]) == placed(whole[3:])


async def test_without_history_the_feed_is_kept_for_a_day(
    appender: Appender, connection: Connection, lanes: list[Connection]
) -> None:
    (owner,) = await owners(appender, connection, "a")
    for _ in range(2):
        await commit(lanes[0], (owner, 1))
    assert await drop_outlived(connection, "t", history_days=0, limit=100, keep_newest=1) == 0
    await connection.execute(GROW_OLD, 2**40, 2)
    assert await drop_outlived(connection, "t", history_days=0, limit=100, keep_newest=1) == 1


async def test_the_cursor_of_an_empty_feed_expires_before_what_came_behind_it_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = await newest_cursor(database, "t")
    assert (await read_changes(database, "t", cursor)).at_end
    monkeypatch.setattr("ydoc_store.storage.feed.EMPTY_PLACE_HOURS", 0)
    with pytest.raises(CursorExpired, match="may not be kept"):
        await read_changes(database, "t", cursor)


async def test_a_purged_documents_changes_are_still_told(appender: Appender, database: Database) -> None:
    owner = Owner(appender, "gone")
    owner.put(b"u")
    await owner.heard_of(1)
    await delete_document(database, "t", "gone")
    changes, _ = await read_on(database)
    assert [change.what for change in changes] == ["created", "append", "deleted"]
    assert {change.name for change in changes} == {"gone"}
