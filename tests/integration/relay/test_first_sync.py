"""First syncs of any size: paced by the socket, not counted in the outbox, complete whatever is committed meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.nodes import Editor, Node, connect_raw, new_doc, running_node
from tests.waiting import until
from ydoc_store.errors import RoomDiscarded
from ydoc_store.relay.connection import Connection
from ydoc_store.rooms import first_sync
from ydoc_store.yjs import messages

MIB = 1024 * 1024


def narrow_socket(port: int) -> socket.socket:
    """A connected socket that takes little at a time."""
    carrier = socket.socket()
    carrier.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    carrier.connect(("127.0.0.1", port))
    carrier.setblocking(False)  # noqa: FBT003 # the socket's own signature
    return carrier


async def write_large(node: Node, name: str, size: int) -> Editor:
    writer = await Editor.open_synced(node.url(name))
    chunk = 512 * 1024
    for start in range(0, size, chunk):
        await writer.type(chr(97 + start // chunk % 26) * chunk)
    reader = await Editor.open_synced(node.url(name))
    await reader.until(lambda: len(reader.root) >= size)
    await reader.leave()
    return writer


async def test_twenty_megabytes_open_over_a_slow_socket_while_others_type(database_url: str) -> None:
    async with running_node(database_url, outbox_bytes_max="1MiB") as node:
        writer = await write_large(node, "large", 20 * MIB)
        slow = await Editor.open(node.url("large"), sock=narrow_socket(node.port), max_queue=1)
        other = await Editor.open(node.url("large"))
        await other.synced()
        for number in range(100):
            await writer.type(f"{number} ")
        await slow.until(lambda: len(slow.root) == len(writer.root))
        assert slow.text == writer.text
        sent = [message.update for message in slow.received(messages.Update, messages.SyncStep2)]
        assert max(map(len, sent)) <= node.settings.sync_piece_bytes_max + 1024
        assert node.count('ydoc_closes_total{code="1013"}') == 0
        await writer.type("behind it, live")
        await slow.until(lambda: len(slow.root) == len(writer.root))
        for editor in (writer, slow, other):
            await editor.leave()


async def test_readers_of_one_large_document_share_one_cut(node: Node) -> None:
    writer = await write_large(node, "large", 2 * MIB)
    room = node.room("large")
    readers = await asyncio.gather(*(Editor.open_synced(node.url("large")) for _ in range(10)))
    assert all(reader.text == writer.text for reader in readers)
    assert not node.service.rooms.first_sync._cutting
    assert room.cold_pieces is not None
    for editor in (writer, *readers):
        await editor.leave()


async def test_an_update_too_large_for_an_outbox_closes_nobody(database_url: str) -> None:
    async with running_node(database_url, outbox_bytes_max="256KiB", sync_piece_bytes_max="64KiB") as node:
        writer = await Editor.open_synced(node.url("notes"))
        slow = await Editor.open_synced(node.url("notes"), sock=narrow_socket(node.port), max_queue=1)
        await writer.type("x" * (8 * MIB))
        await writer.type("y")
        await slow.until(lambda: len(slow.root) == len(writer.root))
        await writer.type("z")
        await slow.until(lambda: slow.text == writer.text)
        await writer.leave()
        await slow.leave()


async def test_a_step1_during_a_long_answer_is_answered_after_it(node: Node) -> None:
    writer = await write_large(node, "large", 3 * MIB)
    reader = await Editor.open(node.url("large"))
    await reader.say(messages.encode_sync_step1(new_doc().get_state()))
    await reader.until(lambda: len(reader.received(messages.SyncStep2)) == 2)
    assert reader.text == writer.text
    kinds = [type(message) for message in reader.messages]
    assert kinds.count(messages.SyncStep1) == 2
    await writer.type("live again")
    await reader.until(lambda: reader.text == writer.text)
    await writer.leave()
    await reader.leave()


async def test_a_returning_reader_gets_what_it_lacks_and_no_more(node: Node) -> None:
    writer = await write_large(node, "large", 3 * MIB)
    reader = await Editor.open_synced(node.url("large"))
    await reader.leave()
    update = await writer.type("what was missed")
    again = await Editor.open_synced(node.url("large"), reader.doc)
    await again.until(lambda: again.text == writer.text)
    assert sum(len(message.update) for message in again.received(messages.Update, messages.SyncStep2)) < 10 * len(
        update
    )
    await writer.leave()
    await again.leave()


async def test_a_reader_that_knows_the_marker_alone_is_new(node: Node) -> None:
    first = await Editor.open_synced(node.url("notes"))
    early = await Editor.open_synced(node.url("notes"))
    await first.type("x")
    await early.shows("x")
    with_marker = new_doc()
    with_marker.apply_update(early.received(messages.Update)[0].update)
    reader = await Editor.open_synced(node.url("notes"), with_marker)
    assert reader.text == "x"
    for editor in (first, early, reader):
        await editor.leave()


async def test_a_reader_ahead_of_the_log_brings_what_is_missing(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    await ann.type("a")
    await ann.until(lambda: ann.marker)
    await ann.leave()
    ann.root.insert(1, "b")
    again = await Editor.open_synced(node.url("notes"), ann.doc)
    ben = await Editor.open_synced(node.url("notes"))
    await ben.shows("ab")
    await again.leave()
    await ben.leave()


async def test_without_any_cache_every_first_sync_is_read_from_the_log(database_url: str) -> None:
    async with running_node(database_url, room_cache_bytes_max=1, process_cache_bytes_max=1) as node:
        writer = await Editor.open_synced(node.url("notes"))

        async def type_on() -> None:
            for number in range(200):
                await writer.type(f"{number} ")

        typing = asyncio.create_task(type_on())
        readers = [await Editor.open_synced(node.url("notes")) for _ in range(10)]
        await typing
        for reader in readers:
            await reader.until(lambda reader=reader: reader.text == writer.text)
        assert node.service.rooms._budget.used_bytes == 0
        for editor in (writer, *readers):
            await editor.leave()


async def test_a_first_sync_that_began_before_a_discard_ends_with_it(node: Node) -> None:
    writer = await write_large(node, "large", 4 * MIB)
    carrier = narrow_socket(node.port)
    slow = await connect_raw(node.url("large"), sock=carrier, max_queue=1)
    await slow.send(messages.encode_sync_step1(new_doc().get_state()))
    assert await slow.recv()
    node.room("large").discard(RoomDiscarded("come back"))
    assert (await writer.closed())[0] == 1012
    with pytest.raises(ConnectionClosedError):
        async for _ in slow:
            pass
    assert slow.close_code == 1012
    again = await Editor.open_synced(node.url("large"))
    assert again.text == writer.text
    await again.leave()


async def test_a_stale_shared_cut_is_caught_up_with(node: Node) -> None:
    writer = await write_large(node, "large", 2 * MIB)
    room = node.room("large")
    holder = await node.service.rooms.first_sync._cold_pieces(room)
    for letter in "abc":
        await writer.type(letter)
    reader = await Editor.open_synced(node.url("large"))
    assert room.cold_pieces is not None
    assert room.cold_pieces() is holder
    await reader.until(lambda: reader.text == writer.text)
    assert holder.seq < room.head
    await writer.leave()
    await reader.leave()


async def test_every_newcomer_sees_all_runs_of_a_document_without_a_snapshot(node: Node) -> None:
    writer = await Editor.open_synced(node.url("notes"))
    watching = await Editor.open_synced(node.url("notes"))
    for letter in "abcdef":
        await writer.type(letter)
        await watching.shows(writer.text)
        newcomer = await Editor.open_synced(node.url("notes"))
        assert newcomer.text == writer.text
        await newcomer.leave()
    await writer.leave()
    await watching.leave()


async def test_readers_that_return_with_one_vector_share_an_answer_until_something_is_committed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a reconnect storm a difference each would take the event loop for seconds."""
    made = 0
    real = first_sync.cut_pieces

    def counted(parts: Sequence[bytes], vector: Mapping[int, int] | None, piece_bytes_max: int) -> list[bytes]:
        nonlocal made
        made += vector is not None
        return real(parts, vector, piece_bytes_max)

    monkeypatch.setattr(first_sync, "cut_pieces", counted)
    writer = await Editor.open_synced(node.url("notes"))
    await writer.type("before")
    await writer.until(lambda: writer.marker)
    behind = writer.doc.get_update()
    for letter in ("!", "?"):
        await writer.type(letter)
        made = 0
        for _ in range(5):
            doc = new_doc()
            doc.apply_update(behind)
            reader = await Editor.open_synced(node.url("notes"), doc)
            await reader.shows(writer.text)
            await reader.leave()
        assert 1 <= made <= 2
    await writer.leave()


async def test_whoever_is_still_taking_an_empty_document_gets_the_marker_of_the_one_that_is_made_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10: without it, it could bring this history into another epoch."""
    monkeypatch.setattr(node.service.rooms.first_sync, "_is_crowded", lambda: True)
    write_paced = Connection.write_paced
    taking, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(connection: Connection, encoded: bytes) -> bool:
        taking.set()
        await go_on.wait()
        return await write_paced(connection, encoded)

    monkeypatch.setattr(Connection, "write_paced", slowly)
    ann = await Editor.open(node.url("notes"))
    await taking.wait()
    ben = await Editor.open(node.url("notes"))
    await ben.until(lambda: ben.received(messages.SyncStep1))
    await ben.type("made meanwhile")
    await until(lambda: node.room("notes").head == 1)
    go_on.set()
    for editor in (ann, ben):
        await editor.shows("made meanwhile")
        assert editor.marker == node.room("notes").marker
