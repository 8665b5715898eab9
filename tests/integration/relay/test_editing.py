"""Editors in one document on one node: what they see of each other, and what is stored for it."""

from __future__ import annotations

import asyncio

from tests.nodes import Editor, Node, count_stored, new_doc, running_node
from ydoc_store.yjs import messages
from ydoc_store.yjs.walker import marker_update

ACCEPTED = 'ydoc_updates_total{dialect="y-websocket",result="accepted"}'
NOTHING_NEW = 'ydoc_updates_total{dialect="y-websocket",result="nothing_new"}'


async def test_what_one_types_the_other_sees_and_the_log_holds(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("Hello")
    await ben.shows("Hello")
    await ben.erase(0, 1)
    await ann.shows("ello")
    assert await count_stored(node.database, "notes") == 2
    assert node.count(ACCEPTED) == 2
    await ann.leave()
    await ben.leave()


async def test_opening_an_unknown_name_stores_nothing(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.leave()
    async with node.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 0


async def test_the_marker_comes_before_the_first_update_of_a_new_document_to_its_writer_too(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("x")
    await ben.shows("x")
    await ann.until(lambda: ann.received(messages.Update))
    marker = node.room("notes").marker
    assert marker is not None
    assert ben.received(messages.Update)[0].update == marker_update(marker)
    assert [message.update for message in ann.received(messages.Update)] == [marker_update(marker)]
    late = await Editor.open_synced(node.url("notes"))
    assert late.received(messages.Update, messages.SyncStep2)[0].update == marker_update(marker)
    assert ann.marker == ben.marker == late.marker == marker
    for editor in (ann, ben, late):
        await editor.leave()


async def test_a_sole_writer_hears_no_echo_and_the_others_one_frame_a_commit(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ben.shows("a")
    heard = len(ben.received(messages.Update))
    for letter in "bcdefgh":
        ann.root.insert(len(ann.root), letter)
    await ann.send_edits()
    await ben.shows("abcdefgh")
    commits = node.service.metrics.append_batch_updates._counts
    assert len(ben.received(messages.Update)) - heard <= sum(commits) - 1
    assert len(ann.received(messages.Update)) == 1, "only the marker"
    await ann.leave()
    await ben.leave()


async def test_a_reconnect_stores_nothing_and_is_answered_with_the_deletes_alone(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("typed and erased")
    await ann.erase(0, 6)
    ben = await Editor.open_synced(node.url("notes"))
    await ann.until(lambda: ann.marker)
    await ann.leave()
    before = await count_stored(node.database, "notes")
    again = await Editor.open_synced(node.url("notes"), ann.doc)
    assert again.received(messages.SyncStep2)[0].update.startswith(b"\0")
    await again.type("!")
    await ben.shows("and erased!")
    assert await count_stored(node.database, "notes") == before + 1
    assert node.count(NOTHING_NEW) >= 1
    await again.leave()
    await ben.leave()


async def test_our_step1_comes_first_and_live_updates_behind_the_step2(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open(node.url("notes"))
    for number in range(50):
        await ann.type(f"{number} ")
    await ben.until(lambda: ben.text == ann.text)
    kinds = [type(message) for message in ben.messages]
    assert kinds[0] is messages.SyncStep1
    assert kinds.count(messages.SyncStep2) == 1
    await ann.leave()
    await ben.leave()


async def test_a_second_step1_is_answered_again(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("x")
    for _ in range(3):
        await ann.say(messages.encode_sync_step1(new_doc().get_state()))
    await ann.until(lambda: len(ann.received(messages.SyncStep2)) == 4)
    assert len(ann.received(messages.SyncStep1)) == 4
    await ann.leave()


async def test_an_update_that_repeats_another_is_stored_once(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    update = await ann.type("x")
    await ben.shows("x")
    await ben.say(messages.encode_update(update))
    await ben.type("y")
    await ann.shows("xy")
    assert await count_stored(node.database, "notes") == 2
    await ann.leave()
    await ben.leave()


async def test_many_writers_at_once_leave_a_gapless_log_and_equal_documents(node: Node) -> None:
    editors = [await Editor.open_synced(node.url("notes")) for _ in range(8)]

    async def work(editor: Editor) -> None:
        for _ in range(25):
            await editor.type("x")

    await asyncio.gather(*(work(editor) for editor in editors))
    for editor in editors:
        await editor.until(lambda editor=editor: len(editor.text) == 200)
    assert len({editor.text for editor in editors}) == 1
    assert await count_stored(node.database, "notes") == 200
    for editor in editors:
        await editor.leave()


async def test_everything_returns_to_nothing_when_all_have_left(database_url: str) -> None:
    async with running_node(database_url, room_idle_s=0) as node:
        editors = [await Editor.open_synced(node.url(f"notes/{number % 3}")) for number in range(9)]
        for editor in editors:
            await editor.type("x")
            await editor.until(lambda editor=editor: editor.marker)
            await editor.show(1)
        rooms = [node.room(f"notes/{number}") for number in range(3)]
        for editor in editors:
            await editor.leave()
        for room in rooms:
            await node.room_closed(room)
            assert not room.members
            assert not len(room.presence)
        registry = node.service.rooms
        assert not registry.rooms
        assert not registry.by_document_id
        assert not registry._tasks
        assert registry._budget.used_bytes == 0
        assert not node.service.relay.connections
        assert not node.service.relay._keepalive_due
        assert node.count('ydoc_connections{dialect="y-websocket"}') == 0
        assert node.count("ydoc_rooms") == 0
        assert node.count('ydoc_closes_total{code="1000"}') == 9


async def test_what_comes_behind_a_large_update_stays_behind_it_and_other_documents_do_not_wait(node: Node) -> None:
    writer = await Editor.open_synced(node.url("notes"))
    reader = await Editor.open_synced(node.url("notes"))
    neighbour = await Editor.open_synced(node.url("neighbour"))
    onlooker = await Editor.open_synced(node.url("neighbour"))
    large = "a large paste, " * 100_000
    await writer.type(large)
    for word in ("one ", "two ", "three"):
        await writer.type(word)
    await neighbour.type("quick")
    await onlooker.shows("quick")
    await reader.shows(large + "one two three")
    assert await count_stored(node.database, "notes") == 4
    for editor in (writer, reader, neighbour, onlooker):
        await editor.leave()
