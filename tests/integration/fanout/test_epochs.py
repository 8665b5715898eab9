"""Documents that are deleted, undeleted, recreated or repaired under open editors, on two nodes (I10, I11, I12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pycrdt import Text

from compactor.fold import fold_document
from tests.nodes import Editor, Node, connect_raw, count_stored, new_doc, running_node
from ydoc_store.fanout.hints import LogHint
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.epochs import (
    Content,
    NewEpoch,
    delete_document,
    list_epochs,
    recreate_document,
    replace_content,
    undelete_document,
)
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.past import read_past
from ydoc_store.yjs.messages import encode_sync_step2, encode_update
from ydoc_store.yjs.walker import marker_update

Pair = tuple[Node, Node]
NEVER = {"poll_interval_s": 3_600}


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[Pair]:
    """Two nodes that hear of each other by hints alone."""
    async with running_node(database_url, **NEVER) as here, running_node(database_url, **NEVER) as there:
        async with asyncio.timeout(60):
            while not (here.service.fanout.others_listen and there.service.fanout.others_listen):
                await here.service.rooms.watch.poll()
        yield here, there


async def repair(node: Node, seq: int) -> NewEpoch:
    """What the command does."""
    past = await read_past(node.database, DEFAULT_TENANT, "notes", seq)
    folded = fold_document(None, past.updates, past.keep_deleted)
    content = Content(folded.snapshot, folded.way)
    return await replace_content(node.database, DEFAULT_TENANT, "notes", content, epoch=past.current_epoch)


async def written(nodes: Pair, *texts: str) -> tuple[Editor, Editor]:
    """Ann, here, has typed these texts, an update each; Ben shows them there."""
    ann = await Editor.open_synced(nodes[0].url("notes"))
    ben = await Editor.open_synced(nodes[1].url("notes"))
    for text in texts:
        await ann.type(text)
    await ben.shows("".join(texts))
    await ann.until(lambda: ann.marker)
    return ann, ben


async def stored_of(node: Node, document_id: int) -> int:
    """The head of one epoch; AssertionError unless its log is whole up to there."""
    async with node.database.acquire() as connection:
        head: int = await connection.fetchval("SELECT head FROM ydoc.documents WHERE id = $1", document_id)
        rows = await connection.fetch(
            "SELECT seq, count FROM ydoc.updates WHERE document_id = $1 ORDER BY seq", document_id
        )
    at = 0
    for seq, count in rows:
        assert seq - count == at
        at = seq
    assert at == head
    return head


def deaf(node: Node) -> None:
    """Whatever is said, this node does not hear it."""
    node.service.fanout.on_log = lambda _hint: None


async def storm(editors: list[Editor]) -> None:
    """Everyone types until told that it is over."""

    async def type_on(editor: Editor) -> None:
        while editor.close_code is None:
            await editor.type("x")
            await asyncio.sleep(0)

    await asyncio.gather(*(type_on(editor) for editor in editors))


async def test_a_deletion_closes_every_room_at_once_and_for_good(nodes: Pair) -> None:
    """I12: by a hint, without waiting for a poll."""
    ann, ben = await written(nodes, "secret")
    await delete_document(nodes[0].database, DEFAULT_TENANT, "notes")
    for editor in (ann, ben):
        code, reason = await editor.closed()
        assert code == 4404
        assert "deleted" in reason
    for node in nodes:
        again = await Editor.open(node.url("notes"), ann.doc)
        assert (await again.closed())[0] == 4404
        assert not again.messages


async def test_nothing_is_appended_behind_a_tombstone_however_many_are_typing(nodes: Pair) -> None:
    """I12: the tombstone is checked on the head row, under its lock, in the statement that writes."""
    editors = [await Editor.open_synced(node.url("notes")) for node in nodes for _ in range(3)]
    await editors[0].type("first")
    for editor in editors:
        await editor.until(lambda editor=editor: editor.marker)
    typing = asyncio.create_task(storm(editors))
    await editors[3].until(lambda: len(editors[3].root) > 60)
    tombstone = await delete_document(nodes[0].database, DEFAULT_TENANT, "notes")
    async with asyncio.timeout(60):
        await typing
    assert {(await editor.closed())[0] for editor in editors} == {4404}
    assert await count_stored(nodes[0].database, "notes") == tombstone.head
    async with nodes[0].database.acquire() as connection:
        head = await connection.fetchval("SELECT head FROM ydoc.documents WHERE id = $1", tombstone.document_id)
    assert head == tombstone.head


async def test_an_undeleted_document_goes_on_with_whoever_knew_it(nodes: Pair) -> None:
    ann, ben = await written(nodes, "kept")
    await delete_document(nodes[0].database, DEFAULT_TENANT, "notes")
    await ann.closed()
    await ben.closed()
    await undelete_document(nodes[1].database, DEFAULT_TENANT, "notes")
    again = await Editor.open_synced(nodes[0].url("notes"), ann.doc)
    fresh = await Editor.open_synced(nodes[1].url("notes"))
    await fresh.shows("kept")
    await again.type("!")
    await fresh.shows("kept!")
    assert fresh.marker == again.marker
    await again.leave()
    await fresh.leave()


async def test_who_knew_a_document_cannot_bring_it_back_into_the_one_begun_anew(nodes: Pair) -> None:
    """I10, I12."""
    ann, ben = await written(nodes, "old")
    await delete_document(nodes[0].database, DEFAULT_TENANT, "notes")
    await ann.closed()
    await ben.closed()
    new = await recreate_document(nodes[0].database, DEFAULT_TENANT, "notes")
    for node in nodes:
        returning = await Editor.open(node.url("notes"), ann.doc)
        assert (await returning.closed())[0] == 4409
        assert not returning.messages
    cid = await Editor.open_synced(nodes[0].url("notes"))
    dan = await Editor.open_synced(nodes[1].url("notes"))
    assert cid.text == ""
    await cid.type("new")
    await dan.shows("new")
    assert cid.marker == dan.marker not in (None, ben.marker)
    assert await stored_of(nodes[0], new.document_id) == 1
    await cid.leave()
    await dan.leave()


async def test_a_repair_under_people_who_type_is_a_clean_cut(nodes: Pair) -> None:
    """I10: an append is before the switch, and in the old epoch; or it is refused. Nobody's copy comes back."""
    ann, ben = await written(nodes, "good", " work")
    crowd = [ann, ben, *[await Editor.open_synced(node.url("notes")) for node in nodes for _ in range(2)]]
    typing = asyncio.create_task(storm(crowd))
    await ben.until(lambda: len(ben.root) > 60)
    new = await repair(nodes[0], 2)
    async with asyncio.timeout(60):
        await typing
    for editor in crowd:
        code, reason = await editor.closed()
        assert code == 4409
        assert "reload" in reason
    assert await stored_of(nodes[0], new.replaced_document_id) == new.replaced_head
    fresh = await Editor.open_synced(nodes[1].url("notes"))
    await fresh.shows("good work")
    for node in nodes:
        for editor in crowd[:2]:
            returning = await Editor.open(node.url("notes"), editor.doc)
            assert (await returning.closed())[0] == 4409
            assert not returning.messages
    await fresh.type("!")
    assert fresh.text == "good work!"
    late = await Editor.open_synced(nodes[0].url("notes"))
    await late.shows("good work!")
    assert [epoch.head for epoch in await list_epochs(nodes[0].database, DEFAULT_TENANT, "notes")] == [
        new.replaced_head,
        2,
    ]
    await fresh.leave()
    await late.leave()


