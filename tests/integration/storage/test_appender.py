"""Lanes: batches, fairness, and one outcome for everyone whatever happens to Postgres (I1, I4, I11, I15)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import asyncpg
import pytest

from tests.appending import Owner, appending, log_of, numbered
from tests.faults.proxy import Proxy
from tests.log_rows import create_document
from tests.postgres import Cluster
from tests.waiting import until
from ydoc_store.errors import (
    CommitUnknown,
    Draining,
    RoomDiscarded,
    ServerFault,
    StorageBusy,
    StorageUnavailable,
    YdocError,
)
from ydoc_store.failpoints import Failpoints
from ydoc_store.storage.append_batch import Accepted
from ydoc_store.storage.appender import Appender, BatchLimits, QueuedUpdate
from ydoc_store.storage.lane import QUEUED_OVERHEAD_BYTES, Lane
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


async def repeat(connection: Connection, statement: str) -> NoReturn:
    while True:
        await connection.execute(statement)


FILL = "SELECT pg_notify('anything', repeat(n::text, 1900)) FROM generate_series(1000, 1020) AS n"


@pytest.fixture
async def appender(database_url: str) -> AsyncIterator[Appender]:
    async with appending(database_url) as started:
        yield started


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as started:
        yield started


def lane_of(appender: Appender) -> Lane:
    (lane,) = appender._lanes
    return lane


def pid_of(appender: Appender) -> int:
    connection = lane_of(appender).connection
    assert connection is not None
    pid: int = connection.get_server_pid()
    return pid


def nothing_is_left(appender: Appender, *owners: Owner) -> None:
    assert appender.queued_bytes == 0
    for owner in owners:
        assert (owner.queue.waiting, owner.queue.in_flight, owner.queue.waiting_bytes) == ([], [], 0)


async def known(appender: Appender, name: str) -> Owner:
    """A document with one accepted update."""
    owner = Owner(appender, name)
    owner.put(b"first")
    await owner.heard_of(1)
    assert not owner.errors
    return owner


@asynccontextmanager
async def held(connection: Connection, *owners: Owner) -> AsyncIterator[None]:
    """Somebody's open transaction holds these heads."""
    async with connection.transaction():
        ids = [owner.document_id for owner in owners]
        await connection.execute("SELECT FROM ydoc.documents WHERE id = ANY ($1::bigint[]) FOR UPDATE", ids)
        yield


# Batches


async def test_what_queued_during_a_commit_is_the_next_commit(appender: Appender, connection: Connection) -> None:
    first, second = await known(appender, "a"), await known(appender, "b")
    commits: list[int] = []
    appender.events.committed = lambda updates, _seconds: commits.append(updates)
    async with held(connection, first):
        first.put(b"held")
        await until(lambda: bool(first.queue.in_flight))
        for update in numbered(50):
            first.put(update)
            second.put(update)
    await asyncio.gather(first.heard_of(52), second.heard_of(51))
    assert commits == [1, 100]
    assert await log_of(connection, first.document_id) == [b"first", b"held", *numbered(50)]
    nothing_is_left(appender, first, second)


async def test_updates_enter_the_log_in_the_order_in_which_they_were_queued(
    appender: Appender, connection: Connection
) -> None:
    owners = [Owner(appender, f"d{number}") for number in range(10)]
    updates = numbered(300)
    for update in updates:
        for owner in owners:
            owner.put(update)
        await asyncio.sleep(0)
    for owner in owners:
        await owner.heard_of(300)
        assert owner.accepted_updates == list(updates)
        assert await log_of(connection, owner.document_id) == list(updates)
        assert [result.head for result in owner.results] == sorted({result.head for result in owner.results})
    nothing_is_left(appender, *owners)


async def test_an_import_does_not_hold_up_its_neighbour(database_url: str) -> None:
    limits = BatchLimits(updates_max=1_000)
    async with appending(database_url, limits=limits) as appender:
        large, small = await known(appender, "import"), await known(appender, "typing")
        large.put(*numbered(100_000))
        await until(lambda: len(large.accepted_updates) > 1)
        progress: list[int] = []
        small.on_outcome = lambda: progress.append(len(large.accepted_updates))
        done_before = len(large.accepted_updates)
        small.put(b"typed")
        await small.heard_of(2)
        # It waits for the commit that is under way, and goes with the next.
        assert progress[0] - done_before <= 2 * limits.updates_max
        await large.heard_of(100_001)
        assert not large.errors
        nothing_is_left(appender, large, small)


