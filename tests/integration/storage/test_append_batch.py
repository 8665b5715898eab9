"""One commit: its locks, its seqs, its guards, its hints, and what each answer means (I1, I3, I12)."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.appending import Owner, log_of, numbered
from tests.log_rows import create_document
from tests.postgres import Cluster
from tests.waiting import until
from ydoc_store.errors import (
    CommitUnknown,
    DocumentDeleted,
    EpochChanged,
    RoomDiscarded,
    StorageBusy,
    StorageUnavailable,
    TooLarge,
    YdocError,
)
from ydoc_store.storage.append_batch import (
    APPEND_BATCH,
    Accepted,
    DocumentBatch,
    Result,
    append_batch,
)
from ydoc_store.storage.append_columns import HINT_BYTES_MAX
from ydoc_store.storage.appender import Appender
from ydoc_store.storage.creating import CREATE_DOCUMENTS, FIND_DOCUMENTS
from ydoc_store.storage.lane import Lane
from ydoc_store.storage.outcomes import find_free_heads
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import frames

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only
Committing = Callable[..., Awaitable[list[Result]]]


class _Hints:
    hint_prefix = "node1"
    inline_bytes_max = 6_000


@pytest.fixture
async def connect(database: Database) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """Connections set up as a lane's."""
    lanes: list[Lane] = []

    async def connect() -> Connection:
        lanes.append(Lane(Appender(database), len(lanes)))
        return await lanes[-1].connect()

    yield connect
    for lane in lanes:
        await lane.stop()


@pytest.fixture
def appender(database: Database) -> Appender:
    """Never started: it gives out queues."""
    return Appender(database)


async def commit(lane: Connection, *batches: DocumentBatch, hints: Any = None, timeout_s: float = 10.0) -> list[Result]:
    return await append_batch(lane, list(batches), timeout_s=timeout_s, hints=hints, waited_for_standby=lambda: True)


async def owner_of(appender: Appender, connection: Connection, name: str) -> Owner:
    owner = Owner(appender, name)
    owner.queue.document_id = await create_document(connection, name)
    return owner


async def waits_for_a_lock(connection: Connection, lane: Connection) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"

    async def is_waiting() -> bool:
        return bool(await connection.fetchval(query, lane.get_server_pid()))

    await until(is_waiting)


# Seqs


