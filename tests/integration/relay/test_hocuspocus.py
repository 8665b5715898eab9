"""What one socket with many documents does where they come, go and come back: dialect B on the wire, without Node."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.nodes import WAIT_TIMEOUT_S, Node, closed_at_once, connect_raw, count_stored, new_doc, running_node
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.failpoints import Failpoints
from ydoc_store.names import HOCUSPOCUS_PATH
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.rooms.room import Room
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs import messages
from ydoc_store.yjs.lib0 import Reader, encode_string

ACCEPTED, REFUSED = wire.encode_sync_status(accepted=True), wire.encode_sync_status(accepted=False)
EMPTY_VECTOR, EMPTY_UPDATE = b"\0", b"\0\0"


class Socket:
    """A raw provider: `heard` is what came for each address, without the address, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.heard: list[tuple[str, bytes]] = []
        self.is_closed = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._pongs = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, node: Node, **options: Any) -> Self:
        return cls(await connect_raw(f"ws://127.0.0.1:{node.port}{HOCUSPOCUS_PATH}", **options))

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._socket:
                assert isinstance(frame, bytes)
                if frame == wire.PONG:
                    self._pongs += 1
                elif frame != wire.PING:
                    reader = Reader(frame)
                    self.heard.append((reader.string(), frame[reader.at :]))
                self._changed.set()
                await self.reads.wait()
        self.is_closed = True
        self._changed.set()

    async def say(self, address: str, message: bytes) -> None:
        await self._socket.send(encode_string(address) + message)

    async def show(self, address: str, with_token: str) -> None:
        await self.say(address, bytes((wire.AUTH, wire.AUTH_TOKEN)) + encode_string(with_token))

    async def attach(self, address: str, with_token: str) -> None:
        """Open a document and sync; the ack of the Step2 is taken out of what was heard."""
        await self.attach_unheard(address, with_token)
        await self.until(lambda: self.of(address, messages.SYNC, 1))
        await self.say(address, messages.encode_sync_step2(EMPTY_UPDATE))
        await self.until(lambda: (address, ACCEPTED) in self.heard)
        self.heard.remove((address, ACCEPTED))

    async def attach_unheard(self, address: str, with_token: str) -> None:
        await self.show(address, with_token)
        await self.say(address, messages.encode_sync_step1(EMPTY_VECTOR))

    async def detach(self, address: str) -> None:
        await self.say(address, bytes((wire.CLOSE,)))

    async def heard_all(self) -> None:
        """Returns when everything is here that was sent before this."""
        before = self._pongs
        await self._socket.send(wire.PING)
        await self.until(lambda: self._pongs > before)

    def of(self, address: str, *kind: int) -> list[bytes]:
        return [message for where, message in self.heard if where == address and message.startswith(bytes(kind))]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while not holds():
                assert not self.is_closed, "closed"
                self._changed.clear()
                await self._changed.wait()

    async def closed(self) -> None:
        """Returns when the other side has closed."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            await self._reading

    async def leave(self) -> None:
        await self._socket.close()
        await self._reading


def edit(text: str, doc: Doc[Any] | None = None) -> bytes:
    doc = new_doc() if doc is None else doc
    before = doc.get_state()
    doc.get("text", type=Text).insert(0, text)
    return messages.encode_update(doc.get_update(before))


class Stopped:
    """A step that waits; `reached` when somebody does."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.waiting = 0

    async def __call__(self) -> None:
        self.waiting += 1
        self.reached.set()
        await self.go_on.wait()


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url, jwt_secret=SECRET, poll_interval_s=0.1) as started:
        yield started


async def test_an_editor_hears_nothing_of_the_one_before_it_at_the_same_address(node: Node) -> None:
    """I1: its client counts acks; one for an update of the editor before it would stand for an edit in flight."""
    socket = await Socket.open(node)
    await socket.attach("notes", token())
    step = Stopped()
    node.service.appender.failpoints = Failpoints({"append.before-send": step})
    await socket.say("notes", edit("by the first editor"))
    await step.reached.wait()
    await socket.detach("notes")
    socket.heard.clear()
    await socket.attach("notes", token())
    await socket.say("notes", edit("by the second editor"))
    await until(lambda: bool(node.room("notes").queue.waiting))
    second = Stopped()
    node.service.appender.failpoints = Failpoints({"append.before-send": second})
    step.go_on.set()
    await second.reached.wait()
    # The first one's update is committed, the second one's is not; whatever was said of the former is on its way.
    await socket.heard_all()
    assert socket.of("notes", wire.SYNC_STATUS) == []
    second.go_on.set()
    await socket.until(lambda: socket.of("notes", wire.SYNC_STATUS) == [ACCEPTED])
    await socket.leave()


async def test_whoever_lost_access_during_a_first_sync_is_sent_no_more_of_it(database_url: str) -> None:
    """I18: the socket stays for its other documents; the pieces that were not sent yet are not for this client."""
    settings = {"jwt_secret": SECRET, "poll_interval_s": 0.1, "sync_piece_bytes_max": 64 * 1024}
    async with running_node(database_url, **settings) as node:
        writer = await Socket.open(node)
        await writer.attach("notes", token())
        doc = new_doc()
        for _ in range(12):
            await writer.say("notes", edit("x" * 500_000, doc))
        await writer.until(lambda: len(writer.of("notes", wire.SYNC_STATUS)) == 12)
        await writer.leave()
        reader = await Socket.open(node, max_queue=1)
        await reader.attach("other", token("eve"))
        reader.reads.clear()
        await reader.attach_unheard("notes", token("eve"))
        room = await opened(node, "notes", members=1)
        await until(lambda: bool(node.service.rooms.outboxes.congested))
        later = datetime.fromtimestamp(time.time() + 1, UTC)
        await insert_revocation(node.database, "default", "document", "notes", later, lifetime_s_max=86_400)
        await until(lambda: not room.members)
        reader.reads.set()
        await reader.until(lambda: reader.of("notes", wire.CLOSE))
        await reader.heard_all()
        of_notes = [message for address, message in reader.heard if address == "notes"]
        ended = next(place for place, message in enumerate(of_notes) if message.startswith(bytes((wire.CLOSE,))))
        assert of_notes[ended + 1 :] == []
        assert not any(message.startswith(b"\0\1") for message in of_notes)
        await reader.leave()