async def test_a_batch_keeps_its_limits_and_serves_everyone_in_turn(database: Database) -> None:
    appender = Appender(database, limits=BatchLimits(bytes_max=100, updates_max=10, documents_max=2))
    many, large, third = Owner(appender, "many"), Owner(appender, "large"), Owner(appender, "third")
    many.put(*(b"12345" for _ in range(15)))
    large.put(bytes(1_000), b"behind")
    third.put(b"third")

    def taken() -> list[tuple[str, int]]:
        batches = lane_of(appender).take()
        for batch in batches:
            assert batch.queue.in_flight is batch.updates
            assert batch.size == sum(len(queued.update) for queued in batch.updates)
        return [(batch.queue.name, len(batch.updates)) for batch in batches]

    assert taken() == [("many", 10)]
    many.put(b"12345")
    # One larger than what is left goes all the same, alone: it could never go otherwise.
    assert taken() == [("large", 1)]
    assert taken() == [("third", 1), ("many", 6)]
    assert taken() == [("large", 1)]
    assert taken() == []


async def test_what_is_dropped_is_neither_stored_nor_told(appender: Appender, connection: Connection) -> None:
    owner = await known(appender, "a")
    anna, bert = object(), object()
    async with held(connection, owner):
        owner.put(b"in flight", sender=anna)
        await until(lambda: bool(owner.queue.in_flight))
        owner.put(b"a1", b"a2", sender=anna)
        owner.put(b"b1", sender=bert)
        owner.put(b"a3", sender=anna)
        owner.put(b"b2", sender=bert)
        owner.queue.drop_waiting_of(anna)
        assert appender.queued_bytes == len(b"in flight" + b"b1" + b"b2") + 3 * QUEUED_OVERHEAD_BYTES
    await owner.heard_of(4)
    assert await log_of(connection, owner.document_id) == [b"first", b"in flight", b"b1", b"b2"]
    owner.put(b"never")
    assert [queued.update for queued in owner.queue.drop_waiting()] == [b"never"]
    nothing_is_left(appender, owner)


async def test_a_queue_that_was_emptied_again_makes_no_commit(appender: Appender) -> None:
    owner, other = await known(appender, "a"), await known(appender, "b")
    commits: list[int] = []
    appender.events.committed = lambda updates, _seconds: commits.append(updates)
    owner.put(b"dropped")
    owner.queue.drop_waiting()
    await asyncio.wait_for(lane_of(appender).idle.wait(), 60)
    other.put(b"u")
    await other.heard_of(2)
    assert commits == [1]


async def test_a_document_keeps_its_lane(database: Database) -> None:
    appender = Appender(database, lanes=4)
    owners = [Owner(appender, f"d{number}") for number in range(100)]
    assert len({owner.queue.lane.number for owner in owners}) == 4
    assert all(Owner(appender, owner.name).queue.lane is owner.queue.lane for owner in owners)
    await appender.drain(0)


async def test_several_lanes_commit_side_by_side(database: Database, connection: Connection) -> None:
    appender = Appender(database, lanes=3)
    await appender.start()
    owners = [Owner(appender, f"d{number}") for number in range(30)]
    for owner in owners:
        owner.put(*numbered(20))
    await asyncio.gather(*(owner.heard_of(20) for owner in owners))
    for owner in owners:
        assert await log_of(connection, owner.document_id) == list(numbered(20))
    await appender.drain(5)


# Trouble of one document


@pytest.mark.parametrize("count", [1, 12])
async def test_held_heads_fail_alone_and_cost_their_neighbours_one_lock_time_out(
    appender: Appender, connection: Connection, count: int
) -> None:
    owners = [await known(appender, f"d{number}") for number in range(30)]
    blocked, free = owners[:count], owners[count:]
    async with held(connection, *blocked):
        started_s = time.monotonic()
        for owner in owners:
            owner.put(b"u", b"v")
        await asyncio.gather(*(owner.heard_of(3) for owner in owners))
        took_s = time.monotonic() - started_s
    for owner in free:
        assert not owner.errors
    for owner in blocked:
        assert [type(error) for error in owner.errors] == [StorageBusy]
    # The lane's lock time-out is three quarters of a second; twelve held heads, one by one, would be nine.
    assert took_s < 6
    nothing_is_left(appender, *owners)
    blocked[0].put(b"again")
    await blocked[0].heard_of(4)
    assert await log_of(connection, blocked[0].document_id) == [b"first", b"again"]