async def test_two_repairs_at_once_make_one_epoch_each_or_none(nodes: Pair) -> None:
    ann, _ = await written(nodes, "a", "b", "c")
    repairs = [repair(node, seq) for node, seq in zip(nodes, (1, 2), strict=True)]
    made = await asyncio.gather(*repairs, return_exceptions=True)
    new = [one for one in made if isinstance(one, NewEpoch)]
    assert len(new) == 1, made
    await ann.closed()
    fresh = await Editor.open_synced(nodes[0].url("notes"))
    assert fresh.text in ("a", "ab")
    await fresh.leave()


async def test_whoever_comes_from_the_new_epoch_is_not_sent_away_by_a_node_that_is_behind(nodes: Pair) -> None:
    """I10: 4409 would have its editor throw its copy away, and the copy is right."""
    here, there = nodes
    ann, ben = await written(nodes, "good", "bad")
    deaf(there)
    await repair(here, 1)
    await ann.closed()
    fresh = await Editor.open_synced(here.url("notes"))
    assert fresh.text == "good"
    fresh.root.insert(4, "!")
    moved = await Editor.open(there.url("notes"), fresh.doc)
    assert (await moved.closed())[0] == 1012
    assert not moved.messages
    assert (await ben.closed())[0] == 4409
    again = await Editor.open_synced(there.url("notes"), fresh.doc)
    await fresh.shows("good!")
    await fresh.leave()
    await again.leave()