async def test_a_commit_advances_each_head_and_inserts_a_row_for_each_run_of_an_actor(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    first, second = await owner_of(appender, connection, "a"), await owner_of(appender, connection, "b")
    batch = first.batch(b"1", b"2", actor="anna")
    batch.updates += first.batch(b"3", actor="bert").updates + first.batch(b"4", actor="anna").updates
    batch.size = 4
    assert await commit(lane, batch, second.batch(b"x")) == [Accepted(4, None), Accepted(1, None)]
    assert await commit(lane, second.batch(b"y", b"z")) == [Accepted(3, None)]
    rows = await connection.fetch(
        "SELECT seq, count, actor FROM ydoc.updates WHERE document_id = $1 ORDER BY seq", first.document_id
    )
    assert [tuple(row) for row in rows] == [(2, 2, "anna"), (3, 1, "bert"), (4, 1, "anna")]
    assert await log_of(connection, first.document_id) == [b"1", b"2", b"3", b"4"]
    assert await log_of(connection, second.document_id) == [b"x", b"y", b"z"]


async def test_results_come_in_the_batches_order_whatever_order_the_heads_are_locked_in(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owners = [await owner_of(appender, connection, f"d{number}") for number in range(20)]
    random.Random(7).shuffle(owners)
    batches = [owner.batch(*numbered(place + 1)) for place, owner in enumerate(owners)]
    assert await commit(lane, *batches) == [Accepted(place + 1, None) for place in range(20)]


async def test_two_appenders_on_one_document_leave_no_gap(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    owner = await owner_of(appender, connection, "shared")

    async def write(who: str) -> list[bytes]:
        lane = await connect()
        written: list[bytes] = []
        for number in range(100):
            updates = numbered(1 + number % 3, f"{who}{number}.")
            (result,) = await commit(lane, owner.batch(*updates))
            assert isinstance(result, Accepted)
            written += updates
        return written

    ours, theirs = await asyncio.gather(write("a"), write("b"))
    log = await log_of(connection, owner.document_id)
    assert [update for update in log if update.startswith(b"a")] == ours
    assert [update for update in log if update.startswith(b"b")] == theirs
    assert len(log) == len(ours) + len(theirs)


async def test_a_document_that_comes_twice_in_one_commit_is_appended_to_once(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "a")
    twin = Owner(appender, "a")
    twin.queue.document_id = owner.document_id
    first, second = await commit(lane, owner.batch(b"1", b"2"), twin.batch(b"3"))
    assert first == Accepted(2, None)
    assert isinstance(second, RoomDiscarded)
    assert await log_of(connection, owner.document_id) == [b"1", b"2"]


# Locks


async def test_concurrent_appenders_over_many_documents_never_deadlock(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    owners = [await owner_of(appender, connection, f"d{number:02}") for number in range(40)]
    counts = dict.fromkeys(owners, 0)

    async def write(seed: int) -> None:
        lane = await connect()
        dice = random.Random(seed)
        for _ in range(60):
            chosen = dice.sample(owners, 25)
            results = await commit(lane, *(owner.batch(b"u") for owner in chosen))
            assert all(isinstance(result, Accepted) for result in results)
            for owner in chosen:
                counts[owner] += 1

    await asyncio.gather(*(write(seed) for seed in range(5)))
    for owner, count in counts.items():
        assert len(await log_of(connection, owner.document_id)) == count


@pytest.mark.parametrize("documents", [0, 100_000])
@pytest.mark.parametrize("analyzed", [False, True])
async def test_heads_are_found_by_key_and_locked_in_the_order_of_their_ids(
    connect: Any, connection: Connection, documents: int, analyzed: bool
) -> None:
    lane = await connect()
    # The plan is made once, on the empty table, and is looked at on the full one.
    await lane.execute(f"PREPARE append AS {APPEND_BATCH}")
    await lane.execute("EXECUTE append ('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}')")
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, marker)"
        " SELECT 't', number::text, 9007199237963776 FROM generate_series(1, $1::int) AS number",
        documents,
    )
    if analyzed:
        await connection.execute("ANALYZE ydoc.documents, ydoc.updates")
    arguments = "'{1,2}','{1,1}','{1,1}','{1,1}','{9,9}','{0,0}','{1,2}','{0,0}','{1,1}','{a,b}','{a,b}','{}','{7,7}'"
    plan = json.loads(await lane.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE append ({arguments})"))
    nodes = list(_nodes(plan[0]["Plan"]))
    kinds = {node["Node Type"] for node in nodes}
    assert not kinds & {"Seq Scan", "Hash Join", "Merge Join"}
    (locking,) = [node for node in nodes if node["Node Type"] == "LockRows"]
    below = locking["Plans"][0]
    assert below["Node Type"] == "Index Scan" or (below["Node Type"], below.get("Sort Key")) == ("Sort", ["d.id"])
    scans = [node for node in nodes if node.get("Relation Name") == "documents" and "Scan" in node["Node Type"]]
    assert scans
    assert all("id = ANY" in (node.get("Index Cond") or node.get("Recheck Cond") or "") for node in scans)


@pytest.mark.parametrize("statement", [CREATE_DOCUMENTS, FIND_DOCUMENTS])
async def test_creating_scans_no_table(connect: Any, statement: str) -> None:
    lane = await connect()
    await lane.execute(f"PREPARE creating AS {statement}")
    arguments = "'{t}','{a}'" + (",'{9007199237963776}',false" if "$4" in statement else "")
    plan = json.loads(await lane.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE creating ({arguments})"))
    assert "Seq Scan" not in {node["Node Type"] for node in _nodes(plan[0]["Plan"])}


def _nodes(node: Any) -> Any:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


async def test_the_time_of_a_commit_grows_in_line_with_its_documents(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, marker)"
        " SELECT 't', number::text, 9007199237963776 FROM generate_series(1, 1000) AS number"
    )
    owners = []
    for number in range(1, 1001):
        owners.append(Owner(appender, str(number)))
        owners[-1].queue.document_id = number

    async def best_of_five(some: list[Owner]) -> float:
        times = []
        for _ in range(5):
            started_s = asyncio.get_running_loop().time()
            await commit(lane, *(owner.batch(b"u") for owner in some), hints=_Hints())
            times.append(asyncio.get_running_loop().time() - started_s)
        return min(times)

    hundred_s = await best_of_five(owners[:100])
    # Ten times as many documents; a join in loops would take a hundred times as long.
    assert await best_of_five(owners) < 40 * hundred_s


async def test_every_append_leaves_its_head_row_heap_only(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "hot")
    for _ in range(200):
        await commit(lane, owner.batch(b"u"))
    await lane.execute("SELECT pg_stat_force_next_flush()")
    updated, hot = await connection.fetchrow(  # type: ignore[misc] # one row always
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'documents'"
    )
    assert updated == 200, "the statistics have it all"
    assert hot >= 0.95 * updated


# What guards an append


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        ("deleted_at = now()", DocumentDeleted),
        ("deleted_at = now(), replaced_at = now()", EpochChanged),
        ("replaced_at = now()", EpochChanged),
        ("accepted_bytes = 1000", TooLarge),
    ],
)
async def test_what_changed_while_the_append_waited_for_the_head_is_what_counts(
    connect: Any, connection: Connection, appender: Appender, meanwhile: str, expected: type[YdocError]
) -> None:
    lane = await connect()
    owner, other = await owner_of(appender, connection, "a"), await owner_of(appender, connection, "b")
    owner.queue.bytes_ceiling = 1000
    async with connection.transaction():
        await connection.execute(f"UPDATE ydoc.documents SET {meanwhile} WHERE id = $1", owner.document_id)
        appending = asyncio.create_task(commit(lane, owner.batch(b"late"), other.batch(b"fine")))
        watcher = await connect()
        await waits_for_a_lock(watcher, lane)
    refused, accepted = await appending
    assert type(refused) is expected
    assert accepted == Accepted(1, None)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates WHERE document_id = $1", owner.document_id) == 0
    assert await log_of(connection, other.document_id) == [b"fine"]


async def test_a_tombstone_that_was_taken_away_meanwhile_does_not_count(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane, watcher = await connect(), await connect()
    owner = await owner_of(appender, connection, "a")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now()")
    async with connection.transaction():
        await connection.execute("UPDATE ydoc.documents SET deleted_at = NULL")
        appending = asyncio.create_task(commit(lane, owner.batch(b"u")))
        await waits_for_a_lock(watcher, lane)
    assert await appending == [Accepted(1, None)]


async def test_a_refused_document_is_refused_alone(connect: Any, connection: Connection, appender: Appender) -> None:
    lane = await connect()
    owners = [await owner_of(appender, connection, f"d{number}") for number in range(5)]
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = $1", owners[1].document_id)
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now() WHERE id = $1", owners[2].document_id)
    owners[3].queue.bytes_ceiling = 1
    owners[4].queue.document_id = 999_999
    results = await commit(lane, *(owner.batch(b"u1", b"u2") for owner in owners))
    assert results[0] == Accepted(2, None)
    assert [type(result) for result in results[1:]] == [DocumentDeleted, EpochChanged, TooLarge, RoomDiscarded]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 1


async def test_a_commit_of_refused_documents_alone_stores_nothing(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "a")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now()")
    (result,) = await commit(lane, owner.batch(b"u"), hints=_Hints())
    assert isinstance(result, DocumentDeleted)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 0


async def test_a_document_may_be_filled_to_its_last_byte(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "a")
    owner.queue.bytes_ceiling = 10
    assert await commit(lane, owner.batch(b"12345", b"1234")) == [Accepted(2, None)]
    assert isinstance((await commit(lane, owner.batch(b"ab")))[0], TooLarge)
    assert await commit(lane, owner.batch(b"a")) == [Accepted(3, None)]
    assert await log_of(connection, owner.document_id) == [b"12345", b"1234", b"a"]


# Creation


async def test_two_nodes_that_create_the_same_documents_at_once_share_them(
    connect: Any, connection: Connection, database: Database
) -> None:
    nodes = [Appender(database), Appender(database)]
    lanes = [await connect(), await connect()]
    for round_number in range(20):
        names = [f"{round_number}/{number}" for number in range(10)]
        owners = [[Owner(node, name) for name in names] for node in nodes]
        # In opposite orders, so that only the sorting in the statement keeps them from a deadlock.
        batches = [[owner.batch(b"a") for owner in owners[0]], [owner.batch(b"b") for owner in owners[1][::-1]]]
        ours, theirs = await asyncio.gather(*(commit(lane, *b) for lane, b in zip(lanes, batches, strict=True)))
        for one, other in zip(ours, theirs[::-1], strict=True):
            assert isinstance(one, Accepted)
            assert isinstance(other, Accepted)
            assert one.created is not None
            assert one.created == other.created
            assert {one.head, other.head} == {1, 2}
            assert sorted(await log_of(connection, one.created.document_id)) == [b"a", b"b"]


async def test_new_and_known_documents_go_in_one_commit(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    known = await owner_of(appender, connection, "known")
    new = Owner(appender, "new")
    first, second = await commit(lane, new.batch(b"n"), known.batch(b"k"), hints=_Hints())
    assert isinstance(first, Accepted)
    assert first.created is not None
    assert first.created.epoch == 1
    assert 2**53 - 2**24 <= first.created.marker < 2**53
    assert second == Accepted(1, None)
    assert await log_of(connection, first.created.document_id) == [b"n"]


async def test_a_deleted_document_is_not_created_again_by_an_update(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    await create_document(connection, "gone")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now()")
    refused, accepted = await commit(lane, Owner(appender, "gone").batch(b"u"), Owner(appender, "new").batch(b"u"))
    assert isinstance(refused, DocumentDeleted)
    assert isinstance(accepted, Accepted)
    assert await connection.fetchval("SELECT count(*) FROM ydoc.documents WHERE name = 'gone'") == 1


async def test_a_document_that_is_deleted_while_another_node_creates_it_stays_deleted(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane, watcher = await connect(), await connect()
    async with connection.transaction():
        await create_document(connection, "raced")
        appending = asyncio.create_task(commit(lane, Owner(appender, "raced").batch(b"u")))
        await waits_for_a_lock(watcher, lane)
        await connection.execute("UPDATE ydoc.documents SET deleted_at = now()")
    assert isinstance((await appending)[0], DocumentDeleted)


async def test_an_update_creates_a_replaced_documents_current_epoch_no_second_time(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    await create_document(connection, "d")
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now()")
    await connection.execute(
        "INSERT INTO ydoc.documents (tenant, name, epoch, marker) VALUES ('t', 'd', 2, 9007199237963777)"
    )
    (result,) = await commit(lane, Owner(appender, "d").batch(b"u"))
    assert isinstance(result, Accepted)
    assert result.created is not None
    assert (result.created.epoch, result.created.marker) == (2, 9007199237963777)


# Hints


@pytest.fixture
async def payloads(connection: Connection) -> list[str]:
    heard: list[str] = []
    await connection.add_listener("ydoc_log", lambda *told: heard.append(str(told[3])))
    return heard


async def hints_of(connection: Connection) -> None:
    # Notifications come before the answer to whatever is asked after them.
    await connection.fetchval("SELECT 1")
    await asyncio.sleep(0)


async def test_a_small_commit_takes_its_bytes_along(
    connect: Any, connection: Connection, appender: Appender, payloads: list[str]
) -> None:
    lane = await connect()
    first, second = await owner_of(appender, connection, "a"), await owner_of(appender, connection, "b")
    await commit(lane, first.batch(b"zero"))
    await commit(lane, first.batch(b"one", b"two"), second.batch(b"three"), hints=_Hints())
    await hints_of(connection)
    assert len(payloads) == 2
    for payload, (owner, count, head, updates) in zip(
        payloads, [(first, 2, 3, [b"one", b"two"]), (second, 1, 1, [b"three"])], strict=True
    ):
        match = re.fullmatch(r"node1;([^|]+)\|(\d+):(\d+):(\d+):(\d+)", payload)
        assert match is not None
        assert list(frames(base64.b64decode(match[1]))) == updates
        marker = await connection.fetchval("SELECT marker FROM ydoc.documents WHERE id = $1", owner.document_id)
        assert [int(number) for number in match.groups()[1:]] == [owner.document_id, count, head, marker]


@pytest.mark.parametrize("documents", [1, 16, 17, 1000])
@pytest.mark.parametrize("size", [1, 4_480, 5_000, 200_000])
async def test_every_accepted_document_is_named_once_in_hints_that_postgres_takes(
    connect: Any, connection: Connection, appender: Appender, payloads: list[str], documents: int, size: int
) -> None:
    if documents * size > 4_000_000:
        documents = 4_000_000 // size
    lane = await connect()
    # Ids and heads at their longest.
    await connection.execute("ALTER TABLE ydoc.documents ALTER COLUMN id RESTART WITH 9223372036854770000")
    owners = [Owner(appender, str(number)) for number in range(documents)]
    results = await commit(lane, *(owner.batch(bytes(size)) for owner in owners), hints=_Hints())
    for owner, result in zip(owners, results, strict=True):
        assert isinstance(result, Accepted)
        assert result.created is not None
        owner.queue.document_id = result.created.document_id
    await connection.execute("UPDATE ydoc.documents SET head = head + 9223372036854770000")
    payloads.clear()
    batches = [owner.batch(bytes(size)) for owner in owners]
    if len(owners) > 1:
        # A refused document has no hint.
        refused = owners.pop()
        await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = $1", refused.document_id)
    await commit(lane, *batches, hints=_Hints())
    await hints_of(connection)
    named = [entry for payload in payloads for entry in payload.split("|")[1:]]
    markers = {row["id"]: row["marker"] for row in await connection.fetch("SELECT id, marker FROM ydoc.documents")}
    expected = [f"{owner.document_id}:1:9223372036854770002:{markers[owner.document_id]}" for owner in owners]
    assert sorted(named) == sorted(expected)
    assert all(len(payload) <= HINT_BYTES_MAX for payload in payloads)
    assert all(payload.startswith("node1;") for payload in payloads)


async def test_without_hints_nothing_is_said(
    connect: Any, connection: Connection, appender: Appender, payloads: list[str]
) -> None:
    lane = await connect()
    await commit(lane, (await owner_of(appender, connection, "a")).batch(b"u"))
    await hints_of(connection)
    assert payloads == []


# What an answer means


async def test_a_held_head_is_a_known_rollback(connect: Any, connection: Connection, appender: Appender) -> None:
    lane = await connect()
    await lane.execute("SET lock_timeout = 50")
    held, free = await owner_of(appender, connection, "a"), await owner_of(appender, connection, "b")
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents WHERE id = $1 FOR UPDATE", held.document_id)
        with pytest.raises(StorageBusy):
            await commit(lane, free.batch(b"u"), held.batch(b"u"))
        ids = [free.document_id, held.document_id]
        assert await find_free_heads(lane, ids, timeout_s=5) == {free.document_id}
    assert await commit(lane, free.batch(b"u")) == [Accepted(1, None)]


async def test_a_readers_foreign_key_lock_holds_up_no_append(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "a")
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents FOR KEY SHARE")
        assert await commit(lane, owner.batch(b"u")) == [Accepted(1, None)]


@pytest.mark.parametrize(
    ("ending", "expected"), [("pg_cancel_backend", StorageBusy), ("pg_terminate_backend", CommitUnknown)]
)
@pytest.mark.parametrize("is_new", [False, True])
async def test_a_cancelled_statement_was_rolled_back_and_an_ended_session_is_unknown(
    connect: Any, connection: Connection, appender: Appender, ending: str, expected: type[YdocError], is_new: bool
) -> None:
    lane, watcher = await connect(), await connect()
    owner = await owner_of(appender, connection, "a")
    batches = [owner.batch(b"u")] + ([Owner(appender, "new").batch(b"u")] if is_new else [])
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
        appending = asyncio.create_task(commit(lane, *batches))
        await waits_for_a_lock(watcher, lane)
        await connection.execute(f"SELECT {ending}($1)", lane.get_server_pid())
        with pytest.raises(expected):
            await appending
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 0
    assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 1


@pytest.mark.parametrize("is_new", [False, True])
async def test_what_postgres_or_its_driver_cannot_take_was_never_stored(
    connect: Any, connection: Connection, appender: Appender, is_new: bool
) -> None:
    lane = await connect()
    owner = Owner(appender, "a") if is_new else await owner_of(appender, connection, "a")
    for actor in ("nul\0", "half a pair \ud800"):
        with pytest.raises(StorageBusy):
            await commit(lane, owner.batch(b"u", actor=actor))
    (result,) = await commit(lane, owner.batch(b"u", actor="fine"))
    assert isinstance(result, Accepted)
    assert result.head == 1


async def test_a_server_that_takes_no_writes_is_no_server_for_us(
    connect: Any, connection: Connection, appender: Appender
) -> None:
    lane = await connect()
    owner = await owner_of(appender, connection, "a")
    await lane.execute("SET default_transaction_read_only = on")
    with pytest.raises(StorageUnavailable):
        await commit(lane, owner.batch(b"u"))


async def test_a_commit_that_did_not_wait_for_its_standby_is_not_accepted(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster()
    cluster.create_template()
    database = await Database.open(cluster.url("migrated"))
    appender = Appender(database)
    watcher = await asyncpg.connect(cluster.url())
    # The watcher itself never waits for a standby.
    await watcher.execute("SET synchronous_commit = local")
    await appender.start()
    owner = Owner(appender, "a")
    owner.put(b"before")
    await owner.heard_of(1)
    await watcher.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await watcher.execute("SELECT pg_reload_conf()")
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    async def is_waiting() -> bool:
        # An update may be committed before that backend has read its new configuration.
        if not owner.queue.in_flight:
            owner.put(b"u")
        return await watcher.fetchval(waiting) is not None

    try:
        await until(is_waiting)
        accepted_before = len(owner.accepted_updates)
        await watcher.execute(f"SELECT pg_cancel_backend(pid) FROM ({waiting}) AS waiting")
        await until(lambda: bool(owner.errors))
        assert isinstance(owner.errors[0], CommitUnknown)
        assert len(owner.accepted_updates) == accepted_before
        assert appender.queued_bytes == 0
    finally:
        await watcher.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await watcher.execute("SELECT pg_reload_conf()")
        await appender.drain(0)
        await database.close()
        await watcher.close()
