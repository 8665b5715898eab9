"""The WebSocket itself: fragments, pings, closing from either side, peers that are slow, frozen, rude or gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import Self

import pytest

from tests.nodes import Editor, Node, running_node
from ydoc_store.relay.socket_connection import SocketConnection
from ydoc_store.rooms.room import Room
from ydoc_store.sockets import READ_BYTES
from ydoc_store.yjs import messages

BINARY, CONTINUATION, TEXT, CLOSE, PING, PONG = 2, 0, 1, 8, 9, 10


class RawSocket:
    """A WebSocket by hand, for frames that no library would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, name: str = "notes") -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /yjs/{name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        return cls(reader, writer)

    async def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        mask = os.urandom(4)
        size = len(payload)
        head = struct.pack("!BB", fin << 7 | opcode, 0x80 | size) if size < 126 else b""
        head = head or struct.pack("!BBQ", fin << 7 | opcode, 0x80 | 127, size)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.writer.write(head + mask + masked)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int:
        """The code of the close frame that comes next, once the socket has ended behind our answer to it."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                break
        await self.send(CLOSE, payload[:2])
        assert await self.reader.read() == b""
        await self.end()
        return int.from_bytes(payload[:2], "big")

    async def end(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def test_a_message_in_many_fragments_is_one_message(node: Node) -> None:
    raw = await RawSocket.open(node.port)
    step1 = messages.encode_sync_step1(b"\0")
    await raw.send(BINARY, step1[:1], fin=False)
    await raw.send(PING, b"between")
    for byte in step1[1:-1]:
        await raw.send(CONTINUATION, bytes([byte]), fin=False)
        await raw.send(CONTINUATION, b"", fin=False)
    await raw.send(CONTINUATION, step1[-1:])
    answers = [await raw.receive() for _ in range(3)]
    assert (PONG, b"between") in answers
    assert [payload[:2] for opcode, payload in answers if opcode == BINARY] == [b"\x00\x00", b"\x00\x01"]
    await raw.end()


async def test_an_oversize_message_in_fragments_is_refused_for_good(database_url: str) -> None:
    async with running_node(database_url, update_bytes_max="64KiB") as node:
        raw = await RawSocket.open(node.port)
        await raw.send(BINARY, b"x" * 60_000, fin=False)
        await raw.send(CONTINUATION, b"x" * 60_000, fin=False)
        assert await raw.closed_with() == 4413


@pytest.mark.parametrize(
    "frame",
    [b"\x82\x01x", b"\xf2\x80\x00\x00\x00\x00", b"\x83\x80\x00\x00\x00\x00", b"\x80\x80\x00\x00\x00\x00"],
    ids=["unmasked", "reserved bits", "reserved opcode", "continuation of nothing"],
)
async def test_garbage_ends_its_connection_alone(node: Node, frame: bytes) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    raw = await RawSocket.open(node.port)
    raw.writer.write(frame)
    assert await raw.closed_with() == 1002
    assert node.count('ydoc_closes_total{code="1002"}') == 1
    await ann.type("x")
    await ann.until(lambda: ann.marker)
    await ann.leave()


async def test_a_close_is_answered_with_its_own_code_and_counted_once(node: Node) -> None:
    raw = await RawSocket.open(node.port)
    await raw.send(CLOSE, (4321).to_bytes(2, "big"))
    assert await raw.receive() == (CLOSE, (4321).to_bytes(2, "big"))
    assert await raw.reader.read() == b""
    assert node.count('ydoc_closes_total{code="other"}') == 1
    await raw.end()
    raw = await RawSocket.open(node.port)
    await raw.send(TEXT, b"text")
    assert await raw.closed_with() == 1003
    assert node.count('ydoc_closes_total{code="1003"}') == 1


async def test_a_peer_that_vanishes_is_cleaned_up_and_counted(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("notes"))
    await ann.show(1)
    await ben.sees(ann.doc.client_id, '{"name":"Ann"}')
    await ann.vanish()
    await ben.sees(ann.doc.client_id, None)
    assert len(node.room("notes").members) == 1
    assert node.count('ydoc_closes_total{code="1006"}') == 1
    await ben.leave()


async def test_a_half_closed_socket_ends_and_its_last_update_is_kept(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ann.root.insert(0, "last words")
    raw = await RawSocket.open(node.port)
    await raw.send(BINARY, messages.encode_sync_step1(b"\0"))
    await raw.send(BINARY, messages.encode_update(ann._waiting.pop()))
    raw.writer.write_eof()
    await raw.reader.read()
    await raw.end()
    ben = await Editor.open_synced(node.url("notes"))
    await ben.shows("last words")
    await ann.leave()
    await ben.leave()


async def test_a_member_too_far_behind_is_closed_and_its_memory_freed(database_url: str) -> None:
    async with running_node(database_url, outbox_bytes_max="512KiB", sync_piece_bytes_max="64KiB") as node:
        writer = await Editor.open_synced(node.url("notes"))
        frozen = await RawSocket.open(node.port)
        await frozen.send(BINARY, messages.encode_sync_step1(b"\0"))
        room = node.room("notes")
        await two_live_members(writer, room)
        connection = list(node.service.relay.connections)[-1]
        frozen.reader._transport.pause_reading()
        reader = await Editor.open_synced(node.url("notes"))
        while not connection.is_closing:
            await writer.type("x" * 100_000)
            await reader.until(lambda: len(reader.root) == len(writer.root))
            assert connection.transport.get_write_buffer_size() <= 1024 * 1024
        assert node.count('ydoc_closes_total{code="1013"}') == 1
        await writer.type("!")
        await reader.until(lambda: reader.text == writer.text)
        await frozen.end()
        await writer.leave()
        await reader.leave()


async def two_live_members(writer: Editor, room: Room) -> None:
    """Returns when both are live: the second one's Step1 was read before what the writer sends now."""
    while sum(member.is_live for member in room.members) < 2:
        await writer.say(messages.encode_sync_step1(writer.doc.get_state()))
        await writer.until(lambda: len(writer.received(messages.SyncStep2)) > 1)


async def test_a_socket_that_took_no_byte_for_too_long_is_closed(node: Node) -> None:
    writer = await Editor.open_synced(node.url("notes"))
    frozen = await RawSocket.open(node.port)
    relay = node.service.relay
    connection = list(relay.connections)[-1]
    frozen.reader._transport.pause_reading()
    while connection not in relay.outboxes.congested:
        connection.write(b"\x82\x7e\xff\xff" + b"\0" * 65_535)
    now_s = relay.now_s
    relay.tick(now_s + 29)
    assert not connection.is_closing
    relay.tick(now_s + 61)
    assert connection.is_closing
    assert node.count('ydoc_closes_total{code="1013"}') == 1
    await frozen.end()
    await writer.leave()


async def test_pings_of_a_peer_that_never_reads_are_bounded(database_url: str) -> None:
    async with running_node(database_url, outbox_bytes_max="256KiB", sync_piece_bytes_max="64KiB") as node:
        rude = await RawSocket.open(node.port)
        connection = next(iter(node.service.relay.connections))
        rude.reader._transport.pause_reading()
        burst = (b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125) * 1000
        while not connection.is_closing:
            rude.writer.write(burst)
            await rude.writer.drain()
        assert connection.transport.get_write_buffer_size() <= 1024 * 1024
        await rude.end()


async def test_questions_beyond_a_burst_wait_and_all_are_answered_in_order(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    for _ in range(22):
        await ann.say(b"\x03")
    await ann.type("behind them")
    assert not node.room("notes").head
    await ann.until(lambda: len(ann.received(messages.Awareness)) == 22)
    await ann.until(lambda: ann.marker)
    await ann.leave()


async def test_keepalives_come_to_everyone_who_is_open(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    ben = await Editor.open_synced(node.url("other"))
    relay = node.service.relay
    relay.tick(relay.now_s + node.settings.keepalive_interval_s + 1)
    await ann.until(lambda: messages.Awareness(b"\0") in ann.messages)
    await ben.until(lambda: messages.Awareness(b"\0") in ben.messages)
    await ann.leave()
    relay.tick(relay.now_s + node.settings.keepalive_interval_s + 1)
    await ben.until(lambda: ben.messages.count(messages.Awareness(b"\0")) == 2)
    assert len(relay._keepalive_due) == 1
    await ben.leave()


async def test_reading_goes_on_only_when_no_reason_to_pause_is_left(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    connection = next(iter(node.service.relay.connections))
    connection.wait_for_session()
    connection.pause_reading()
    connection.begin(connection.session)
    assert not connection.transport.is_reading()
    connection.stop_reading()
    connection.resume_reading()
    assert not connection.transport.is_reading()
    connection._resume(8)
    assert connection.transport.is_reading()
    await ann.type("x")
    await ann.until(lambda: ann.marker)
    await ann.leave()


async def test_a_flood_is_read_little_by_little_so_that_others_have_their_turn(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I16: twenty sockets that each brought a read full of the smallest frames held everybody for seconds."""
    reads: list[int] = []
    received = SocketConnection.data_received

    def noted(connection: SocketConnection, data: bytes) -> None:
        reads.append(len(data))
        received(connection, data)

    monkeypatch.setattr(SocketConnection, "data_received", noted)
    raw = await RawSocket.open(node.port)
    pong = struct.pack("!BBI", 0x80 | PONG, 0x80, 0)
    raw.writer.write(pong * 100_000)
    await raw.writer.drain()
    raw.writer.write_eof()
    await raw.reader.read()
    assert sum(reads) >= 100_000 * len(pong)
    assert max(reads) <= READ_BYTES
    raw.writer.close()
