"""What a backend writes without a socket goes through the room that editors are in."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.nodes import Editor, Node, count_stored, new_doc, running_node
from ydoc_store.auth.access import OPEN, Access
from ydoc_store.errors import (
    AheadOfLog,
    ConditionFailed,
    DocumentDeleted,
    EpochChanged,
    Forbidden,
    InvalidUpdate,
    NoSuchDocument,
    ProducerGap,
    StorageUnavailable,
)
from ydoc_store.rooms import contribution
from ydoc_store.rooms.contribution import Contributed, contribute
from ydoc_store.storage.epochs import delete_document
from ydoc_store.storage.guards import Guard, Producer
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

BACKEND = replace(OPEN, actor="robot")


def typed(text: str, doc: Doc[Any] | None = None) -> bytes:
    doc = new_doc() if doc is None else doc
    before = doc.get_state()
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update(before)


async def write(node: Node, update: bytes, name: str = "notes", **options: Any) -> Contributed:
    return await contribute(node.service.rooms, BACKEND, name, update, dialect="http", **options)


async def test_an_edit_without_a_socket_is_stored_with_its_actor_and_shown_to_editors(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    done = await write(node, typed("hello"))
    assert (done.seq, done.is_new, done.created) == (1, True, True)
    await ann.shows("hello")
    async with node.database.acquire() as connection:
        assert await connection.fetchval("SELECT actor FROM ydoc.updates") == "robot"
    assert await count_stored(node.database, "notes") == 1


async def test_what_holds_nothing_new_is_not_stored_again_and_names_a_head_that_has_it(node: Node) -> None:
    update = typed("hello")
    first = await write(node, update)
    again = await write(node, update)
    assert (again.seq, again.is_new, again.created) == (1, False, False)
    assert again.document_id == first.document_id
    assert await count_stored(node.database, "notes") == 1


async def test_many_at_once_are_stored_each_once_in_one_order(node: Node) -> None:
    done = await asyncio.gather(*(write(node, typed(f"{number} ")) for number in range(50)))
    assert sorted(one.seq for one in done) == list(range(1, 51))
    assert sum(one.created for one in done) == 1
    assert await count_stored(node.database, "notes") == 50


async def test_who_does_not_create_is_told_that_there_is_no_such_document(node: Node) -> None:
    with pytest.raises(NoSuchDocument):
        await write(node, typed("x"), creates=False)
    assert not node.service.rooms.rooms
    await write(node, typed("x"))
    assert (await write(node, typed("y"), creates=False)).seq == 2


async def test_a_document_that_another_node_has_made_exists_for_this_one(database_url: str) -> None:
    async with running_node(database_url) as one, running_node(database_url, poll_interval_s=60) as other:
        # Open there under a name that nobody has written to yet.
        await Editor.open_synced(other.url("notes"))
        await write(one, typed("x"))
        assert (await write(other, typed("y"), creates=False)).seq == 2


async def test_a_reader_changes_nothing(node: Node) -> None:
    """I17: nor does it say that something was stored."""
    reader = replace(BACKEND, access=Access.READ)
    with pytest.raises(Forbidden):
        await contribute(node.service.rooms, reader, "notes", typed("x"), dialect="http")
    assert await count_stored(node.database, "notes") == 0
    assert node.count('ydoc_updates_total{dialect="http",result="read_only"}') == 1


async def test_a_read_only_server_says_that_it_is_one(database_url: str, node: Node) -> None:
    async with running_node(database_url, read_only=True) as reading:
        with pytest.raises(StorageUnavailable):
            await write(reading, typed("x"))


@pytest.mark.parametrize("inline_bytes_max", [0, 10**6], ids=["large", "small"])
async def test_what_no_editor_may_send_a_backend_may_not_either(
    node: Node, monkeypatch: pytest.MonkeyPatch, inline_bytes_max: int
) -> None:
    """I14: and nothing is stored, whichever way it is walked."""
    monkeypatch.setattr(contribution, "INLINE_BYTES_MAX", inline_bytes_max)
    await write(node, typed("x"))
    with pytest.raises(InvalidUpdate):
        await write(node, b"\x01\x00\x8c\x01\x00\x0c\x01")
    with pytest.raises(EpochChanged):
        await write(node, marker_update(RESERVED_CLIENT_ID_MIN + 5))
    assert (await write(node, typed("large enough"))).seq == 2


async def test_a_delete_of_what_never_came_is_capped_and_told(node: Node) -> None:
    await write(node, typed("x"))
    ahead = node.service.settings.import_deletes_ahead_max
    # no structs; one client with one range
    assert (await write(node, b"\x00\x01\x05\x01\x00\x0a")).seq == 2
    with pytest.raises(AheadOfLog):
        await write(node, b"\x00\x01\x06\x01\x00" + _varuint(ahead + 1))
    assert node.count('ydoc_updates_audited_total{reason="delete ahead"}') == 1


async def test_a_deleted_document_takes_nothing(node: Node) -> None:
    """I12: while it is open here, and when it is opened anew."""
    await write(node, typed("x"))
    room = node.room("notes")
    await delete_document(node.database, "default", "notes")
    for _ in range(2):
        with pytest.raises(DocumentDeleted):
            await write(node, typed("y"))
        await node.room_closed(room)


async def test_a_writer_that_gives_up_leaves_nothing_behind(node: Node) -> None:
    async with node.database.transaction() as connection:
        await connection.execute("LOCK TABLE ydoc.documents IN EXCLUSIVE MODE")
        writing = asyncio.create_task(write(node, typed("x")))
        queue = None
        while queue is None or not queue.in_flight:
            await asyncio.sleep(0)
            room = node.service.rooms.rooms.get(("default", "notes"))
            queue = room.queue if room is not None else None
        writing.cancel()
        await asyncio.wait([writing])
    assert not node.room("notes").members
    assert (await write(node, typed("y"))).seq == 2


def _varuint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


async def test_a_producers_repeat_is_stored_once_even_where_it_holds_nothing_new(node: Node) -> None:
    update = typed("hello")
    await write(node, update)
    first = await write(node, update, guard=Guard(Producer("p", 0, 0)))
    again = await write(node, update, guard=Guard(Producer("p", 0, 0)))
    assert (first.seq, first.is_duplicate) == (2, False)
    assert (again.seq, again.is_duplicate, again.is_new) == (2, True, False)
    with pytest.raises(ProducerGap):
        await write(node, typed("x"), guard=Guard(Producer("p", 0, 2)))
    assert await count_stored(node.database, "notes") == 2


async def test_a_repeat_to_a_node_that_is_behind_names_a_head_that_has_it(database_url: str) -> None:
    async with running_node(database_url) as one, running_node(database_url, poll_interval_s=60) as behind:
        await write(one, typed("a"))
        await Editor.open_synced(behind.url("notes"))
        behind.service.fanout.on_log = lambda _hint: None
        update, guard = typed("b"), Guard(Producer("p", 0, 0))
        await write(one, update, guard=guard)
        again = await write(behind, update, guard=guard)
        assert (again.seq, again.is_duplicate, again.is_new, again.created) == (2, True, False, False)


async def test_of_many_that_want_to_begin_a_document_one_does(node: Node) -> None:
    began = await asyncio.gather(
        *(write(node, typed(f"{number}"), guard=Guard(head_is=0)) for number in range(10)), return_exceptions=True
    )
    assert [type(one) for one in began if isinstance(one, BaseException)] == [ConditionFailed] * 9
    assert await count_stored(node.database, "notes") == 1
