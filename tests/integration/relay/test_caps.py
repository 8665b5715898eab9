"""What one process holds at most, and what whoever comes when it is full is told: 1013, so that a client comes back."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.relay.test_sockets import CLOSE, RawSocket
from tests.nodes import Editor, closed_at_once, connect_raw, running_node
from tests.waiting import until
from ydoc_store.rooms import registry
from ydoc_store.yjs import messages

MIB = 1024 * 1024


async def test_a_room_too_many_is_told_1013_and_an_empty_one_gives_way(database_url: str) -> None:
    async with running_node(database_url, rooms_max=2) as node:
        ann, ben = await Editor.open_synced(node.url("a")), await Editor.open_synced(node.url("b"))
        code, reason = await closed_at_once(node.url("c"))
        assert (code, "YDOC_ROOMS_MAX" in reason) == (1013, True)
        await ben.type("x")
        await ben.until(lambda: ben.marker)
        await ben.leave()
        room = node.room("b")
        await until(lambda: not room.members)
        cid = await Editor.open_synced(node.url("c"))
        assert len(node.service.rooms.rooms) == 2
        for editor in (ann, cid):
            await editor.leave()


async def test_a_member_too_many_is_told_1013_and_the_others_stay(database_url: str) -> None:
    async with running_node(database_url, document_connections_max=2) as node:
        ann, ben = await Editor.open_synced(node.url("notes")), await Editor.open_synced(node.url("notes"))
        code, reason = await closed_at_once(node.url("notes"))
        assert (code, "YDOC_DOCUMENT_CONNECTIONS_MAX" in reason) == (1013, True)
        await ann.type("x")
        await ben.shows("x")
        await ben.leave()
        await until(lambda: len(node.room("notes").members) == 1)
        cid = await Editor.open_synced(node.url("notes"))
        for editor in (ann, cid):
            await editor.leave()


async def test_messages_that_are_half_here_are_bounded_by_process(database_url: str) -> None:
    """I15, I13: ten thousand times 16 MiB that never become whole; whoever began first gives way."""
    async with running_node(database_url, process_incoming_bytes_max="4MiB") as node:
        ann, ben = await Editor.open_synced(node.url("notes")), await Editor.open_synced(node.url("notes"))
        hogs = [await RawSocket.open(node.port) for _ in range(6)]
        half = b"\x82\xff" + (8 * MIB).to_bytes(8, "big") + bytes(4) + bytes(MIB)
        for hog in hogs:
            hog.writer.write(half)
        receiving = [asyncio.create_task(hog.receive()) for hog in hogs]
        first, others = await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED)
        opcode, payload = next(iter(first)).result()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1013)
        relay = node.service.relay
        await until(lambda: node.service.rooms.incoming.used_bytes <= 3 * MIB)
        assert relay.half_read
        await ann.type("x" * 300_000)
        await ben.until(lambda: len(ben.root) == 300_000)
        for waiting in others:
            waiting.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
        for hog in hogs:
            await hog.end()
        await until(lambda: not node.service.rooms.incoming.used_bytes)
        for editor in (ann, ben):
            await editor.leave()


async def test_a_half_message_in_fragments_counts_too(database_url: str) -> None:
    async with running_node(database_url, process_incoming_bytes_max="1MiB") as node:
        hog = await RawSocket.open(node.port)
        hog.writer.write(b"\x02\xff" + (400_000).to_bytes(8, "big") + bytes(4) + bytes(400_000))
        await until(lambda: node.service.rooms.incoming.partial_bytes == 400_000)
        hog.writer.write((b"\x00\xff" + (400_000).to_bytes(8, "big") + bytes(4) + bytes(400_000)) * 2)
        opcode, payload = await hog.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1013)
        await hog.end()
        await until(lambda: not node.service.rooms.incoming.used_bytes)


async def test_updates_beyond_what_may_wait_are_refused_and_brought_again(database_url: str) -> None:
    """I15, I4: the one that is too much closes its member; what was accepted stays."""
    async with running_node(database_url, process_incoming_bytes_max="1KiB") as node:
        ann = await Editor.open_synced(node.url("notes"))
        for letter in "abcdef" * 20:
            await ann.type(letter)
        assert (await ann.closed())[0] == 1013
        await until(lambda: not node.service.appender.queued_bytes)
        ben = await Editor.open_synced(node.url("notes"))
        # What is there is the beginning of what was typed: nothing behind the refused one.
        assert ann.text.startswith(ben.text)
        assert len(ben.text) < 120
        await ben.leave()


async def test_a_document_of_too_many_pieces_takes_no_more_and_stays_readable(database_url: str) -> None:
    """I15: a room remembers each run of clocks; a document of 2-byte deletes would take forty times its size."""
    async with running_node(database_url, document_ranges_max=1_200, room_idle_s=0) as node:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("ab" * 2_000)
        for at in range(1_300, 0, -1):
            del ann.root[at * 2 : at * 2 + 1]
        await ann.send_edits()
        # What was on its way is let in; whatever comes after its commit is not.
        await until(lambda: node.room("notes").head == 1_301)
        await ann.type("one more")
        assert (await ann.closed())[0] == 4413
        ben = await Editor.open_synced(node.url("notes"))
        assert len(ben.text) == 4_000 - 1_300
        await ben.leave()


async def test_no_document_opens_where_rooms_remember_too_much(database_url: str) -> None:
    async with running_node(database_url, process_ranges_max=1) as node:
        ann = await Editor.open_synced(node.url("a"))
        for letter in "xyz":
            await ann.type(letter)
        await until(lambda: node.room("a").head == 3)
        node.service.rooms.tick(0)
        assert node.service.rooms.known_ranges > 1
        code, reason = await closed_at_once(node.url("b"))
        assert (code, "YDOC_PROCESS_RANGES_MAX" in reason) == (1013, True)
        await ann.leave()


async def test_loads_take_their_turn(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I15: a storm of documents is read a few at a time."""
    at_once, most = 0, 0
    real = registry.load

    async def counted(*arguments: object) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await real(*arguments)  # type: ignore[arg-type] # as they came
        finally:
            at_once -= 1

    monkeypatch.setattr(registry, "load", counted)
    async with running_node(database_url, loads_at_once_max=3) as node:
        editors = await asyncio.gather(*(Editor.open_synced(node.url(f"page{number}")) for number in range(60)))
        assert most == 3
        for editor in editors:
            await editor.leave()


