"""Row "pool exhausted, lock and statement time-outs, deadlock": shed within a second, nothing acked that is not stored.

The clients are told 1013 and come back; what they had typed meanwhile they bring along. Whoever has nothing to do
with the held document is not disturbed for longer than one lock time-out.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from tests.faults.journal import Journal, marked
from tests.faults.oracle import Scene, verify
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.nodes import WAIT_TIMEOUT_S, Editor, Node, closed_at_once, running_node
from tests.stored import connecting
from tests.waiting import until

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

# One second, and what a machine that runs other tests takes on top.
SHED_S = 1.0 + 4.0


async def test_pool_exhausted_sheds_who_opens_within_a_second_and_whoever_is_there_types_on(
    node: Node, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I1, I15: appends have a connection of their own; loads that find none are told 1013, all of them at once."""
    async with writing(editors, node.url("").rstrip("/"), journal) as live:
        await live.goes_on()
        held = [node.database.acquire() for _ in range(4)]
        for one in held:
            await one.__aenter__()
        started_s = time.monotonic()
        told = await asyncio.gather(*(closed_at_once(node.url(f"cold/{number}")) for number in range(50)))
        shed_s = time.monotonic() - started_s
        assert {code for code, _ in told} == {1013}
        assert shed_s < SHED_S, f"shed after {shed_s:.1f} s"
        await live.goes_on()
        for one in held:
            await one.__aexit__(None, None, None)
        late = await editors.open_synced(node.url("").rstrip("/"), "cold/1")
        await late.destroy()
        await live.stop()
        await verify(Scene(database_url, journal.known(), live.clients, nodes=[node]))


async def test_a_reconnect_storm_waits_for_its_turn_and_is_not_shed_from_a_small_pool(
    node: Node, database_url: str, connection: Connection
) -> None:
    """I15: 300 documents at once over a pool of four: nobody is refused, and the poll finds a connection meanwhile."""
    names = [f"storm/{number}" for number in range(300)]
    for name in names[::10]:
        writer = await Editor.open_synced(node.url(name))
        await writer.type("x" * 100)
        await writer.until(lambda writer=writer: writer.marker)
        await writer.leave()
    polled = asyncio.create_task(poll_now_and_then(node))
    opened = await asyncio.gather(*(Editor.open_synced(node.url(name)) for name in names))
    polled.cancel()
    assert [editor.close_code for editor in opened] == [None] * len(names)
    assert {editor.text for editor in opened} == {"", "x" * 100}
    await asyncio.gather(polled, return_exceptions=True)
    await verify(Scene(database_url, {}, {name: [editor] for name, editor in zip(names, opened, strict=True)}))


async def poll_now_and_then(node: Node) -> None:
    """Raises StorageUnavailable, into the test, when the storm has every connection."""
    while True:
        await node.service.rooms.watch.poll()
        await asyncio.sleep(0.01)


async def test_lock_time_out_closes_who_writes_to_the_held_document_within_a_second_and_nobody_else(
    node: Node, database_url: str, journal: Journal, connection: Connection
) -> None:
    """I1, I4: what waited for the held head is stored once it is free, and was acked by nobody before."""
    ann, ben = await Editor.open_synced(node.url("held")), await Editor.open_synced(node.url("held"))
    other, other_reader = await Editor.open_synced(node.url("other")), await Editor.open_synced(node.url("other"))
    await ann.type(marked("ann.0"))
    await ben.shows(marked("ann.0"))
    await other.type(marked("other.0"))
    await other_reader.shows(marked("other.0"))
    note(journal, "held", "ann.0", "ann.1", acked=("ann.0",))
    note(journal, "other", "other.0", "other.1", acked=("other.0",))
    async with connection.transaction():
        await connection.execute("SELECT FROM ydoc.documents WHERE name = 'held' FOR UPDATE")
        started_s = time.monotonic()
        await ann.type(marked("ann.1"))
        await other.type(marked("other.1"))
        code, reason = await ann.closed()
        shed_s = time.monotonic() - started_s
        await other_reader.shows(marked("other.0") + marked("other.1"))
        journal.acked("other", "other.1")
        assert (code, ben.text) == (1013, marked("ann.0")), reason
        assert shed_s < SHED_S, f"shed after {shed_s:.1f} s"
    again = await Editor.open_synced(node.url("held"), ann.doc)
    await ben.shows(marked("ann.0") + marked("ann.1"))
    journal.acked("held", "ann.1")
    clients = {"held": [again, ben], "other": [other, other_reader]}
    await verify(Scene(database_url, journal.known(), clients, nodes=[node]))


def note(journal: Journal, document: str, *attempted: str, acked: tuple[str, ...]) -> None:
    for marker in attempted:
        journal.attempted(document, marker)
    for marker in acked:
        journal.acked(document, marker)


