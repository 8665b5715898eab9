"""Guarded appends on a real Postgres: judged under the lock, written with the append, once on however many nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tests.appending import Owner, appending, log_of, numbered
from tests.faults.proxy import Proxy
from tests.log_rows import create_document
from tests.waiting import until
from ydoc_store.errors import (
    CommitUnknown,
    ConditionFailed,
    DocumentDeleted,
    EpochChanged,
    ProducerGap,
    ProducerStale,
    RoomDiscarded,
    StorageBusy,
    StreamClosed,
    StreamSeqStale,
    TooLarge,
)
from ydoc_store.storage.appender import Appender, QueuedUpdate
from ydoc_store.storage.guards import Closed, Duplicate, Guard, Producer, Verdict
from ydoc_store.storage.producers import drop_producers

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

READ_PRODUCERS = "SELECT producer_id, epoch, seq FROM ydoc.producers WHERE document_id = $1 ORDER BY producer_id"
COUNT_TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
async def appender(database_url: str) -> AsyncIterator[Appender]:
    async with appending(database_url, timeout_s=10) as started:
        yield started


async def document(appender: Appender, connection: Connection, name: str = "doc") -> Owner:
    owner = Owner(appender, name)
    owner.queue.document_id = await create_document(connection, name)
    return owner


async def stream(appender: Appender, connection: Connection, name: str = "doc") -> Owner:
    owner = await document(appender, connection, name)
    await connection.execute("UPDATE ydoc.documents SET kind = 'stream' WHERE id = $1", owner.document_id)
    return owner


def produced(seq: int, producer_id: str = "p", epoch: int = 0) -> Guard:
    return Guard(producer=Producer(producer_id, epoch, seq))


async def places(connection: Connection, owner: Owner) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in await connection.fetch(READ_PRODUCERS, owner.document_id)]


def nothing_is_left(appender: Appender, *owners: Owner) -> None:
    assert appender.queued_bytes == 0
    for owner in owners:
        assert (owner.queue.waiting, owner.queue.in_flight, owner.queue.waiting_bytes) == ([], [], 0)


# Producers


async def test_each_of_a_producers_updates_is_stored_once(appender: Appender, connection: Connection) -> None:
    owner = await document(appender, connection)
    for seq, update in enumerate(numbered(3)):
        owner.put(update, guard=produced(seq))
        owner.put(update, guard=produced(seq))
    await owner.heard_of(6)
    assert owner.accepted_updates == list(numbered(3))
    assert await log_of(connection, owner.document_id) == list(numbered(3))
    assert await places(connection, owner) == [("p", 0, 2)]
    owner.put(b"again", guard=produced(1))
    owner.put(b"too far", guard=produced(4))
    owner.put(b"stale", guard=produced(0, epoch=3))
    await owner.heard_of(9)
    owner.put(b"leftover", guard=produced(3))
    await owner.heard_of(10)
    told = dict(owner.verdicts)
    assert told[b"again"] == Duplicate(2, 3)
    assert isinstance(told[b"too far"], ProducerGap)
    assert isinstance(told[b"leftover"], ProducerStale)
    assert owner.accepted_updates[3:] == [b"stale"]
    assert await places(connection, owner) == [("p", 3, 0)]
    nothing_is_left(appender, owner)


async def test_a_retry_on_two_nodes_at_once_is_stored_once(
    database_url: str, appender: Appender, connection: Connection
) -> None:
    async with appending(database_url, timeout_s=10) as elsewhere:
        here = await document(appender, connection)
        there = Owner(elsewhere, "doc")
        there.queue.document_id = here.document_id
        # Both wait for the head at once, so that each was sent while the other had not committed.
        async with connection.transaction():
            await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
            for seq, update in enumerate(numbered(20)):
                here.put(update, guard=produced(seq))
                there.put(update, guard=produced(seq))
            await until(lambda: bool(here.queue.in_flight and there.queue.in_flight))
        await asyncio.gather(here.heard_of(20), there.heard_of(20))
        assert await log_of(connection, here.document_id) == list(numbered(20))
        assert sorted(here.accepted_updates + there.accepted_updates) == sorted(numbered(20))
        assert all(isinstance(verdict, Duplicate) for _, verdict in here.verdicts + there.verdicts)
        assert not here.errors + there.errors


async def test_many_producers_on_many_nodes_store_everything_once_and_in_their_order(
    database_url: str, connection: Connection
) -> None:
    producers, updates_each, documents = 4, 25, 3
    ids = [await create_document(connection, f"d{number}") for number in range(documents)]
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(appending(database_url, timeout_s=10)) for _ in range(3)]
        owners = []
        for node in nodes:
            for number, document_id in enumerate(ids):
                owner = Owner(node, f"d{number}")
                owner.queue.document_id = document_id
                owners.append(owner)

        async def produce(owner: Owner, name: str) -> None:
            # On every node the same producer: each update is tried three times.
            for seq in range(updates_each):
                told = asyncio.get_running_loop().create_future()
                queued = QueuedUpdate(f"{name}/{seq}".encode(), None, told, None, guard=produced(seq, name))
                waiting[queued] = told
                owner.queue.put(queued)
                await told

        waiting: dict[QueuedUpdate, asyncio.Future[None]] = {}

        def settle(owner: Owner) -> None:
            accepted, judged = owner.accepted, owner.judged

            def accept(updates: list[QueuedUpdate], result: object) -> None:
                accepted(updates, result)  # type: ignore[arg-type] # as the lane gives it
                for queued in updates:
                    waiting.pop(queued).set_result(None)

            def judge(queued: QueuedUpdate, verdict: Verdict) -> None:
                judged(queued, verdict)
                assert isinstance(verdict, Duplicate)
                waiting.pop(queued).set_result(None)

            owner.accepted, owner.judged = accept, judge  # type: ignore[method-assign] # to hear of each

        for owner in owners:
            settle(owner)
        names = [f"p{number}" for number in range(producers)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(produce(owner, name) for owner in owners for name in names))
    for document_id in ids:
        log = [update.decode().split("/") for update in await log_of(connection, document_id)]
        for name in names:
            assert [int(seq) for who, seq in log if who == name] == list(range(updates_each))


async def test_a_commit_whose_answer_is_lost_is_found_by_the_retry(database_url: str, connection: Connection) -> None:
    async with Proxy(database_url) as proxy, appending(proxy.url, timeout_s=1) as appender:
        owner = await document(appender, connection)
        owner.put(b"warm")
        await owner.heard_of(1)
        proxy.swallow_answers(after=b"COMMIT\0")
        owner.put(b"once", guard=produced(0))

        async def is_stored() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM ydoc.producers"))

        await until(is_stored)
        await owner.heard_of(2)
        assert [type(error) for error in owner.errors] == [CommitUnknown]
        proxy.heal()
        owner.put(b"once", guard=produced(0))
        await owner.heard_of(3)
        assert owner.verdicts == [(b"once", Duplicate(0, 2))]
        assert await log_of(connection, owner.document_id) == [b"warm", b"once"]
        nothing_is_left(appender, owner)


# What a refusal leaves alone


async def test_a_refused_guard_harms_nothing_else_of_its_batch(appender: Appender, connection: Connection) -> None:
    owner, other = await document(appender, connection), await document(appender, connection, "other")
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
        owner.put(b"holds the lane")
        await until(lambda: bool(owner.queue.in_flight))
        owner.put(b"1")
        owner.put(b"refused", guard=Guard(head_is=9))
        owner.put(b"2", actor="anna")
        owner.put(b"gap", guard=produced(1))
        owner.put(b"3", guard=Guard(head_is=3))
        other.put(b"x")
    await asyncio.gather(owner.heard_of(6), other.heard_of(1))
    assert await log_of(connection, owner.document_id) == [b"holds the lane", b"1", b"2", b"3"]
    assert await log_of(connection, other.document_id) == [b"x"]
    assert [(update, type(verdict)) for update, verdict in owner.verdicts] == [
        (b"refused", ConditionFailed),
        (b"gap", ProducerGap),
    ]
    assert [result.head for result in owner.results] == [1, 4]
    assert await places(connection, owner) == []
    nothing_is_left(appender, owner, other)


async def test_what_is_judged_and_then_not_accepted_leaves_no_producer(
    appender: Appender, connection: Connection
) -> None:
    owner = await document(appender, connection)
    owner.put(b"12345", guard=produced(0))
    await owner.heard_of(1)
    owner.queue.bytes_ceiling = 6
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
        owner.put(b"x", guard=Guard(head_is=1))
        await until(lambda: bool(owner.queue.in_flight))
        owner.put(b"too large", guard=produced(1))
        owner.put(b"too large", guard=produced(1))
        owner.put(b"12345", guard=produced(0))
        owner.put(b"gap", guard=produced(7))
    await owner.heard_of(6)
    # The repetition of what was stored before is known whatever becomes of the rest.
    assert owner.verdicts == [(b"12345", Duplicate(0, 2))]
    assert owner.refused_updates == [b"too large", b"too large", b"gap"]
    assert [type(error) for error in owner.errors] == [TooLarge]
    assert await places(connection, owner) == [("p", 0, 0)]
    nothing_is_left(appender, owner)


@pytest.mark.parametrize(
    ("gone", "error"),
    [
        ("UPDATE ydoc.documents SET deleted_at = now()", DocumentDeleted),
        ("UPDATE ydoc.documents SET replaced_at = now()", EpochChanged),
        ("UPDATE ydoc.documents SET marker = marker # 1", RoomDiscarded),
        ("DELETE FROM ydoc.documents", RoomDiscarded),
    ],
)
async def test_a_document_that_is_gone_refuses_what_is_guarded_too(
    appender: Appender, connection: Connection, gone: str, error: type[Exception]
) -> None:
    owner = await document(appender, connection)
    owner.queue.marker = await connection.fetchval("SELECT marker FROM ydoc.documents")
    owner.put(b"u", guard=produced(0))
    await owner.heard_of(1)
    await connection.execute(gone)
    owner.put(b"v", guard=produced(1))
    await owner.heard_of(2)
    assert [type(found) for found in owner.errors] == [error]
    assert not owner.verdicts
    assert await places(connection, owner) == [("p", 0, 0)]


async def test_a_guarded_document_that_cannot_be_appended_to_fails_alone(
    appender: Appender, connection: Connection
) -> None:
    bad, good = await document(appender, connection), await document(appender, connection, "good")
    bad.put(b"u", actor="nul\0", guard=produced(0))
    good.put(b"v", guard=produced(0))
    await asyncio.gather(bad.heard_of(1), good.heard_of(1))
    assert [type(error) for error in bad.errors] == [StorageBusy]
    assert good.accepted_updates == [b"v"]
    assert await places(connection, bad) == []


# Documents that are not there yet


async def test_a_first_update_is_guarded_like_any_other(appender: Appender, connection: Connection) -> None:
    owner = Owner(appender, "new")
    owner.put(b"u", guard=Guard(producer=Producer("p", 0, 0), head_is=0, epoch_is=1))
    owner.put(b"v", guard=Guard(head_is=0))
    await owner.heard_of(2)
    assert await log_of(connection, owner.document_id) == [b"u"]
    assert isinstance(dict(owner.verdicts)[b"v"], ConditionFailed)


async def test_nothing_is_created_for_what_a_guard_refuses(appender: Appender, connection: Connection) -> None:
    owner, other = Owner(appender, "new"), Owner(appender, "other")
    owner.put(b"u", guard=Guard(head_is=1))
    owner.put(b"v", guard=produced(3))
    other.put(b"x")
    await asyncio.gather(owner.heard_of(2), other.heard_of(1))
    assert [type(verdict) for _, verdict in owner.verdicts] == [ConditionFailed, ProducerGap]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 1
    assert other.accepted_updates == [b"x"]
    nothing_is_left(appender, owner, other)


async def test_one_of_two_nodes_creates_and_the_other_hears_that_it_is_there(
    database_url: str, appender: Appender, connection: Connection
) -> None:
    async with appending(database_url, timeout_s=10) as elsewhere:
        for number in range(10):
            here, there = Owner(appender, f"n{number}"), Owner(elsewhere, f"n{number}")
            here.put(b"here", guard=Guard(head_is=0))
            there.put(b"there", guard=Guard(head_is=0))
            await asyncio.gather(here.heard_of(1), there.heard_of(1))
            assert len(here.accepted_updates + there.accepted_updates) == 1
            (verdict,) = [verdict for _, verdict in here.verdicts + there.verdicts]
            assert isinstance(verdict, ConditionFailed)
            assert verdict.head == 1


async def test_what_another_node_made_meanwhile_is_judged_as_it_is(appender: Appender, connection: Connection) -> None:
    owner = Owner(appender, "doc")
    document_id = await create_document(connection)
    await connection.execute("UPDATE ydoc.documents SET head = 7")
    owner.put(b"u", guard=Guard(head_is=7))
    await owner.heard_of(1)
    assert owner.results[0].head == 8
    assert owner.document_id == document_id


# Streams


async def test_a_closed_stream_takes_nothing_more_guarded_or_not(appender: Appender, connection: Connection) -> None:
    owner = await stream(appender, connection)
    owner.put(b"last", guard=Guard(producer=Producer("p", 0, 0), closes=True))
    await owner.heard_of(1)
    owner.put(b"late")
    await owner.heard_of(2)
    owner.put(b"late too", guard=produced(1))
    owner.put(b"", guard=Guard(closes=True))
    owner.put(b"last", guard=Guard(producer=Producer("p", 0, 0), closes=True))
    await owner.heard_of(5)
    (error,) = owner.errors
    assert isinstance(error, StreamClosed)
    assert error.head == 1
    verdicts = [verdict for _, verdict in owner.verdicts]
    assert isinstance(verdicts[0], StreamClosed)
    assert verdicts[1:] == [Closed(1), Duplicate(0, 1, closed=True)]
    assert await log_of(connection, owner.document_id) == [b"last"]


async def test_a_stream_is_closed_without_an_update_and_other_nodes_are_told(
    appender: Appender, connection: Connection
) -> None:
    owner = await stream(appender, connection)
    heard: list[str] = []
    await connection.add_listener("ydoc_log", lambda *told: heard.append(str(told[3])))
    owner.put(b"", guard=Guard(closes=True))
    await owner.heard_of(1)
    assert owner.verdicts == [(b"", Closed(0))]
    assert await connection.fetchval("SELECT closed_at IS NOT NULL FROM ydoc.documents")
    await until(lambda: bool(heard))
    assert heard == [f";|{owner.document_id}:0:0"]


async def test_a_stream_seq_is_kept_with_the_append(appender: Appender, connection: Connection) -> None:
    owner = await stream(appender, connection)
    owner.put(b"1", guard=Guard(stream_seq="b"))
    await owner.heard_of(1)
    owner.put(b"2", guard=Guard(stream_seq="b"))
    owner.put(b"3", guard=Guard(stream_seq="c"))
    await owner.heard_of(3)
    assert isinstance(owner.verdicts[0][1], StreamSeqStale)
    assert await connection.fetchval("SELECT stream_seq FROM ydoc.documents") == "c"
    assert await log_of(connection, owner.document_id) == [b"1", b"3"]


# What it costs, and what is forgotten


async def test_a_batch_without_guards_is_one_statement_also_of_documents_that_had_some(
    appender: Appender, connection: Connection
) -> None:
    owner = await document(appender, connection)
    owner.put(b"guarded", guard=produced(0))
    await owner.heard_of(1)
    seen: list[str] = []
    (lane,) = appender._lanes
    assert lane.connection is not None
    lane.connection.add_query_logger(lambda query: seen.append(query.query))
    owner.put(b"plain")
    await owner.heard_of(2)
    assert len(seen) == 1
    owner.put(b"guarded", guard=produced(1))
    await owner.heard_of(3)
    assert len(seen) > 2


async def test_silent_producers_are_forgotten_page_by_page(appender: Appender, connection: Connection) -> None:
    owners = [await document(appender, connection, f"d{number}") for number in range(3)]
    for owner in owners:
        for name in "abc":
            owner.put(b"u", guard=produced(0, name))
    await asyncio.gather(*(owner.heard_of(3) for owner in owners))
    await connection.execute("UPDATE ydoc.producers SET last_at = now() - interval '8 days' WHERE producer_id <> 'b'")
    after: tuple[int, str] | None = (0, "")
    dropped = pages = 0
    while after is not None:
        page = await drop_producers(connection, after, silent_days=7, limit=2)
        dropped, pages, after = dropped + page.producers, pages + 1, page.next_after
    assert (dropped, pages) == (6, 6)
    for owner in owners:
        assert await places(connection, owner) == [("b", 0, 0)]
    # A producer that is not known any more begins anew.
    owners[0].put(b"v", guard=produced(1, "a"))
    await owners[0].heard_of(4)
    assert isinstance(owners[0].verdicts[0][1], ProducerGap)
