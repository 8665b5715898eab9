"""A drain: what was read is committed, delivered and acknowledged, then every socket is closed with 1001."""

from __future__ import annotations

import asyncio

from tests.integration.relay.test_sockets import RawSocket
from tests.nodes import Editor, Node, closed_at_once, count_stored, running_node


async def test_a_drain_commits_what_was_read_and_says_goodbye(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ben.shows("a")
    for _ in range(200):
        ann.root.insert(0, "x")
    await ann.send_edits()
    await asyncio.wait_for(node.service.drain(30), 45)
    assert (await ann.closed())[0] == 1001
    assert (await ben.closed())[0] == 1001
    stored = await count_stored(node.database, "notes")
    assert len(ben.text) == stored, "whatever was stored was delivered before the goodbye"
    assert not node.service.relay.connections
    assert node.count('ydoc_updates_total{dialect="y-websocket",result="failed"}') == 0
    assert node.count('ydoc_closes_total{code="1001"}') == 2


async def test_a_drain_ends_in_time_when_a_peer_does_not_follow(node: Node) -> None:
    deaf = await RawSocket.open(node.port)
    first = await Editor.open_synced(node.url("notes"))
    await first.leave()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await node.service.drain(1.5)
    assert loop.time() - started < 10
    assert not node.service.relay.connections
    await deaf.end()


async def test_who_comes_during_a_drain_is_sent_elsewhere(node: Node) -> None:
    deaf = await RawSocket.open(node.port)
    draining = asyncio.create_task(node.service.drain(1.5))
    await asyncio.sleep(0)
    code, _ = await closed_at_once(node.url("notes"))
    assert code == 1001
    await draining
    await deaf.end()


async def test_after_a_drain_the_next_node_has_everything(database_url: str) -> None:
    async with running_node(database_url) as node:
        ann = await Editor.open_synced(node.url("notes"))
        for letter in "abcdef":
            await ann.type(letter)
        await ann.until(lambda: ann.marker)
        await node.stop(drain_s=5)
        await ann.closed()
    async with running_node(database_url) as successor:
        again = await Editor.open_synced(successor.url("notes"), ann.doc)
        fresh = await Editor.open_synced(successor.url("notes"))
        await fresh.shows("abcdef")
        await again.leave()
        await fresh.leave()
