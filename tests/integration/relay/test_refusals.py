"""What is refused, with which code, and that nothing behind a refused update is ever accepted (I4, I13)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pycrdt import Array, Doc
from structlog.testing import capture_logs

from tests.nodes import Editor, Node, connect_raw, count_stored, new_doc, replace_log_by_snapshot, running_node
from tests.waiting import until
from ydoc_store.errors import CommitUnknown, RoomDiscarded, StorageBusy
from ydoc_store.rooms import large, session
from ydoc_store.storage import lane
from ydoc_store.yjs import messages
from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import Walked
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

REFUSED = 'ydoc_updates_total{dialect="y-websocket",result="refused"}'


def delete_of(client: int, start: int, length: int) -> bytes:
    return b"\0\1" + b"".join(encode_uint(number) for number in (client, 1, start, length))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 1008),
        (b"\x00", 1008),
        (b"\x00\x02\x05\x00", 1008),
        (b"\x00\x02\x02\x00\x00\x00", 1008),
        (b"\x00\x03\x00", 1008),
        (b"\x00\x00\x02\x01\x01", 1008),
        (messages.encode_update(b"\x01\x00\x8c\x01\x00\x01"), 4400),
        (messages.encode_update(b"\x00\x00\x05\x00\x00\x00\x00\x00"), 4400),
        (messages.encode_awareness(b"\x01\x01\xff"), 1008),
        (messages.encode_awareness(b"\x01\x01\x01\x02[]"), 1008),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else str(value),
)
async def test_a_bad_frame_closes_its_connection_alone(node: Node, frame: bytes, code: int) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    bad = await Editor.open_synced(node.url("notes"))
    await bad.say(frame)
    assert (await bad.closed())[0] == code
    await ann.type("still here")
    ben = await Editor.open_synced(node.url("notes"))
    await ben.shows("still here")
    await ann.leave()
    await ben.leave()


async def test_an_unknown_message_type_is_ignored_and_counted(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.say(b"\x63whatever")
    await ann.type("x")
    await ann.until(lambda: ann.marker)
    assert node.count('ydoc_frames_ignored_total{reason="unknown type"}') == 1
    await ann.leave()


async def test_nothing_behind_a_refused_update_is_accepted(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    ann.root.insert(1, "b")
    behind = ann._waiting.pop()
    await ann.say(messages.encode_update(b"\x01\x00"))
    await ann.say(messages.encode_update(behind))
    assert (await ann.closed())[0] == 4400
    assert await count_stored(node.database, "notes") == 1
    assert node.count(REFUSED) == 1


async def test_nothing_is_accepted_of_who_was_fenced_while_a_large_update_was_looked_through(node: Node) -> None:
    """I4: what it sent before was refused meanwhile, and this one follows it."""
    editor = await Editor.open_synced(node.url("notes"))
    (member,) = node.room("notes").members
    refused = StorageBusy("the one before was refused")

    class Slow(Knowledge):
        def news(self, walked: Walked) -> Walked:
            if not member.closed:
                asyncio.get_running_loop().call_soon(member.room.fence, member, refused)
            return super().news(walked)

    member.room.knowledge = Slow()
    editor.root.insert(0, "xy" * large.RANGES_A_TURN)
    with editor.doc.transaction():
        for place in range(large.RANGES_A_TURN):
            del editor.root[place : place + 1]
    await editor.say(messages.encode_sync_step2(await editor.state()))
    assert (await editor.closed())[0] == 1013
    await node.room_closed(member.room)
    assert await count_stored(node.database, "notes") == 0


async def test_a_delete_of_what_never_came_is_not_stored(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    await ann.say(messages.encode_update(delete_of(ann.doc.client_id, 1, 5)))
    assert (await ann.closed())[0] == 1012
    assert await count_stored(node.database, "notes") == 1


async def test_a_delete_of_what_is_still_in_flight_is_accepted(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    for _ in range(20):
        ann.root.insert(0, "ab")
        del ann.root[0:1]
    await ann.send_edits()
    ben = await Editor.open_synced(node.url("notes"))
    await ben.shows("b" * 20)
    await ann.leave()
    await ben.leave()


@pytest.mark.parametrize("existing", [True, False], ids=["a document", "an unknown name"])
async def test_whoever_carries_another_epochs_marker_gets_nothing_and_is_told_to_reload(
    node: Node, *, existing: bool
) -> None:
    if existing:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("a")
        await ann.until(lambda: ann.marker)
        await ann.leave()
    old = new_doc()
    old.apply_update(marker_update(RESERVED_CLIENT_ID_MIN + 7))
    reader = await Editor.open(node.url("notes"), old)
    assert (await reader.closed())[0] == 4409
    assert not reader.messages
    writer = await Editor.open_synced(node.url("notes"))
    await writer.say(messages.encode_update(marker_update(RESERVED_CLIENT_ID_MIN + 7)))
    assert (await writer.closed())[0] == 4409


async def test_nothing_but_the_marker_may_be_written_under_reserved_ids(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    assert ann.marker is not None
    await ann.say(messages.encode_update(b"\x01\x01" + encode_uint(ann.marker) + b"\x01\x00\x01\x00"))
    assert (await ann.closed())[0] == 4400


async def test_a_message_over_the_limit_is_refused_for_good(database_url: str) -> None:
    async with running_node(database_url, update_bytes_max="64KiB") as node:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("x" * 100_000)
        code, reason = await ann.closed()
        assert code == 4413
        assert "YDOC_UPDATE_BYTES_MAX" in reason
        assert node.count('ydoc_closes_total{code="4413"}') == 1


@pytest.mark.parametrize("is_large", [False, True], ids=["at once", "in turns"])
async def test_too_much_that_is_new_is_refused_and_what_is_repeated_is_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch, *, is_large: bool
) -> None:
    if is_large:
        monkeypatch.setattr(session, "INLINE_BYTES_MAX", 0)
        monkeypatch.setattr(large, "RANGES_A_TURN", 4)
    async with running_node(database_url, update_delete_ranges_max=10) as node:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("x" * 40)
        for place in range(15):
            await ann.erase(place, 1)
        ben = await Editor.open_synced(node.url("notes"))
        await ben.shows("x" * 25)
        await ben.leave()
        again = await Editor.open_synced(node.url("notes"), ben.doc)
        await again.say(messages.encode_update(again.doc.get_update()))
        await again.type("!")
        await ann.shows("x" * 25 + "!")
        other: Doc[Any] = new_doc()
        many = other.get("array", type=Array)
        many.extend(list(range(40)))
        for place in range(15):
            del many[place]
        await again.say(messages.encode_update(other.get_update()))
        assert (await again.closed())[0] == 4413
        await ann.leave()


@pytest.mark.long
async def test_a_document_with_a_million_deletes_is_reopened_and_delays_nobody(node: Node) -> None:
    """Its client brings the whole delete set with every reconnect; only bytes bound what is merely repeated."""
    ranges, parts = 1_200_000, 15
    encoded = [encode_uint(2 * number) + b"\x01" for number in range(ranges)]
    everything, events, sizes = asyncio.Event(), node.service.appender.events, [0]

    def committed(updates: int, _seconds: float) -> None:
        sizes[0] += updates
        if sizes[0] == parts + 1:
            everything.set()

    events.committed = committed
    bad = await Editor.open_synced(node.url("notes"))
    await bad.say(messages.encode_update(b"\x01\x01\x05\x00\x00" + encode_uint(2 * ranges) + b"\x00"))
    for part in range(parts):
        some = encoded[part * ranges // parts : (part + 1) * ranges // parts]
        await bad.say(messages.encode_update(b"\x00\x01\x05" + encode_uint(len(some)) + b"".join(some)))
    async with asyncio.timeout(120):
        await everything.wait()
    await bad.vanish()
    again = await connect_raw(node.url("notes"))
    ann, ben = await Editor.open_synced(node.url("other")), await Editor.open_synced(node.url("other"))

    async def reopen() -> None:
        await again.send(messages.encode_sync_step2(b"\x00\x01\x05" + encode_uint(ranges) + b"".join(encoded)))
        await again.send(b"\x03")
        async for frame in again:
            if frame[:1] == b"\x01":
                return

    reopening = asyncio.create_task(reopen())
    longest_s = 0.0
    while not reopening.done():
        begun_s = asyncio.get_running_loop().time()
        await ann.type("x")
        await ben.shows(ann.text)
        longest_s = max(longest_s, asyncio.get_running_loop().time() - begun_s)
    print(f"the longest that another document's edit took meanwhile: {longest_s:.3f} s")
    await reopening
    assert again.close_code is None
    assert await count_stored(node.database, "notes") == parts + 1
    assert 0 < longest_s < 2
    await again.close()
    await ann.leave()
    await ben.leave()


async def test_a_full_document_stays_readable_and_says_so_for_good_only_when_compaction_cannot_help(
    database_url: str,
) -> None:
    async with running_node(database_url, document_bytes_max="20KiB", update_bytes_max="16KiB") as node:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("x" * 15_000)
        await ann.until(lambda: ann.marker)
        await ann.type("y" * 15_000)
        assert (await ann.closed())[0] == 4413
        await node.service.rooms.watch.poll()
        ben = await Editor.open_synced(node.url("notes"))
        await ben.shows("x" * 15_000)
        await ben.type("z" * 15_000)
        assert (await ben.closed())[0] == 1013, "the tail of a full document can still shrink"
        assert await count_stored(node.database, "notes") == 1


async def test_a_commit_that_was_rolled_back_fences_its_senders_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ben.shows("a")
    room = node.room("notes")
    real = lane.append_batch
    times = iter([StorageBusy("a lock was held")])

    async def busy_once(*arguments: Any, **options: Any) -> Any:
        if (error := next(times, None)) is not None:
            raise error
        return await real(*arguments, **options)

    monkeypatch.setattr(lane, "append_batch", busy_once)
    await ann.type("b")
    await ann.type("c")
    code, reason = await ann.closed()
    assert code == 1013
    assert "lock" not in reason, "what goes on inside is not for peers"
    assert node.room("notes") is room
    assert ben.close_code is None
    again = await Editor.open_synced(node.url("notes"), ann.doc)
    await ben.shows("abc")
    await again.leave()
    await ben.leave()


async def test_after_an_unknown_commit_everyone_comes_back_to_a_room_loaded_anew(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ben.shows("a")
    room = node.room("notes")
    real = lane.append_batch

    async def committed_without_an_answer(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await real(*arguments, **options)
        raise CommitUnknown("the answer was lost")

    monkeypatch.setattr(lane, "append_batch", committed_without_an_answer)
    await ann.type("b")
    assert (await ann.closed())[0] == 1012
    assert (await ben.closed())[0] == 1012
    await node.room_closed(room)
    ann_again, ben_again = await asyncio.gather(
        Editor.open_synced(node.url("notes"), ann.doc), Editor.open_synced(node.url("notes"), ben.doc)
    )
    await ben_again.shows("ab")
    await ann_again.type("c")
    await ben_again.shows("abc")
    assert await count_stored(node.database, "notes") == 3, "the unknown one once, and nothing twice"
    await ann_again.leave()
    await ben_again.leave()


async def test_a_text_frame_is_refused_before_and_after_the_document_is_open(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.socket.send("text")
    assert (await ann.closed())[0] == 1003
    socket = await connect_raw(node.url("another"))
    await socket.send("text")
    await socket.wait_closed()
    assert socket.close_code == 1003


async def test_what_waits_in_a_snapshot_reaches_even_a_reader_that_has_all_the_rest(node: Node) -> None:
    """A stored state vector cannot tell of structs behind a gap, so their reader must not be taken for up to date."""
    ann = await Editor.open_synced(node.url("notes"))
    in_order = [await ann.type(letter) for letter in "ab"]
    await ann.until(lambda: ann.marker)
    behind = new_doc()
    behind.apply_update(marker_update(ann.marker or 0))
    for update in in_order:
        behind.apply_update(update)
    ann.root.insert(2, "c")
    lost = ann._waiting.pop()
    await ann.type("d")
    ben = await Editor.open_synced(node.url("notes"))
    await ben.shows("ab")
    room = node.room("notes")
    # Ben shows "ab" whether or not the "d" that nobody can show yet is committed.
    await until(lambda: room.head == 3)
    await replace_log_by_snapshot(node, room)
    room.discard(RoomDiscarded("come back"))
    await ann.closed()
    await ben.closed()
    returning = await Editor.open_synced(node.url("notes"), behind)
    assert node.room("notes") is not room
    await returning.say(messages.encode_update(lost))
    behind.apply_update(lost)
    assert returning.text == "abcd"
    await returning.leave()


async def test_a_refusal_is_logged_with_the_connections_id_and_nothing_of_the_document(node: Node) -> None:
    with capture_logs() as lines:
        editor = await Editor.open_synced(node.url("notes"))
        await editor.say(messages.encode_update(b"\x01\x01secret words"))
        await editor.closed()
    told = [line for line in lines if line["event"] == "connection closed"]
    assert [(line["code"], line["log_level"]) for line in told] == [(4400, "info")]
    assert len(told[0]["connection"]) == 8
    assert "secret" not in repr(lines)