async def test_a_head_that_stays_held_costs_its_lane_one_lock_time_out_and_not_one_each_try(
    appender: Appender, connection: Connection
) -> None:
    blocked, free = await known(appender, "blocked"), await known(appender, "free")
    async with held(connection, blocked):
        blocked.put(b"u")
        await blocked.heard_of(2)
        started_s = time.monotonic()
        for retry in range(3, 19):
            blocked.put(b"u")
            free.put(b"u")
            await asyncio.gather(blocked.heard_of(retry), free.heard_of(retry - 1))
        took_s = time.monotonic() - started_s
    # Sixteen lock time-outs would be 12 s; the looks take 0.15 s each.
    assert took_s < 8
    assert [type(error) for error in blocked.errors] == [StorageBusy] * 17
    assert not free.errors
    blocked.put(b"again")
    await blocked.heard_of(19)
    assert await log_of(connection, blocked.document_id) == [b"first", b"again"]
    nothing_is_left(appender, blocked, free)


async def test_a_document_that_somebody_is_creating_holds_up_no_known_one(
    appender: Appender, connection: Connection
) -> None:
    owners = [await known(appender, f"d{number}") for number in range(5)]
    new = Owner(appender, "new")
    async with connection.transaction():
        await create_document(connection, "new")
        new.put(b"u")
        for owner in owners:
            owner.put(b"u")
        await asyncio.gather(*(owner.heard_of(2) for owner in owners))
        assert not any(owner.errors for owner in owners)
        await new.heard_of(1)
    assert [type(error) for error in new.errors] == [StorageBusy]
    nothing_is_left(appender, new, *owners)


async def test_a_document_that_postgres_cannot_take_fails_alone(appender: Appender, connection: Connection) -> None:
    owners = [await known(appender, f"d{number}") for number in range(9)]
    owners.append(Owner(appender, "new"))
    for owner in owners:
        owner.put(b"u", actor="nul\0" if owner in owners[3:5] else "fine")
    await asyncio.gather(*(owner.heard_of(2) for owner in owners[:9]), owners[9].heard_of(1))
    for owner in owners:
        expected = [StorageBusy] if owner in owners[3:5] else []
        assert [type(error) for error in owner.errors] == expected
    nothing_is_left(appender, *owners)


async def test_an_owner_that_fails_takes_nobody_along(appender: Appender, connection: Connection) -> None:
    class Failing(Owner):
        def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None:
            super().accepted(updates, result)
            raise ZeroDivisionError

        def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
            super().refused(updates, error)
            raise ZeroDivisionError

    failing, other = Failing(appender, "failing"), Owner(appender, "other")
    failing.put(b"u")
    other.put(b"u")
    await asyncio.gather(failing.heard_of(1), other.heard_of(1))
    assert [type(error) for error in failing.errors] == [RoomDiscarded]
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE name = 'failing'")
    failing.put(b"refused")
    other.put(b"v")
    await asyncio.gather(failing.heard_of(2), other.heard_of(2))
    assert len(failing.errors) == 2
    assert not other.errors
    nothing_is_left(appender, failing, other)


# Trouble with Postgres


async def test_a_quiet_lane_tells_at_once_that_its_connection_ended(appender: Appender, connection: Connection) -> None:
    owner = await known(appender, "a")
    lost: list[YdocError] = []
    appender.events.connection_lost = lost.append
    await connection.execute("SELECT pg_terminate_backend($1)", pid_of(appender))
    await until(lambda: bool(lost))
    assert isinstance(lost[0], StorageUnavailable)
    owner.put(b"after")
    await owner.heard_of(2)
    assert await log_of(connection, owner.document_id) == [b"first", b"after"]
    assert len(lost) == 1


