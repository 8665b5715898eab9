"""A reader at its own pace: it comes for news, sees all that was committed in order, and nothing waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.integration.relay.test_contribution import typed, write
from tests.nodes import Editor, Node, new_doc, replace_log_by_snapshot, running_node
from ydoc_store.auth.access import OPEN
from ydoc_store.errors import DocumentDeleted, Draining, EpochChanged, NoSuchDocument, ServerFull
from ydoc_store.rooms.follower import Follower, follow
from ydoc_store.storage.epochs import delete_document

WAIT_S = 60.0


@pytest.fixture
async def follower(node: Node) -> AsyncIterator[Follower]:
    await write(node, typed("first "))
    async with following(node) as found:
        yield found


def following(node: Node, name: str = "notes") -> Any:
    return follow(node.service.rooms, OPEN, name, dialect="http")


class Copy:
    """What a reader has: a document and a cursor."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = new_doc()
        self.seq = 0

    async def read(self, follower: Follower) -> None:
        async with follower.missed(self.seq) as missed:
            for update in missed.updates:
                self.doc.apply_update(update)
            self.seq = missed.through_seq

    @property
    def words(self) -> set[str]:
        return set(str(self.doc.get("text", type=Text)).split())


async def test_a_reader_sees_each_commit_in_order(node: Node, follower: Follower) -> None:
    copy = Copy()
    await copy.read(follower)
    assert (copy.words, copy.seq) == ({"first"}, 1)
    for number in range(2, 20):
        moved = asyncio.create_task(follower.moved(copy.seq, WAIT_S))
        await write(node, typed(f"{number} "))
        assert await moved
        await copy.read(follower)
        assert copy.seq == number
        assert str(number) in copy.words


async def test_a_reader_that_waits_in_vain_is_told_so(follower: Follower) -> None:
    assert not await follower.moved(1, 0.01)
    assert await follower.moved(0, 0.01)


async def test_a_reader_whose_cursor_is_no_longer_kept_reads_the_log(node: Node, follower: Follower) -> None:
    for number in range(5):
        await write(node, typed(f"{number} "))
    node.room("notes").cache.clear()
    copy = Copy()
    copy.seq = 0
    await copy.read(follower)
    assert copy.words == {"first", "0", "1", "2", "3", "4"}
    assert copy.seq == 6


async def test_a_cursor_behind_the_snapshot_is_given_the_snapshot_and_then_the_tail(node: Node) -> None:
    """I5: nobody is ever told to start again."""
    await write(node, typed("first "))
    copy = Copy()
    async with following(node) as follower:
        await copy.read(follower)
    for number in range(5):
        await write(node, typed(f"{number} "))
    await replace_log_by_snapshot(node, node.room("notes"))
    node.service.rooms.close(node.room("notes"))
    await write(node, typed("tail "))
    async with following(node) as follower:
        async with follower.missed(copy.seq) as missed:
            assert missed.is_substituted
        follower.room.cache.clear()
        await copy.read(follower)
    assert copy.words == {"first", "0", "1", "2", "3", "4", "tail"}
    assert copy.seq == 7


async def test_a_cursor_ahead_of_the_log_is_of_another_history(follower: Follower) -> None:
    """I11: a restored backup's ids and seqs are given again."""
    with pytest.raises(EpochChanged):
        async with follower.missed(2):
            pass


async def test_the_whole_document_carries_the_marker_and_is_made_once_for_all(node: Node, follower: Follower) -> None:
    """I10: who reads here and edits over a socket later is known to be of this epoch."""
    await write(node, typed("second "))
    async with follower.whole() as whole, follower.whole() as same:
        assert same is whole
        doc: Doc[Any] = new_doc()
        doc.apply_update(whole.update)
        assert whole.through_seq == 2
    editor = await Editor.open_synced(node.url("notes"), doc)
    assert editor.marker == node.room("notes").marker
    assert set(editor.text.split()) == {"first", "second"}
    await write(node, typed("third "))
    async with follower.whole() as newer:
        assert newer.through_seq == 3


async def test_a_reader_of_news_is_given_the_marker_once(node: Node, follower: Follower) -> None:
    async with follower.missed(0) as missed:
        first = len(missed.updates)
    async with follower.missed(0) as missed:
        assert len(missed.updates) == first - 1


async def test_the_end_of_a_document_is_the_readers_end(node: Node, follower: Follower) -> None:
    waiting = asyncio.create_task(follower.moved(1, WAIT_S))
    await delete_document(node.database, "default", "notes")
    with pytest.raises(DocumentDeleted):
        await waiting


async def test_a_server_that_stops_lets_no_reader_wait(node: Node, follower: Follower) -> None:
    waiting = asyncio.create_task(follower.moved(1, WAIT_S))
    await asyncio.sleep(0)
    node.service.rooms.refuse_new()
    with pytest.raises(Draining):
        await waiting


async def test_a_document_that_was_never_written_can_be_waited_for(database_url: str) -> None:
    async with (
        running_node(database_url) as one,
        running_node(database_url, poll_interval_s=0.1) as other,
        following(other) as follower,
    ):
        assert not follower.exists
        with pytest.raises(NoSuchDocument):
            await follower.must_exist()
        moved = asyncio.create_task(follower.moved(0, WAIT_S))
        await write(one, typed("x"))
        assert await moved
        await follower.must_exist()


async def test_readers_count_as_connections_of_the_document_and_leave_nothing(database_url: str) -> None:
    async with running_node(database_url, document_connections_max=2, room_idle_s=0) as node:
        await write(node, typed("x"))
        async with following(node), following(node):
            room = node.room("notes")
            with pytest.raises(ServerFull):
                async with following(node):
                    pass
            assert node.count('ydoc_connections{dialect="http"}') == 2
        await node.room_closed(room)
        assert not room.members
        assert not room.wakers
        assert not node.service.rooms.first_sync.prepared.used


async def test_a_reader_is_woken_by_presence_and_reads_what_changed_since(node: Node, follower: Follower) -> None:
    presence = follower.room.presence
    version = presence.version
    assert presence.since(version) == []
    ann = await Editor.open_synced(node.url("notes"))
    await ann.show(1, '{"name":"Ann"}')
    while not (news := presence.since(version)):
        assert await follower.woken(WAIT_S)
    assert [(entry.client_id, entry.state_json) for entry in news] == [(ann.doc.client_id, '{"name":"Ann"}')]
    version = presence.version
    await ann.leave()
    while not (news := presence.since(version)):
        assert await follower.woken(WAIT_S)
    assert [(entry.client_id, entry.state_json) for entry in news] == [(ann.doc.client_id, None)]