async def test_statement_time_out_of_a_load_is_told_and_nothing_is_opened_empty(
    database_url: str, connection: Connection
) -> None:
    """I6: a load that the database does not answer in time is 1013, never an empty document."""
    async with running_node(database_url, room_idle_s=0, statement_timeout_s=30) as node:
        ann = await Editor.open_synced(node.url("doc"))
        await ann.type("stored")
        await ann.until(lambda: ann.marker)
        await ann.leave()
        await node.room_closed(node.rooms_opened[0])
        async with connection.transaction():
            await connection.execute("LOCK TABLE ydoc.documents IN ACCESS EXCLUSIVE MODE")
            code, _ = await closed_at_once(node.url("doc"))
            assert code == 1013
        again = await Editor.open_synced(node.url("doc"))
        assert again.text == "stored"
        await verify(Scene(database_url, {}, {"doc": [again]}, nodes=[node]))


async def test_a_cancelled_append_is_rolled_back_and_its_writer_comes_back_with_it(
    node: Node, database_url: str, journal: Journal, editors: Editors, connection: Connection
) -> None:
    """I1, I4: `statement_timeout` and `pg_cancel_backend` cancel alike, again and again under load."""
    async with writing(editors, node.url("").rstrip("/"), journal, count=2) as live:
        await live.goes_on()
        cancelled = 0
        for _ in range(5):
            async with connection.transaction():
                # Held for a moment, so that there is a statement to cancel.
                await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
                await until(lambda: is_waiting(connection))
                cancelled += await connection.fetchval(CANCEL_APPENDS)
            await live.goes_on()
        assert cancelled >= 5
        await live.stop()
        await verify(Scene(database_url, journal.known(), live.clients, nodes=[node]))


APPENDS = "application_name = 'ydoc-store' AND datname = current_database() AND wait_event_type = 'Lock'"
CANCEL_APPENDS = f"SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE {APPENDS}"


async def is_waiting(connection: Connection) -> bool:
    waiting: bool = await connection.fetchval(f"SELECT count(*) > 0 FROM pg_stat_activity WHERE {APPENDS}")
    return waiting


@pytest.fixture
async def quick_deadlock_url(database_url: str, connection: Connection) -> str:
    """A database in which Postgres finds a deadlock before the appender's own time-out ends it."""
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '300ms'")
    return database_url


async def test_deadlock_with_somebody_elses_transaction_costs_no_update_and_no_other_document(
    quick_deadlock_url: str, connection: Connection, journal: Journal
) -> None:
    """I1: two documents of one batch, locked by somebody in the other order: Postgres ends the append's statement."""
    async with running_node(quick_deadlock_url, room_idle_s=0) as node:
        pairs = {name: [await Editor.open_synced(node.url(name)) for _ in range(2)] for name in ("gate", "d0", "d1")}
        for name, (writer, reader) in pairs.items():
            await type_seen(journal, name, writer, reader, "w.0")
        for attempt in range(1, 9):
            await lock_in_the_other_order(node, quick_deadlock_url, journal, pairs, f"w.{attempt}")
            for name, pair in pairs.items():
                pairs[name] = await seen(node, name, pair, f"w.{attempt}")
                journal.acked(name, f"w.{attempt}")
            if await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"):
                break
        else:
            raise AssertionError("no deadlock came about")
        await verify(Scene(quick_deadlock_url, journal.known(), pairs, nodes=[node]))


async def type_seen(journal: Journal, name: str, writer: Editor, reader: Editor, marker: str) -> None:
    journal.attempted(name, marker)
    await writer.type(marked(marker))
    await reader.until(lambda: marked(marker) in reader.text)
    journal.acked(name, marker)


async def lock_in_the_other_order(
    node: Node, url: str, journal: Journal, pairs: dict[str, list[Editor]], marker: str
) -> None:
    """Have one batch wait for d1 with d0 locked, while somebody who has d1 asks for d0."""
    async with connecting(url) as somebody, connecting(url) as gatekeeper:
        await somebody.execute("SET deadlock_timeout = '60s'; SET lock_timeout = '20s'")
        async with somebody.transaction():
            await somebody.execute("SELECT FROM ydoc.documents WHERE name = 'd1' FOR UPDATE")
            gate = gatekeeper.transaction()
            await gate.start()
            await gatekeeper.execute("SELECT FROM ydoc.documents WHERE name = 'gate' FOR UPDATE")
            for name in ("gate", "d0", "d1"):
                journal.attempted(name, marker)
                await pairs[name][0].type(marked(marker))
                queue = node.room(name).queue
                # The first one keeps the lane busy, so that the others go together.
                await until(lambda queue=queue, name=name: bool(queue.in_flight if name == "gate" else queue.waiting))
            await gate.rollback()
            await until(lambda: bool(node.room("d0").queue.in_flight))
            await somebody.execute("SELECT FROM ydoc.documents WHERE name = 'd0' FOR UPDATE")


async def seen(node: Node, name: str, pair: list[Editor], marker: str) -> list[Editor]:
    """The writer and the reader once the latter shows it; whoever is closed meanwhile was told to come back."""
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while marked(marker) not in pair[1].text:
            for place, editor in enumerate(pair):
                if editor.close_code is not None:
                    assert editor.close_code in (1012, 1013), editor.close_reason
                    pair[place] = await Editor.open_synced(node.url(name), editor.doc)
            await asyncio.sleep(0.01)
    return pair