async def test_first_syncs_take_their_turn_and_all_come(database_url: str) -> None:
    """I15: one piece in one socket at a time, and every reader gets the whole document."""
    settings = {"syncs_at_once_max": 1, "process_sync_bytes_max": "1MiB", "room_cache_bytes_max": 1}
    async with running_node(database_url, **settings) as node:
        writers = [await Editor.open_synced(node.url(name)) for name in ("a", "b")]
        for writer in writers:
            await writer.type("x" * 800_000)
            await writer.until(lambda writer=writer: writer.marker)
        names = ["a", "b"] * 5
        readers = await asyncio.gather(*(Editor.open_synced(node.url(name)) for name in names))
        assert all(len(reader.text) == 800_000 for reader in readers)
        first_sync = node.service.rooms.first_sync
        await until(lambda: first_sync.sending.used == 0)
        for editor in (*writers, *readers):
            await editor.leave()
        await until(lambda: first_sync.prepared.used == 0)


async def test_a_huge_state_vector_is_kept_as_what_it_means_for_this_document(database_url: str) -> None:
    async with running_node(database_url, syncs_at_once_max=1) as node:
        ann = await Editor.open_synced(node.url("notes"))
        await ann.type("x")
        await ann.until(lambda: ann.marker)
        member = next(iter(node.room("notes").members))
        kept: list[int] = []
        node.service.rooms.sync = lambda _member, reader: kept.append(len(reader.vector))  # type: ignore[method-assign]
        socket = await connect_raw(node.url("notes"))
        clients = b"".join(bytes([0x80 | n % 128, n // 128, 1]) for n in range(128, 16_000))
        vector = (lambda n: bytes([0x80 | n % 128, n // 128]))(16_000 - 128) + clients
        await socket.send(messages.encode_sync_step1(vector))
        await until(lambda: bool(kept))
        assert kept[0] <= len(member.room.knowledge.structs)
        await socket.close()
        await ann.leave()