async def test_an_ended_connection_is_told_of_before_anything_is_accepted_on_the_next(
    appender: Appender, connection: Connection
) -> None:
    owner = await known(appender, "a")
    told: list[str] = []
    appender.events.connection_lost = lambda _error: told.append("lost")
    appender.events.committed = lambda _updates, _seconds: told.append("committed")
    for _ in range(10):
        told.clear()
        await connection.execute("SELECT pg_terminate_backend($1)", pid_of(appender))
        # As early or late as it may be.
        outcomes = len(owner.accepted_updates) + len(owner.refused_updates)
        owner.put(b"u")
        await owner.heard_of(outcomes + 1)
        if owner.errors:
            owner.errors.clear()
            owner.put(b"v")
            await owner.heard_of(outcomes + 2)
        assert told == ["lost", "committed"]
    nothing_is_left(appender, owner)


async def test_a_lost_connection_is_made_again_before_a_load_and_that_is_told(
    appender: Appender, connection: Connection
) -> None:
    """I11: without a connection nobody would hear of a failover behind what is loaded."""
    await known(appender, "a")
    told: list[str] = []
    appender.events.connection_lost = lambda _error: told.append("lost")
    appender.events.connected_again = lambda: told.append("again")
    await appender.connect_again("t", "a")
    assert told == []
    await connection.execute("SELECT pg_terminate_backend($1)", pid_of(appender))
    await until(lambda: told == ["lost"])
    await asyncio.gather(*(appender.connect_again("t", "a") for _ in range(5)))
    assert told == ["lost", "again"]
    await connection.execute("SELECT pg_terminate_backend($1)", pid_of(appender))
    await until(lambda: told == ["lost", "again", "lost"])


async def test_what_was_taken_from_a_discarded_room_is_not_sent_on_a_new_connection(
    appender: Appender, connection: Connection
) -> None:
    """I4: a failover may have lost what it follows."""
    owner, other = await known(appender, "a"), await known(appender, "b")
    lane = lane_of(appender)
    connect = lane.connect

    async def connect_and_discard() -> Connection:
        connected = await connect()
        owner.queue.is_abandoned = True
        return connected

    await connection.execute("SELECT pg_terminate_backend($1)", pid_of(appender))
    await until(lambda: lane.connection is None)
    lane.connect = connect_and_discard  # type: ignore[method-assign]
    owner.put(b"behind")
    other.put(b"fine")
    await asyncio.gather(owner.heard_of(2), other.heard_of(2))
    assert [type(error) for error in owner.errors] == [RoomDiscarded]
    assert not other.errors
    assert await log_of(connection, owner.document_id) == [b"first"]
    nothing_is_left(appender, owner, other)


async def test_what_was_taken_from_a_room_that_is_discarded_before_it_is_sent_never_is(
    appender: Appender, connection: Connection
) -> None:
    """I4, I11: the database went back, and the look at heads that were held took a while."""
    owner, other = await known(appender, "a"), await known(appender, "b")

    async def discard() -> None:
        owner.queue.is_abandoned = True

    appender.failpoints = Failpoints({"append.before-send": discard})
    owner.put(b"behind")
    other.put(b"fine")
    await asyncio.gather(owner.heard_of(2), other.heard_of(2))
    assert [type(error) for error in owner.errors] == [RoomDiscarded]
    assert not other.errors
    assert await log_of(connection, owner.document_id) == [b"first"]
    nothing_is_left(appender, owner, other)


async def test_a_load_without_a_lane_is_not_held_up_for_long_and_a_stopped_lane_stays_without(
    proxy: Proxy,
) -> None:
    async with appending(proxy.url, timeout_s=0.3) as appender:
        lost: list[YdocError] = []
        appender.events.connection_lost = lost.append
        proxy.stall()
        owner = Owner(appender, "a")
        owner.put(b"u")
        await owner.heard_of(1)
        assert lost
        await appender.connect_again("t", "a")
        assert lane_of(appender).connection is None
        await appender.drain(0)
        await appender.connect_again("t", "a")
        assert lane_of(appender).connection is None


