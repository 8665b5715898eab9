"""How rooms come and go: loaded once, never entered when discarded, never trusted across a lost connection."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.nodes import Editor, Node, closed_at_once, running_node
from ydoc_store.errors import CorruptDocument, RoomDiscarded, StorageUnavailable
from ydoc_store.rooms import registry
from ydoc_store.storage.creating import Created

pytestmark = pytest.mark.pg15


async def execute(node: Node, statement: str) -> None:
    async with node.database.acquire() as connection:
        await connection.execute(statement)


async def written(node: Node, name: str = "notes") -> Editor:
    editor = await Editor.open_synced(node.url(name))
    await editor.type("x")
    await editor.until(lambda: editor.marker)
    return editor


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE ydoc.documents SET deleted_at = now()", 4404),
        ("UPDATE ydoc.documents SET replaced_at = now()", 4409),
        ("DELETE FROM ydoc.documents", 1012),
        ("UPDATE ydoc.documents SET head = 0, accepted_rows = 0", 1012),
    ],
    ids=["deleted", "replaced", "gone", "gone back"],
)
async def test_the_poll_closes_what_is_no_more(node: Node, statement: str, code: int) -> None:
    ann = await written(node)
    await execute(node, statement)
    await node.service.rooms.watch.poll()
    assert (await ann.closed())[0] == code
    assert not node.service.rooms.rooms
    assert not node.service.rooms.by_document_id


async def test_an_append_to_a_deleted_document_closes_its_room(database_url: str) -> None:
    async with running_node(database_url, poll_interval_s=1000) as node:
        ann = await written(node)
        ben = await Editor.open_synced(node.url("notes"))
        await execute(node, "UPDATE ydoc.documents SET deleted_at = now()")
        await ann.type("y")
        assert (await ann.closed())[0] == 4404
        assert (await ben.closed())[0] == 4404
        assert not node.service.rooms.rooms, "nobody may enter a discarded room"
        assert (await closed_at_once(node.url("notes")))[0] == 4404


async def test_a_log_with_a_hole_is_never_opened(database_url: str) -> None:
    async with running_node(database_url, room_idle_s=0) as node:
        ann = await written(node)
        room = node.room("notes")
        await ann.leave()
        await node.room_closed(room)
        await execute(node, "DELETE FROM ydoc.updates")
        code, _ = await closed_at_once(node.url("notes"))
        assert code == CorruptDocument.close_code


@pytest.mark.parametrize("column", ["frames", "state_vector"])
async def test_bytes_that_cannot_be_read_are_corruption_and_not_the_readers_fault(
    database_url: str, column: str
) -> None:
    async with running_node(database_url, room_idle_s=0) as node:
        ann = await written(node)
        room = node.room("notes")
        await ann.leave()
        await node.room_closed(room)
        if column == "frames":
            await execute(node, r"UPDATE ydoc.updates SET frames = '\x03ffffff'")
        else:
            await execute(
                node,
                "INSERT INTO ydoc.snapshots (document_id, through_seq, bytes, state_vector, delete_set, merged_rows,"
                r" merged_bytes, way) SELECT id, 1, '\x0000', '\xff', '\x00', 1, 1, 'merge' FROM ydoc.documents",
            )
            await execute(node, "DELETE FROM ydoc.updates")
        assert (await closed_at_once(node.url("notes")))[0] == CorruptDocument.close_code
        assert node.service.rooms._budget.used_bytes == 0


async def test_a_lost_connection_discards_every_room_even_an_idle_one(
    node: Node, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    editors = [await written(node, name) for name in ("a", "b")]
    # Not by the node's own pool, whose connections are dropped with the lane's.
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()",
    )
    for editor in editors:
        assert (await editor.closed())[0] == 1012
    assert not node.service.rooms.rooms
    assert node.service.rooms._budget.used_bytes == 0
    for editor, name in zip(editors, ("a", "b"), strict=True):
        again = await Editor.open_synced(node.url(name), editor.doc)
        await again.type("y")
        fresh = await Editor.open_synced(node.url(name))
        await fresh.shows("xy")
        await again.leave()
        await fresh.leave()


async def test_a_load_from_before_a_lost_connection_is_not_trusted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await written(node)
    node.room("notes").discard(RoomDiscarded("come back"))
    await ann.closed()
    real, loads, go_on = registry.load, 0, asyncio.Event()

    async def slow_load(*arguments: Any) -> Any:
        nonlocal loads
        loads += 1
        stored = await real(*arguments)
        if loads == 1:
            started.set()
            await go_on.wait()
        return stored

    started = asyncio.Event()
    monkeypatch.setattr(registry, "load", slow_load)
    opening = asyncio.create_task(Editor.open_synced(node.url("notes")))
    await started.wait()
    node.service.rooms.discard_all(StorageUnavailable("lost"))
    go_on.set()
    reader = await opening
    assert loads == 2
    assert reader.text == "x"
    await reader.leave()


async def test_a_room_that_was_discarded_while_somebody_was_let_in_is_not_entered(node: Node) -> None:
    rooms = node.service.rooms
    discarded = []

    def discard_first(room: Any) -> None:
        node.rooms_opened.append(room)
        if not discarded:
            discarded.append(room)
            asyncio.get_running_loop().call_soon(room.discard, RoomDiscarded("come back"))

    rooms.events.opened = discard_first
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("x")
    await ann.until(lambda: ann.marker)
    assert node.room("notes") is not discarded[0]
    assert list(discarded[0].members) == []
    await ann.leave()


async def test_an_empty_room_is_found_again_until_it_is_closed(database_url: str) -> None:
    async with running_node(database_url, room_idle_s=1000, poll_interval_s=1000) as node:
        ann = await written(node)
        room = node.room("notes")
        await ann.leave()
        again = await Editor.open_synced(node.url("notes"))
        assert node.room("notes") is room
        await again.leave()
        rooms = node.service.rooms
        rooms.tick(room.emptied_at_s + 999)
        assert node.room("notes") is room
        rooms.tick(room.emptied_at_s + 1000)
        assert not rooms.rooms


async def test_empty_rooms_are_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "EMPTY_ROOMS_MAX", 3)
    async with running_node(database_url, room_idle_s=1000) as node:
        for number in range(8):
            editor = await written(node, f"notes/{number}")
            await editor.leave()
        await node.room_closed(node.rooms_opened[4])
        assert [room.name for room in node.service.rooms.rooms.values()] == ["notes/5", "notes/6", "notes/7"]


async def test_what_a_load_brought_is_dropped_when_nobody_reads_it(database_url: str) -> None:
    async with running_node(database_url, room_cache_bytes_max=1, room_idle_s=0) as node:
        ann = await written(node)
        room = node.room("notes")
        await ann.leave()
        await node.room_closed(room)
        room = await node.service.rooms.open("default", "notes")
        assert node.service.rooms._budget.used_bytes > 0
        room.members[object()] = None  # type: ignore[index] # somebody who says nothing
        node.service.rooms.tick(room.emptied_at_s + registry.LOADED_KEPT_S)
        assert node.service.rooms._budget.used_bytes == 0
        room.members.clear()


async def test_a_document_created_elsewhere_is_adopted_and_shown(database_url: str) -> None:
    async with running_node(database_url, poll_interval_s=1000) as here, running_node(database_url) as there:
        here.service.fanout.on_log = lambda _hint: None
        reader = await Editor.open_synced(here.url("notes"))
        writer = await written(there)
        await here.service.rooms.watch.poll()
        await reader.shows("x")
        assert reader.marker == writer.marker
        await reader.leave()
        await writer.leave()


async def test_a_room_that_adopted_another_document_than_its_commit_is_discarded(node: Node) -> None:
    ann = await written(node)
    room = node.room("notes")
    room.adopt(Created((room.document_id or 0) + 1, 2, room.marker or 0))
    assert (await ann.closed())[0] == 1012
    assert not node.service.rooms.rooms
