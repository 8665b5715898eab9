"""A database that answers no more without a reset, and a COMMIT whose answer is lost (I1, I4, I5, I15).

Stalls are black holes of the network and a Postgres that stands still: nothing is refused and nothing ends by itself,
so that everything rests on our own time-outs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pycrdt import Map

from tests.faults.journal import Journal, Known, marked
from tests.faults.load import Load
from tests.faults.oracle import Scene, verify
from tests.faults.processes import paused_postgres, watch
from tests.faults.proxy import Proxy
from tests.interop.editors import Editors
from tests.nodes import WAIT_TIMEOUT_S, Editor, Node, count_stored, running_node
from tests.postgres import Cluster
from tests.service import serving
from tests.stored import connecting
from tests.waiting import until
from ydoc_store.storage.pool import Database
from ydoc_store.units import KIB, MIB

AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
TOLD_WITHIN_S = 5.0
# The machine's share of what is measured; the limit of the product is checked without it where only timers count.
SLACK_S = 2.0
LISTENER_FOUND_WITHIN_S = 15.0
RESUMED_WITHIN_S = 10.0
BACK = {1012, 1013}
# What asyncio reads of a socket at once.
ONE_READ_BYTES = 256 * KIB
HINTS = 'ydoc_hints_total{result="inline"}'


@pytest.fixture
async def proxy(durable_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(durable_url) as opened:
        yield opened


@pytest.mark.parametrize("is_new", [False, True], ids=["a known document", "a new document"])
async def test_a_commit_whose_answer_is_lost_is_not_acked_and_its_content_is_there_once_after_the_resync(
    durable_url: str, proxy: Proxy, is_new: bool
) -> None:
    """I1, I2, I4, I22."""
    known = Known()
    async with running_node(proxy.url, room_idle_s=0, append_timeout_s=1) as node:
        ann, ben = [await Editor.open_synced(node.url("doc")) for _ in range(2)]
        if not is_new:
            await mark(ann, known, "ann.0")
            await ben.shows(ann.text)
            known.acked.add("ann.0")
        # A new document is made in a transaction of several statements, another's append is one.
        proxy.swallow_answers(after=b"COMMIT\0" if is_new else b"")
        await mark(ann, known, "ann.1")
        async with connecting(durable_url) as connection:
            await until(lambda: is_stored(connection, marked("ann.1")))
        await mark(ann, known, "ann.2")
        closed = [await editor.closed() for editor in (ann, ben)]
        assert [code for code, _ in closed] == [1012, 1012]
        assert marked("ann.1") not in ben.text
        proxy.heal()
        ann, ben = [await Editor.open_synced(node.url("doc"), editor.doc) for editor in (ann, ben)]
        await ben.shows(ann.text)
        known.acked |= known.attempted
        await verify(Scene(durable_url, {"doc": known}, {"doc": [ann, ben]}, nodes=[node]), clients_leave=False)
        await mark(ben, known, "ben.0")
        await ann.until(lambda: marked("ben.0") in ann.text)
        await verify(Scene(durable_url, {"doc": known}, {"doc": [ann, ben]}, nodes=[node]))
        # What the lost answer was about was not stored again: it came back in one piece with what was behind it.
        assert await count_stored(node.database, "doc") == (3 if is_new else 4)


async def mark(editor: Editor, known: Known, marker: str) -> None:
    known.attempted.add(marker)
    await editor.type(marked(marker))


async def is_stored(connection: object, text: str) -> bool:
    statement = "SELECT count(*) FROM ydoc.updates WHERE position($1::bytea IN frames) > 0"
    return bool(await connection.fetchval(statement, text.encode()))  # type: ignore[attr-defined] # an asyncpg one


@contextlib.contextmanager
def black_hole(proxy: Proxy, _cluster: Cluster) -> Iterator[None]:
    proxy.stall()
    try:
        yield
    finally:
        proxy.heal()


def standstill(_proxy: Proxy, cluster: Cluster) -> AbstractContextManager[None]:
    return paused_postgres(cluster)


@contextlib.contextmanager
def answers_lost(proxy: Proxy, _cluster: Cluster) -> Iterator[None]:
    """Postgres commits what it is sent, and nobody hears of it."""
    proxy.swallow_answers()
    try:
        yield
    finally:
        proxy.heal()


@pytest.mark.parametrize("stalling", [black_hole, standstill, answers_lost])
async def test_a_database_that_stalls_is_told_to_those_who_write_within_five_seconds(
    tmp_path: Path,
    durable_cluster: Cluster,
    durable_url: str,
    proxy: Proxy,
    journal: Journal,
    editors: Editors,
    stalling: Callable[[Proxy, Cluster], AbstractContextManager[None]],
) -> None:
    """I1, I4: 1012 or 1013, which stock clients come back from; nothing acked that is not stored."""
    # What our own time-out is by default is measured twice; the third time is about what was committed.
    shorter = {"YDOC_APPEND_TIMEOUT_S": "2"} if stalling is answers_lost else {}
    async with serving(tmp_path, database_url=proxy.url, environment=AT_ONCE | shorter) as service:
        watched = await watch(service)
        load = Load(editors, journal)
        for document in ("typed in", "also", "goes"):
            await load.enter(document, service.url)
            await load.shows(document, 500)
        reader = load.by_document["typed in"][1]
        with stalling(proxy, durable_cluster):
            stalled_s = time.monotonic()
            closes = (await reader.ask("untilCloses", count=1))["closes"]
            told_s = time.monotonic() - stalled_s
            await load.leave("goes")
            assert service.is_running
        resumed_s = await load.served_after_now("typed in")
        await load.stop_typing()
        assert {close["code"] for close in closes} <= BACK
        await verify(Scene(durable_url, journal.known(), load.by_document, services=[watched]))
    print(f"told after {told_s:.2f} s with {closes[0]['code']}; served again after {resumed_s:.2f} s")
    assert told_s < TOLD_WITHIN_S + SLACK_S
    assert resumed_s < RESUMED_WITHIN_S


async def test_connections_that_are_dead_without_a_word_are_not_handed_to_those_who_come_back(
    tmp_path: Path, durable_url: str, proxy: Proxy, journal: Journal, editors: Editors
) -> None:
    """I1, I11: the database can be reached again at once, over new connections; the old ones say nothing for ever."""
    soon = AT_ONCE | {"YDOC_APPEND_TIMEOUT_S": "2"}
    async with serving(tmp_path, database_url=proxy.url, environment=soon) as service:
        load = Load(editors, journal)
        await load.enter("typed in", service.url)
        # Each of them loads at once, so that the pool has many connections.
        others = [await editors.open(service.url, f"read-{number}") for number in range(8)]
        for editor in others:
            await editor.synced()
        await load.shows("typed in", 500)
        proxy.hang()
        # Whoever opens a document now has its load in the hole.
        newcomers = [await editors.open(service.url, f"opened-{number}") for number in range(8)]
        await load.by_document["typed in"][1].ask("untilCloses", count=1)
        told_s = time.monotonic()
        resumed_s = await load.served_after_now("typed in")
        for editor in newcomers:
            await editor.synced(timeout_s=60)
        all_s = time.monotonic() - told_s
        await load.stop_typing()
        for editor in (*others, *newcomers):
            await editor.leave()
        await verify(Scene(durable_url, journal.known(), load.by_document))
    print(f"served again {resumed_s:.2f} s after the time-out, everyone after {all_s:.2f} s")
    assert max(resumed_s, all_s) < RESUMED_WITHIN_S


async def test_what_comes_while_the_database_stalls_is_bounded_and_let_go(durable_url: str, proxy: Proxy) -> None:
    """I15: sockets are read no further once the queue is full, and the time-out empties it."""
    piece, editors_count, pieces = bytes(16 * KIB), 6, 100
    limits = {"append_queue_bytes_max": 1 * MIB, "append_batch_bytes_max": 256 * KIB}
    async with running_node(proxy.url, room_idle_s=0, append_timeout_s=3, **limits) as node:
        appender = node.service.appender
        everyone = [await Editor.open_synced(node.url(f"doc-{number}")) for number in range(editors_count)]
        proxy.stall()

        async def flood(editor: Editor) -> None:
            pictures = editor.doc.get("pictures", type=Map)
            for number in range(pieces):
                pictures[str(number)] = piece
                await editor.send_edits()

        flooding = [asyncio.create_task(flood(editor)) for editor in everyone]
        most = 0

        def is_over() -> bool:
            nonlocal most
            most = max(most, appender.queued_bytes)
            return all(editor.close_code is not None for editor in everyone)

        await until(is_over)
        await asyncio.gather(*flooding)
        assert {editor.close_code for editor in everyone} <= BACK
        assert appender.queued_bytes == 0
        proxy.heal()
        again = [
            await Editor.open_synced(node.url(f"doc-{number}"), editor.doc) for number, editor in enumerate(everyone)
        ]
        clients = {f"doc-{number}": [editor] for number, editor in enumerate(again)}
        await verify(Scene(durable_url, clients=clients, nodes=[node]))
    print(f"{editors_count * pieces * len(piece) / MIB:.1f} MiB pasted, at most {most / MIB:.2f} MiB queued")
    # Over the limit each socket may be by what one read of it had brought.
    assert 1 * MIB <= most < 1 * MIB + editors_count * (ONE_READ_BYTES + 2 * len(piece))


async def test_a_dead_listener_is_found_and_costs_nobody_anything_but_the_poll(durable_url: str) -> None:
    """I5: only its LISTEN is in the black hole, where nothing is refused and nothing ends."""
    async with Proxy(durable_url) as proxy, running_node(durable_url, room_idle_s=0) as far:
        line = await Database.open(proxy.url, pool_size=1)
        database = await Database.open(durable_url, pool_size=4)
        node = Node(database, far.settings)
        listener = node.service.fanout._listener
        listener._database = line
        try:
            await node.start()
            await until(lambda: listener.listeners == 2 and far.service.fanout.others_listen)
            ann, ben = await Editor.open_synced(far.url("doc")), await Editor.open_synced(node.url("doc"))
            await ann.type("<ann.0>")
            await ben.shows("<ann.0>")
            proxy.stall()
            before = proxy.connections
            stalled_s = time.monotonic()
            await ann.type("<ann.1>")
            await ben.shows("<ann.0><ann.1>")
            by_poll_s = time.monotonic() - stalled_s
            async with asyncio.timeout(LISTENER_FOUND_WITHIN_S + SLACK_S):
                # It is given up for a new one, which the hole takes as well.
                while proxy.connections == before:  # noqa: ASYNC110 # the proxy tells nobody
                    await asyncio.sleep(0.01)
            found_s = time.monotonic() - stalled_s
            proxy.heal()
            before_hints = node.count(HINTS)
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                while node.count(HINTS) == before_hints:
                    # By the poll, until one comes as a hint again.
                    await ann.type(".")
                    await ben.shows(ann.text)
            known = {"doc": Known({"ann.0", "ann.1"}, {"ann.0", "ann.1"})}
            await verify(Scene(durable_url, known, {"doc": [ann, ben]}, nodes=[node, far]))
        finally:
            await node.stop()
            await line.close()
    print(f"seen by the poll after {by_poll_s:.2f} s; the dead listener was found after {found_s:.2f} s")
    assert found_s < LISTENER_FOUND_WITHIN_S