async def test_nor_is_whoever_knows_the_marker_of_a_document_that_a_node_has_not_heard_of(nodes: Pair) -> None:
    """I10: as when IndexedDB brings it behind the first sync, or another tab of the same browser."""
    here, there = nodes
    deaf(there)
    ben = await Editor.open_synced(there.url("notes"))
    ann = await Editor.open_synced(here.url("notes"))
    await ann.type("new")
    await ann.until(lambda: ann.marker)
    await ben.say(encode_update(ann.doc.get_update()))
    assert (await ben.closed())[0] == 1012
    again = await Editor.open_synced(there.url("notes"), ann.doc)
    await again.type("!")
    assert again.text == "new!"
    await again.leave()
    await ann.leave()


async def test_an_old_tab_on_a_node_that_is_behind_cannot_write_into_the_new_epoch(nodes: Pair) -> None:
    """I10: its room still believes in the old epoch, and the head row does not."""
    here, there = nodes
    _ann, ben = await written(nodes, "good", "bad")
    deaf(there)
    new = await repair(here, 1)
    returning = await Editor.open_synced(there.url("notes"), ben.doc)
    await returning.type(" worse")
    assert (await returning.closed())[0] == 4409
    assert (await ben.closed())[0] == 4409
    assert await stored_of(here, new.document_id) == 1
    assert await stored_of(here, new.replaced_document_id) == new.replaced_head == 2


@pytest.mark.parametrize("encode", [encode_update, encode_sync_step2], ids=["Update", "Step2"])
async def test_nothing_is_taken_from_who_has_not_said_what_it_has(
    nodes: Pair, encode: Callable[[bytes], bytes]
) -> None:
    """I10: an edit alone carries no marker, so one before the Step1 could be of any history."""
    ann, ben = await written(nodes, "good", "bad")
    ben.root.insert(0, "old tab: ")
    (edit,) = ben._waiting
    new = await repair(nodes[0], 1)
    await ann.closed()
    await ben.closed()
    for content, code in ((edit, 1008), (ben.doc.get_update(), 4409), (marker_update(ben.marker or 0), 4409)):
        silent = Editor(await connect_raw(nodes[0].url("notes")), new_doc())
        await silent.say(encode(content))
        assert (await silent.closed())[0] == code
        assert not silent.messages
    assert await stored_of(nodes[0], new.document_id) == 1


async def test_an_old_copy_that_is_loaded_behind_the_first_sync_is_refused_whole(nodes: Pair) -> None:
    """I10: as when IndexedDB is slower than the network; what it brings carries the old marker."""
    ann, ben = await written(nodes, "good", "bad")
    new = await repair(nodes[0], 1)
    await ann.closed()
    late = await Editor.open_synced(nodes[0].url("notes"))
    await late.say(encode_update(ben.doc.get_update()))
    await late.type("and more")
    assert (await late.closed())[0] == 4409
    assert await stored_of(nodes[0], new.document_id) == 1


async def test_after_a_bump_every_room_is_loaded_anew_and_nothing_is_doubled(nodes: Pair) -> None:
    """I11: at once, by a hint; clients sync again, with what they have."""
    ann, ben = await written(nodes, "kept")
    rooms = [node.room("notes") for node in nodes]
    ann.root.insert(4, "!")
    await bump_incarnation(nodes[0].database)
    for editor in (ann, ben):
        code, reason = await editor.closed()
        assert code == 1012
        assert "restored" in reason
    again = await Editor.open_synced(nodes[0].url("notes"), ann.doc)
    other = await Editor.open_synced(nodes[1].url("notes"), ben.doc)
    async with asyncio.timeout(60):
        while other.text != "kept!":
            # Here a hint that comes while the room is still loading is lost for good: nobody else polls.
            await nodes[1].service.rooms.watch.poll()
    assert [node.room("notes") for node in nodes] != rooms
    await again.leave()
    await other.leave()


async def test_what_is_typed_into_one_document_never_lands_in_another_that_was_given_its_id(nodes: Pair) -> None:
    """I11: a restored database gives ids and seqs again that were given after the backup; the marker tells."""
    ann, ben = await written(nodes, "mine")
    document_id = nodes[0].room("notes").document_id
    async with nodes[0].database.acquire() as connection:
        await connection.execute(
            "UPDATE ydoc.documents SET marker = marker # 1, name = 'somebody else''s' WHERE id = $1", document_id
        )
    await ann.type(" and mine alone")
    assert (await ann.closed())[0] == 1012
    assert await count_stored(nodes[0].database, "somebody else's") == 1
    # What another node says of that document, bytes and all, is shown to nobody in this one.
    theirs = new_doc()
    theirs.get("text", type=Text).insert(0, "theirs")
    assert document_id is not None
    marker = (ben.marker or 0) ^ 1
    nodes[1].service.fanout.on_log(LogHint(document_id, 1, 2, [theirs.get_update()], marker))
    assert (await ben.closed())[0] == 1012
    assert ben.text == "mine"