async def test_a_token_that_is_revoked_while_the_document_loads_opens_nothing(node: Node) -> None:
    """I18: whoever was on the way in when everyone inside was judged again is judged at the door."""
    step = Stopped()
    load = node.service.rooms.open

    async def open_slowly(tenant: str, name: str) -> Room:
        await step()
        return await load(tenant, name)

    node.service.rooms.open = open_slowly  # type: ignore[method-assign] # a load that takes its time
    socket = await Socket.open(node)
    held = token("ann")
    await socket.attach_unheard("notes", held)
    closing = asyncio.create_task(closed_at_once(f"{node.url('notes')}?token={held}"))
    await until(lambda: step.waiting == 2)
    later = datetime.fromtimestamp(time.time() + 1, UTC)
    await insert_revocation(node.database, "default", "user", "ann", later, lifetime_s_max=86_400)
    await node.service.authorizer.revocations.refresh(node.database, 86_400)
    step.go_on.set()
    await socket.until(lambda: socket.of("notes", wire.CLOSE))
    assert socket.of("notes", messages.SYNC) == []
    assert await closing == (4401, "this access was revoked")
    await socket.leave()


async def test_whoever_may_write_again_brings_first_what_was_refused_meanwhile(node: Node) -> None:
    """I4: nothing behind a refused update is accepted or acknowledged until a new sync."""
    socket = await Socket.open(node)
    await socket.attach("notes", token())
    await socket.show("notes", token(documents={"*": "read"}))
    await socket.until(lambda: socket.of("notes", wire.AUTH, wire.AUTH_GRANTED)[1:])
    doc = new_doc()
    await socket.say("notes", edit("refused", doc))
    await socket.until(lambda: socket.of("notes", wire.SYNC_STATUS) == [REFUSED])
    await socket.show("notes", token())
    await socket.until(lambda: len(socket.of("notes", wire.AUTH, wire.AUTH_GRANTED)) == 3)
    with contextlib.suppress(ConnectionClosed):
        await socket.say("notes", edit("behind it", doc))
    await socket.closed()
    assert socket.of("notes", wire.SYNC_STATUS) == [REFUSED]
    assert await count_stored(node.database, "notes") == 0


async def test_a_document_without_a_token_waits_no_longer_because_another_has_one(database_url: str) -> None:
    """I15: what waits for a token that never comes is let go, on a socket that is known as well."""
    async with running_node(database_url, jwt_secret=SECRET, token_timeout_s=0.5) as node:
        socket = await Socket.open(node)
        await socket.attach("notes", token())
        incoming = node.service.rooms.incoming
        # The time in which the socket had to say who it is.
        passed_at_s = time.monotonic() + 0.6
        await until(lambda: time.monotonic() > passed_at_s)
        for number in range(10):
            await socket.say(f"other {number}", edit("x" * 10_000))
        await until(lambda: incoming.early_bytes > 100_000)
        denied = bytes((wire.AUTH, wire.AUTH_DENIED))
        await socket.until(lambda: sum(message.startswith(denied) for _, message in socket.heard) == 10)
        assert incoming.early_bytes == 0
        await socket.say("notes", edit("goes on"))
        await socket.until(lambda: socket.of("notes", wire.SYNC_STATUS) == [ACCEPTED])
        await socket.leave()


async def test_what_waits_for_tokens_is_bounded_by_process(database_url: str) -> None:
    """I15: whoever has not said who it is may hold little, and ten thousand such may not hold ten thousand times it."""
    async with running_node(database_url, jwt_secret=SECRET, process_incoming_bytes_max="1MiB") as node:
        first, second = await Socket.open(node), await Socket.open(node)
        for socket in (first, second):
            with contextlib.suppress(ConnectionClosed):
                for number in range(8):
                    await socket.say(f"document {number}", edit("x" * 100_000))
        await second.closed()
        await until(lambda: node.service.rooms.incoming.early_bytes < 900_000)
        await first.leave()
        await until(lambda: node.service.rooms.incoming.early_bytes == 0)


async def test_many_documents_that_are_left_behind_a_large_update_wedge_nothing(node: Node) -> None:
    """I13, I15: each of them releases the socket, and none while another's frame is being handed over."""
    socket = await Socket.open(node)
    await socket.attach("notes", token())
    await socket.say("notes", edit("x" * (INLINE_BYTES_MAX + 1_000)))
    for number in range(1_000):
        await socket.show(f"{number}", "no token")
        await socket.detach(f"{number}")
    await socket.say("notes", edit("behind them"))
    await socket.until(lambda: len(socket.of("notes", wire.SYNC_STATUS)) == 2)
    assert socket.of("notes", wire.SYNC_STATUS) == [ACCEPTED, ACCEPTED]
    await socket.leave()


async def opened(node: Node, name: str, *, members: int) -> Room:
    """The room, as soon as so many are in it."""
    rooms = node.service.rooms.rooms
    await until(lambda: ("default", name) in rooms and len(rooms["default", name].members) == members)
    return node.room(name)