async def test_appends_go_on_after_postgres_was_killed_and_started_again(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster(durable=True)
    cluster.create_template()
    async with appending(cluster.url("migrated")) as appender:
        owner = await known(appender, "a")
        lost: list[YdocError] = []
        appender.events.connection_lost = lost.append
        await asyncio.to_thread(cluster.kill)
        owner.put(b"while away")
        await owner.heard_of(2)
        assert isinstance(owner.errors[0], (StorageUnavailable, CommitUnknown))
        assert lost
        nothing_is_left(appender, owner)
        await asyncio.to_thread(cluster.start)
        owner.put(b"back")
        await owner.heard_of(3)
        connection = await asyncpg.connect(cluster.url("migrated"))
        assert await log_of(connection, owner.document_id) == [b"first", b"back"]
        await connection.close()


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_stalled_postgres_is_told_of_in_time_and_nothing_waits_for_it(
    proxy: Proxy, connection: Connection, is_new: bool
) -> None:
    async with appending(proxy.url, timeout_s=0.5) as appender:
        owner, other = await known(appender, "a"), await known(appender, "b")
        caught = Owner(appender, "new") if is_new else owner
        lost: list[YdocError] = []
        appender.events.connection_lost = lost.append
        heard_before = len(caught.accepted_updates)
        proxy.stall()
        started_s = time.monotonic()
        caught.put(b"stalled")
        await until(lambda: bool(caught.queue.in_flight))
        other.put(b"waits")
        await asyncio.gather(caught.heard_of(heard_before + 1), other.heard_of(2))
        assert time.monotonic() - started_s < 15
        assert isinstance(caught.errors[0], CommitUnknown)
        assert isinstance(other.errors[0], StorageUnavailable)
        assert len(lost) == 1
        nothing_is_left(appender, caught, other)
        # Nor does what comes while it cannot be reached.
        other.put(b"later")
        await other.heard_of(3)
        assert isinstance(other.errors[1], StorageUnavailable)
        nothing_is_left(appender, caught, other)
        proxy.heal()
        other.put(b"back")
        await other.heard_of(4)
        assert other.accepted_updates[-1] == b"back"


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_commit_whose_answer_is_lost_is_not_accepted_and_is_in_the_log_once(
    proxy: Proxy, connection: Connection, is_new: bool
) -> None:
    async with appending(proxy.url, timeout_s=1) as appender:
        await known(appender, "warm")
        owner = Owner(appender, "a") if is_new else await known(appender, "a")
        heard_before = len(owner.accepted_updates)
        # A new document's statements go in a transaction of their own, another's statement is one.
        proxy.swallow_answers(after=b"COMMIT\0" if is_new else b"")
        owner.put(b"once")

        async def is_stored() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM ydoc.updates WHERE frames = $1", b"\x04once"))

        await until(is_stored)
        # Nobody cuts the connection: it is given up on.
        await owner.heard_of(heard_before + 1)
        proxy.heal()
        assert [type(error) for error in owner.errors] == [CommitUnknown]
        # Whoever comes back finds it; the appender itself never tries again.
        owner.put(b"next")
        await owner.heard_of(heard_before + 2)
        expected = [b"once", b"next"] if is_new else [b"first", b"once", b"next"]
        assert await log_of(connection, owner.document_id) == expected
        nothing_is_left(appender, owner)


async def test_a_connection_lost_between_the_parts_of_a_batch_is_no_second_outcome_for_those_before(
    proxy: Proxy, connection: Connection
) -> None:
    async with appending(proxy.url) as appender:
        owners = [await known(appender, f"d{number}") for number in range(8)]
        owners[0].on_outcome = proxy.cut
        for owner in owners:
            # The last one makes the batch be tried again in parts.
            owner.put(b"u", actor="nul\0" if owner is owners[-1] else None)
        await asyncio.gather(*(owner.heard_of(2) for owner in owners))
        assert [len(owner.accepted_updates) for owner in owners] == [2, 2, 2, 2, 1, 1, 1, 1]
        assert [len(owner.errors) for owner in owners] == [0, 0, 0, 0, 1, 1, 1, 1]
        nothing_is_left(appender, *owners)
        for owner in owners[:4]:
            assert await log_of(connection, owner.document_id) == [b"first", b"u"]


async def test_a_cut_in_the_middle_of_a_load_leaves_what_was_accepted_and_nothing_twice(
    proxy: Proxy, connection: Connection
) -> None:
    async with appending(proxy.url, limits=BatchLimits(updates_max=50)) as appender:
        owners = [await known(appender, f"d{number}") for number in range(8)]
        for cut in range(10):
            for owner in owners:
                owner.put(*numbered(100, f"{cut}."))
            done = owners[0].accepted_updates, owners[0].refused_updates
            before = len(done[0]) + len(done[1])
            await owners[0].heard_of(before + 1)
            proxy.cut()
            for owner in owners:
                await owner.heard_of(1 + (cut + 1) * 100)
            nothing_is_left(appender, *owners)
        for owner in owners:
            log = await log_of(connection, owner.document_id)
            assert len(set(log)) == len(log)
            # A batch whose answer was lost may be there, but never only a part of what was accepted.
            accepted = owner.accepted_updates
            assert [update for update in log if update in set(accepted)] == accepted


async def test_a_full_notification_queue_costs_the_hints_and_no_append(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster()
    cluster.create_template()
    looker = await asyncpg.connect(cluster.url("migrated"))
    pages = await looker.fetchval("SELECT count(*) FROM pg_settings WHERE name = 'max_notify_queue_pages'")
    if not pages:
        await looker.close()
        pytest.skip("absent: max_notify_queue_pages (this Postgres's queue takes 8 GiB to fill)")
    await looker.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    await looker.close()
    cluster.stop()
    cluster.start()
    laggard = await asyncpg.connect(cluster.url("migrated"))
    filler = await asyncpg.connect(cluster.url("migrated"))
    await laggard.execute("LISTEN anything")
    async with appending(cluster.url("migrated")) as appender:
        appender.hints_wanted = False
        owner = await known(appender, "a")
        transaction = laggard.transaction()
        await transaction.start()
        await laggard.execute("SELECT 1")
        for filling in (FILL, "SELECT pg_notify('anything', 'x')"):
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await repeat(filler, filling)
        appender.hints_wanted = True
        owner.put(b"u")
        await owner.heard_of(2)
        assert owner.accepted_updates == [b"first", b"u"]
        assert not appender.hints_wanted
        await transaction.rollback()
    await laggard.close()
    await filler.close()


async def test_a_server_that_takes_no_writes_is_refused_at_the_start(database_url: str, connection: Connection) -> None:
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = await Database.open(database_url)
    with pytest.raises(StorageUnavailable, match="no writes"):
        await Appender(database).start()
    await database.close()


async def test_a_lane_is_set_up_for_the_promise(appender: Appender) -> None:
    lane = lane_of(appender).connection
    assert lane is not None
    shown = {
        name: await lane.fetchval(f"SHOW {name}")
        for name in ("synchronous_commit", "lock_timeout", "statement_timeout", "plan_cache_mode", "enable_seqscan")
    }
    assert shown == {
        "synchronous_commit": "on",
        "lock_timeout": "750ms",
        "statement_timeout": "6s",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
    }


# The end


async def test_a_drain_commits_what_was_queued_just_before(database_url: str, connection: Connection) -> None:
    async with appending(database_url) as appender:
        owner = Owner(appender, "a")
        owner.put(*numbered(10))
        await appender.drain(5)
        assert owner.accepted_updates == list(numbered(10))
        nothing_is_left(appender, owner)


async def test_what_a_drain_cannot_commit_in_its_time_is_refused(appender: Appender, connection: Connection) -> None:
    owner, other = await known(appender, "a"), await known(appender, "b")
    async with held(connection, owner):
        owner.put(b"held")
        await until(lambda: bool(owner.queue.in_flight))
        owner.put(b"behind")
        other.put(b"waits")
        await appender.drain(0.05)
    assert [type(error) for error in owner.errors] == [Draining, Draining]
    assert owner.refused_updates == [b"held", b"behind"]
    assert [type(error) for error in other.errors] == [Draining]
    nothing_is_left(appender, owner, other)


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_stalled_postgres_holds_up_no_stop(proxy: Proxy, is_new: bool) -> None:
    async with appending(proxy.url, timeout_s=30) as appender:
        owner = Owner(appender, "new") if is_new else await known(appender, "a")
        heard_before = len(owner.accepted_updates)
        proxy.stall()
        owner.put(b"u")
        await until(lambda: bool(owner.queue.in_flight))
        async with asyncio.timeout(15):
            await appender.drain(0.05)
        await owner.heard_of(heard_before + 1)
        nothing_is_left(appender, owner)
        proxy.heal()


async def test_a_start_without_postgres_says_so(proxy: Proxy) -> None:
    database = await Database.open(proxy.url, connect_timeout_s=0.3)
    proxy.stall()
    with pytest.raises(ServerFault):
        await Appender(database).start()
    proxy.heal()
    await database.close(timeout_s=0.2)
