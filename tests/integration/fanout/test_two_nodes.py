"""Two nodes on one database: what editors on either see, whatever becomes of the hints in between (I5)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pycrdt import Doc

from tests.nodes import Editor, Node, count_stored, new_doc, replace_log_by_snapshot, running_node
from ydoc_store.errors import RoomDiscarded
from ydoc_store.fanout.hints import LogHint
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

Pair = tuple[Node, Node]
BIG = '{"cursor":"' + "x" * 15_000 + '"}'


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[Pair]:
    async with running_node(database_url) as here, running_node(database_url) as there:
        yield here, there


async def type_on_both(nodes: Pair, count: int = 60) -> None:
    """Two editors a node, all typing; returns when everyone shows everything."""
    editors = [await Editor.open_synced(node.url("notes")) for node in nodes for _ in range(2)]

    async def work(editor: Editor) -> None:
        for number in range(count):
            await editor.type("x")
            if number % 10 == 9:
                await editor.erase(random.randrange(len(editor.root)), 1)

    await asyncio.gather(*(work(editor) for editor in editors))
    length = 4 * (count - count // 10)
    for editor in editors:
        # Two who erase the same letter erase one.
        await editor.until(lambda editor=editor: len(editor.root) >= length)
    total = 4 * (count + count // 10)
    for node in nodes:
        await until_head(node, total)
    for editor in editors:
        await editor.until(lambda editor=editor: editor.text == editors[0].text)
    assert await count_stored(nodes[0].database, "notes") == total
    for editor in editors:
        await editor.leave()


async def until_head(node: Node, head: int) -> None:
    async with asyncio.timeout(60):
        while node.room("notes").head < head:
            await node.service.rooms.watch.poll()


async def test_edits_cross_in_both_directions(nodes: Pair) -> None:
    here, there = nodes
    ann = await Editor.open_synced(here.url("notes"))
    ben = await Editor.open_synced(there.url("notes"))
    await ann.type("from here")
    await ben.shows("from here")
    await ben.type(", from there")
    await ann.shows("from here, from there")
    assert ann.marker == ben.marker
    await ann.leave()
    await ben.leave()


async def test_the_first_edit_of_a_document_that_is_open_on_both_crosses_without_waiting_for_a_poll(
    database_url: str,
) -> None:
    never = {"poll_interval_s": 3_600}
    async with running_node(database_url, **never) as here, running_node(database_url, **never) as there:
        async with asyncio.timeout(60):
            while not (here.service.fanout.others_listen and there.service.fanout.others_listen):
                await here.service.rooms.watch.poll()
        ann = await Editor.open_synced(here.url("new"))
        ben = await Editor.open_synced(there.url("new"))
        await ann.type("first")
        await ben.shows("first")
        await ann.leave()
        await ben.leave()


async def test_a_busy_document_is_the_same_on_both(nodes: Pair) -> None:
    await type_on_both(nodes)


class Shim:
    """Loses, doubles, delays and reorders the hints that a node hears."""

    def __init__(self, real: Callable[[LogHint], None], seed: int) -> None:
        self._real = real
        self._random = random.Random(seed)
        self._held: list[LogHint] = []

    def __call__(self, hint: LogHint) -> None:
        if self._random.random() < 0.3:
            return
        self._held += [hint] * self._random.choice((1, 1, 2))
        if len(self._held) > self._random.randrange(5):
            self._random.shuffle(self._held)
            held, self._held = self._held, []
            for late in held:
                self._real(late)


@pytest.mark.parametrize("seed", range(3))
async def test_lost_doubled_late_and_reordered_hints_cost_nothing_but_time(nodes: Pair, seed: int) -> None:
    for node in nodes:
        node.service.fanout.on_log = Shim(node.service.fanout.on_log, seed)
    await type_on_both(nodes)


async def test_without_any_hint_the_poll_finds_everything(nodes: Pair) -> None:
    for node in nodes:
        node.service.fanout.on_log = lambda _hint: None
    await type_on_both(nodes, 20)


async def test_two_nodes_that_create_the_same_document_at_once_make_one(nodes: Pair) -> None:
    for round_number in range(10):
        name = f"notes/{round_number}"
        ann, ben = await asyncio.gather(*(Editor.open_synced(node.url(name)) for node in nodes))
        await asyncio.gather(ann.type("a"), ben.type("b"))
        await ann.until(lambda ann=ann: len(ann.root) == 2)
        await ben.until(lambda ben=ben: len(ben.root) == 2)
        assert ann.text == ben.text
        assert ann.marker == ben.marker is not None
        assert await count_stored(nodes[0].database, name) == 2
        await ann.leave()
        await ben.leave()


async def test_who_comes_from_the_node_that_made_the_document_is_served_where_nobody_has_heard_of_it(
    nodes: Pair,
) -> None:
    here, there = nodes
    there.service.rooms.watch.poll = no_poll  # type: ignore[method-assign] # and every hint is lost
    there.service.fanout.on_log = lambda _hint: None
    ben = await Editor.open_synced(there.url("new"))
    ann = await Editor.open_synced(here.url("new"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    await ann.leave()
    again = await Editor.open_synced(there.url("new"), ann.doc)
    await ben.shows("a")
    assert ben.marker == again.marker
    await again.type("b")
    await ben.shows("ab")
    await again.leave()
    stranger: Doc[Any] = new_doc()
    stranger.apply_update(marker_update(RESERVED_CLIENT_ID_MIN))
    stray = await Editor.open(there.url("never-made"), stranger)
    assert (await stray.closed())[0] == 4409
    await ben.leave()


async def test_rows_that_hold_no_frames_close_the_room_instead_of_leaving_it_behind(nodes: Pair) -> None:
    here, there = nodes
    ann = await Editor.open_synced(here.url("notes"))
    ben = await Editor.open_synced(there.url("notes"))
    await ann.type("a")
    await ben.shows("a")
    async with here.database.acquire() as connection:
        await connection.execute(
            "WITH d AS (UPDATE ydoc.documents SET head = 2, accepted_rows = 2, accepted_bytes = accepted_bytes + 1 "
            "RETURNING id) INSERT INTO ydoc.updates (document_id, seq, count, frames) SELECT id, 2, 1, '\\x05' FROM d"
        )
    await there.service.rooms.watch.poll()
    assert (await ben.closed())[0] == 1011
    await ann.closed()


async def test_a_gap_behind_a_compaction_is_filled_from_the_snapshot(nodes: Pair) -> None:
    here, there = nodes
    there.service.fanout.on_log = lambda _hint: None
    there.service.rooms.watch.poll = no_poll  # type: ignore[method-assign] # so that it falls behind
    ann = await Editor.open_synced(here.url("notes"))
    ben = await Editor.open_synced(there.url("notes"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    await there.service.rooms.watch.read_missing(there.room("notes"))
    await ben.shows("a")
    for letter in "bcd":
        await ann.type(letter)
    carol = await Editor.open_synced(here.url("notes"))
    await carol.shows("abcd")
    await replace_log_by_snapshot(here, here.room("notes"))
    await ben.type("!")
    await carol.until(lambda: len(carol.root) == 5)
    await ben.until(lambda: len(ben.root) == 5)
    assert ben.text == carol.text
    for editor in (ann, ben, carol):
        await editor.leave()


async def no_poll() -> None:
    """Asks nothing."""


async def test_presence_crosses_and_goes_with_its_node(database_url: str) -> None:
    async with running_node(database_url) as here:
        ben = await Editor.open_synced(here.url("notes"))
        async with running_node(database_url) as there:
            ann = await Editor.open_synced(there.url("notes"))
            await ann.show(1, BIG)
            await ben.sees(ann.doc.client_id, BIG)
            late = await Editor.open_synced(here.url("notes"))
            await late.sees(ann.doc.client_id, BIG)
            await ben.show(1)
            await ann.sees(ben.doc.client_id, '{"name":"Ann"}')
            await there.service.drain(5)
            await there.stop()
            await ann.closed()
        await ben.sees(ann.doc.client_id, None)
        await late.leave()
        await ben.leave()


async def test_a_room_that_opens_asks_who_is_there(nodes: Pair) -> None:
    here, there = nodes
    ann = await Editor.open_synced(here.url("notes"))
    await ann.show(1)
    ben = await Editor.open_synced(there.url("notes"))
    await ben.sees(ann.doc.client_id, '{"name":"Ann"}')
    await ann.leave()
    await ben.sees(ann.doc.client_id, None)
    await ben.leave()


async def test_who_moves_to_another_node_stays_present_when_the_old_socket_ends(nodes: Pair) -> None:
    here, there = nodes
    watching = await Editor.open_synced(here.url("notes"))
    old = await Editor.open_synced(here.url("notes"))
    await old.show(1, '{"n":1}')
    await watching.sees(old.doc.client_id, '{"n":1}')
    new = await Editor.open_synced(there.url("notes"))
    await new.show(2, '{"n":2}', client_id=old.doc.client_id)
    await watching.sees(old.doc.client_id, '{"n":2}')
    await old.vanish()
    await new.show(3, '{"n":3}', client_id=old.doc.client_id)
    await watching.sees(old.doc.client_id, '{"n":3}')
    assert None not in [
        entry.state_json for entry in watching.presence.values() if entry.client_id == old.doc.client_id
    ]
    await new.leave()
    await watching.leave()


async def test_who_returns_after_a_discard_is_seen_on_other_nodes_again(nodes: Pair) -> None:
    here, there = nodes
    ben = await Editor.open_synced(there.url("notes"))
    ann = await Editor.open_synced(here.url("notes"))
    await ann.show(1, '{"n":1}')
    await ben.sees(ann.doc.client_id, '{"n":1}')
    here.room("notes").discard(RoomDiscarded("come back"))
    await ann.closed()
    await ben.sees(ann.doc.client_id, None)
    again = await Editor.open_synced(here.url("notes"), ann.doc)
    await again.show(1, '{"n":1}')
    await again.sees(ann.doc.client_id, None)
    await again.show(again.presence[ann.doc.client_id].clock + 1, '{"n":1}')
    await ben.sees(ann.doc.client_id, '{"n":1}')
    await again.leave()
    await ben.leave()


async def until_judged(node: Node, *, wanted: bool) -> None:
    """Returns when a heartbeat, or somebody's hint, has switched the hints so."""
    fanout, judged = node.service.fanout, asyncio.Event()
    judge = fanout._listener.changed
    fanout._listener.changed = lambda: (judge(), judged.set())[0]
    async with asyncio.timeout(60):
        while node.service.appender.hints_wanted is not wanted:
            judged.clear()
            await judged.wait()
    fanout._listener.changed = judge


async def test_hints_are_left_out_while_nobody_else_listens(database_url: str) -> None:
    async with running_node(database_url) as here:
        await until_judged(here, wanted=False)
        async with running_node(database_url) as there:
            ben = await Editor.open_synced(there.url("notes"))
            await until_judged(here, wanted=True)
            ann = await Editor.open_synced(here.url("notes"))
            await ann.type("x")
            await ben.shows("x")
            await ann.leave()
            await ben.leave()


async def test_a_node_that_is_killed_and_its_successor_lose_nothing(database_url: str) -> None:
    async with running_node(database_url) as here:
        ann = await Editor.open_synced(here.url("notes"))
        async with running_node(database_url) as there:
            ben = await Editor.open_synced(there.url("notes"))
            await ben.type("b")
            await ann.shows("b")
        await ben.closed()
        await ann.type("a")
        async with running_node(database_url) as successor:
            again = await Editor.open_synced(successor.url("notes"), ben.doc)
            await again.until(lambda: len(again.root) == 2)
            await again.type("c")
            await ann.until(lambda: len(ann.root) == 3)
            await again.leave()
        await ann.leave()
