"""A connection under a server that a test plays: what it is asked for, and what becomes of what it is given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pycrdt import Text

from tests.nodes import new_doc
from tests.waiting import until
from ydoc_store.metrics import Metrics
from ydoc_store.relay.asgi_connection import AsgiConnection
from ydoc_store.relay.service import RelayService
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database
from ydoc_store.yjs import messages

KIB = 1024
STEP1 = messages.encode_sync_step1(b"\0")


class Peer:
    """A browser and the server in between: `say` is what the browser sends, `sent` is what the server was given.

    While `takes` is not set the server's `send` does not return. `asked` counts how often it was asked for a message.
    """

    def __init__(self, service: RelayService, name: str = "notes") -> None:
        self.doc = new_doc()
        self.sent: list[Any] = []
        self.asked = 0
        self.takes = asyncio.Event()
        self.takes.set()
        self.fails_with: Exception | None = None
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 5),
            "subprotocols": [],
        }
        self.ended = asyncio.create_task(
            service.relay.carried(scope, "/collab", f"/yjs/{name}", self._send).run(self._receive)
        )

    async def _receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self._said.get()

    async def _send(self, event: Any) -> None:
        if event["type"] != "websocket.accept":
            await self.takes.wait()
            if self.fails_with is not None:
                raise self.fails_with
        self.sent.append(event)

    def say(self, frame: bytes) -> None:
        self._said.put_nowait({"type": "websocket.receive", "bytes": frame})

    def leave(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1001})

    def type(self, text: str) -> None:
        before = self.doc.get_state()
        root = self.doc.get("text", type=Text)
        root.insert(len(root), text)
        self.say(messages.encode_update(self.doc.get_update(before)))

    @property
    def frames(self) -> list[bytes]:
        return [event["bytes"] for event in self.sent if event["type"] == "websocket.send"]

    @property
    def close(self) -> dict[str, Any] | None:
        return next((event for event in self.sent if event["type"] == "websocket.close"), None)

    def has(self, *kinds: type) -> bool:
        return any(isinstance(messages.decode_message(frame), kinds) for frame in self.frames)

    async def synced(self) -> None:
        self.say(STEP1)
        await until(lambda: self.has(messages.SyncStep2))


@contextlib.asynccontextmanager
async def service_on(url: str, **overrides: object) -> AsyncIterator[RelayService]:
    database = await Database.open(url, pool_size=4)
    service = RelayService(database, Settings.load(overrides), Metrics())
    try:
        await service.start()
        yield service
    finally:
        await service.stop()
        await database.close()


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[RelayService]:
    async with service_on(database_url) as started:
        yield started


def connection_of(service: RelayService, number: int = -1) -> AsgiConnection:
    found = list(service.relay.connections)[number]
    assert isinstance(found, AsgiConnection)
    return found


async def head_is(service: RelayService, head: int) -> None:
    await until(lambda: service.rooms.rooms["default", "notes"].head == head)


async def closed(peer: Peer) -> tuple[int, str]:
    await until(lambda: peer.close is not None)
    assert peer.close is not None
    return peer.close["code"], peer.close["reason"]


async def ended(*peers: Peer) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*(peer.ended for peer in peers))


async def test_two_peers_see_each_others_edits_and_hold_nothing_while_they_are_idle(service: RelayService) -> None:
    ann, ben = Peer(service), Peer(service)
    await ann.synced()
    await ben.synced()
    ann.type("Hello")
    await until(lambda: ben.has(messages.Update))
    await until(lambda: all(connection_of(service, n)._sending is None for n in (0, 1)))
    assert all(connection_of(service, n)._waiting is None for n in (0, 1))
    assert not service.relay.outboxes.congested
    assert not service.relay.outboxes.used_bytes
    ann.leave()
    ben.leave()
    await ended(ann, ben)
    assert not service.relay.connections


async def test_no_message_is_asked_for_while_reading_is_paused(service: RelayService) -> None:
    ann = Peer(service)
    await ann.synced()
    connection = connection_of(service)
    await until(ann._said.empty)
    asked, answered = ann.asked, len(ann.frames)
    connection.pause_reading()
    ann.say(b"\x03")
    ann.say(b"\x03")
    await until(lambda: ann._said.qsize() == 1)
    connection.rest_reading(0.01)
    connection.resume_reading()
    await until(lambda: ann.asked == asked + 2 and ann._said.empty())
    await until(lambda: len(ann.frames) == answered + 2)
    ann.leave()
    await ended(ann)


async def test_what_comes_while_a_document_opens_is_kept_in_order(service: RelayService) -> None:
    ann = Peer(service)
    ann.say(STEP1)
    ann.type("first")
    ann.type(" and second")
    await until(lambda: ann.has(messages.SyncStep2))
    await head_is(service, 2)
    ann.leave()
    await ended(ann)


async def test_a_peer_too_far_behind_is_closed_with_1013_and_its_memory_freed(database_url: str) -> None:
    async with service_on(database_url, outbox_bytes_max="512KiB", sync_piece_bytes_max="64KiB") as service:
        writer, frozen = Peer(service), Peer(service)
        await writer.synced()
        await frozen.synced()
        connection = connection_of(service)
        frozen.takes.clear()
        head = 0
        while not connection.is_closing:
            writer.type("x" * 100_000)
            head += 1
            await head_is(service, head)
            assert connection.outbox_bytes <= 512 * KIB + 101_000
        assert not writer.ended.done()
        connection.cut()
        await ended(frozen)
        assert not service.relay.outboxes.used_bytes
        writer.leave()
        await ended(writer)


async def test_the_reason_goes_behind_what_waits(database_url: str) -> None:
    async with service_on(database_url, outbox_bytes_max="128KiB", sync_piece_bytes_max="64KiB") as service:
        peer = Peer(service)
        await peer.synced()
        connection = connection_of(service)
        before = len(peer.frames)
        peer.takes.clear()
        while not connection.is_closing:
            connection.write(b"\x02" * 40_000)
        assert connection.outbox_bytes > 128 * KIB
        peer.takes.set()
        assert await closed(peer) == (1013, "this connection is too far behind: sync again")
        assert len(peer.frames) - before >= 4
        peer.leave()
        await ended(peer)


async def test_a_send_that_does_not_return_for_too_long_closes_and_one_that_returns_does_not(
    service: RelayService,
) -> None:
    peer = Peer(service)
    await peer.synced()
    connection, relay = connection_of(service), service.relay
    await until(lambda: connection._sending is None)
    peer.takes.clear()
    now_s = relay.now_s
    connection.write(b"\x03")
    relay.tick(now_s + 29)
    assert not connection.is_closing
    peer.takes.set()
    await until(lambda: connection._sending is None)
    peer.takes.clear()
    connection.write(b"\x03")
    relay.tick(now_s + 31)
    assert not connection.is_closing
    relay.tick(now_s + 61)
    assert connection.is_closing
    connection.cut()
    await ended(peer)


async def test_a_first_sync_waits_for_its_pieces_to_be_taken(database_url: str) -> None:
    async with service_on(database_url, sync_piece_bytes_max="64KiB") as service:
        writer = Peer(service)
        await writer.synced()
        for number in range(10):
            writer.type("x" * 60_000)
            await head_is(service, number + 1)
        reader = Peer(service)
        reader.takes.clear()
        reader.say(STEP1)
        await until(lambda: len(service.relay.connections) == 2)
        connection = connection_of(service)
        await until(lambda: connection._unsent_bytes > 60_000)
        assert connection._unsent_bytes < 200 * KIB
        assert not connection.outbox_bytes
        reader.takes.set()
        await until(lambda: reader.has(messages.SyncStep2))
        assert sum(map(len, reader.frames)) > 600_000
        for peer in (writer, reader):
            peer.leave()
        await ended(writer, reader)


async def test_a_server_that_cannot_send_any_more_ends_its_connection_alone(service: RelayService) -> None:
    ann, ben = Peer(service), Peer(service)
    await ann.synced()
    await ben.synced()
    ben.fails_with = OSError("the peer is gone")
    ann.type("x")
    await ended(ben)
    assert len(service.relay.connections) == 1
    ann.leave()
    await ended(ann)


async def test_a_server_that_breaks_it_off_leaves_nothing_of_it(service: RelayService) -> None:
    ann, ben = Peer(service), Peer(service)
    await ann.synced()
    await ben.synced()
    ben.takes.clear()
    connection_of(service).write(b"\x03" * 100_000)
    ben.ended.cancel()
    await asyncio.wait([ben.ended])
    assert len(service.relay.connections) == 1
    assert not service.relay.outboxes.used_bytes
    assert not service.relay.outboxes.congested
    ann.leave()
    await ended(ann)


async def test_what_was_asked_for_before_a_drain_is_not_taken_and_goodbye_is_said(service: RelayService) -> None:
    ann = Peer(service)
    await ann.synced()
    await until(ann._said.empty)
    draining = asyncio.create_task(service.drain(5))
    await asyncio.sleep(0)
    ann.type("too late")
    assert (await closed(ann))[0] == 1001
    ann.leave()
    await ended(ann)
    await draining
    assert not service.appender.queued_bytes


async def test_a_text_and_a_message_over_the_limit_are_told(database_url: str) -> None:
    async with service_on(database_url, update_bytes_max="64KiB") as service:
        for event, code in (({"text": "words", "bytes": None}, 1003), ({"bytes": bytes(65 * KIB)}, 4413)):
            peer = Peer(service)
            peer._said.put_nowait({"type": "websocket.receive", **event})
            assert (await closed(peer))[0] == code
            peer.leave()
            await ended(peer)
