"""What a Hocuspocus socket is refused, frame by frame: nothing is loaded for it, and what is denied is one document.

Raw frames, because stock providers never send most of these. A Ping behind them is the fence: what was to be
answered has been when its Pong is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.nodes import WAIT_TIMEOUT_S, Node, connect_raw, count_stored, running_node
from tests.tokens import SECRET, token
from ydoc_store.rooms import hocuspocus
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.messages import encode_awareness, encode_sync_step1, encode_update

STEP1 = encode_sync_step1(b"\0")
GRANTED = b"\2\2"
DENIED = b"\2\1"


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url, jwt_secret=SECRET) as started:
        yield started


def update() -> bytes:
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, "x")
    return doc.get_update()


class Socket:
    """One socket and what came on it, as (address, the rest)."""

    def __init__(self, socket: ClientConnection):
        self.socket = socket

    async def say(self, address: str, message: bytes) -> None:
        await self.socket.send(wire.encode_address(address) + message)

    async def show_token(self, address: str, words: str) -> None:
        await self.say(address, b"\2\0" + encode_string(words))

    async def heard(self) -> list[tuple[str, bytes]]:
        """Everything that was answered to what was said so far."""
        await self.socket.send(wire.PING)
        return await self._until(lambda frame, _: frame == wire.PONG)

    async def answered(self, address: str, kind: bytes) -> list[tuple[str, bytes]]:
        """Everything up to the first frame about this document that begins like this."""
        return await self._until(lambda frame, _: frame.startswith(wire.encode_address(address) + kind))

    async def _until(self, is_last: Any) -> list[tuple[str, bytes]]:
        found = []
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            async for frame in self.socket:
                assert isinstance(frame, bytes)
                if frame != wire.PONG:
                    length = frame[0]
                    found.append((frame[1 : 1 + length].decode(), frame[1 + length :]))
                if is_last(frame, found):
                    return found
        raise AssertionError(f"closed with {self.socket.close_code} {self.socket.close_reason} after {found}")

    async def closed(self) -> tuple[list[tuple[str, bytes]], int | None, str | None]:
        """What still came, and with which code and reason the other side closed."""
        found = []
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    frame = await self.socket.recv()
                    assert isinstance(frame, bytes)
                    found.append((frame[1 : 1 + frame[0]].decode(), frame[1 + frame[0] :]))
        return found, self.socket.close_code, self.socket.close_reason


@contextlib.asynccontextmanager
async def connected(node: Node) -> AsyncIterator[Socket]:
    socket = await connect_raw(f"ws://127.0.0.1:{node.port}/hocuspocus")
    try:
        yield Socket(socket)
    finally:
        await socket.close()


def refused(address: str, reason: str, code: str = "unauthenticated") -> list[tuple[str, bytes]]:
    """PermissionDenied and CLOSE: the client stops this document, the socket stays."""
    denial = DENIED + encode_string(reason) + encode_string(code)
    return [(address, denial), (address, bytes((wire.CLOSE,)) + encode_string(reason))]


def unsigned() -> str:
    claims = {"sub": "eve", "exp": time.time() + 60, "documents": {"*": "admin"}}
    return jwt.encode(claims, "", algorithm="none")


# They are made when the tests are collected, and shown when their turn has come.
HOURS_AWAY_S = time.time() + 3 * 3_600
BAD_TOKENS = {
    "none": ("", "a token is needed"),
    "no token": ("nonsense", "this is no token"),
    "alg none": (unsigned(), "this token does not hold"),
    "forged": (jwt.encode({"exp": HOURS_AWAY_S}, "x" * 64, algorithm="HS256"), "this token does not hold"),
    "another algorithm": (
        jwt.encode({"exp": HOURS_AWAY_S}, SECRET, algorithm="HS512"),
        "this token does not hold",
    ),
    "expired": (token(exp=time.time() - 60), "this token has expired"),
    "not valid yet": (token(nbf=HOURS_AWAY_S - 3_600, exp=HOURS_AWAY_S), "this token is not valid yet"),
    "without an end": (jwt.encode({"documents": {"*": "write"}}, SECRET), "this token lacks the claim 'exp'"),
    "of another document": (
        token(documents={"other": "admin"}, exp=HOURS_AWAY_S),
        "this token grants nothing for this document",
    ),
    "without documents": (token(documents={}, exp=HOURS_AWAY_S), "this token grants nothing for this document"),
    "too long": ("x" * 20_000, "this token is too long"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_token_that_does_not_hold_is_told_why_loads_nothing_and_leaves_the_socket(
    node: Node, name: str
) -> None:
    words, reason = BAD_TOKENS[name]
    async with connected(node) as client:
        await client.show_token("notes", words)
        for message in (STEP1, encode_awareness(b"\0"), encode_update(update())):
            await client.say("notes", message)
        assert await client.answered("notes", bytes((wire.CLOSE,))) == refused(
            "notes", reason, "forbidden" if "grants nothing" in reason else "unauthenticated"
        )
        # The stock client goes on after a refusal: dropped, and not answered.
        for message in (STEP1, encode_update(update()), bytes((wire.STATELESS,)) + encode_string("hear me")):
            await client.say("notes", message)
        assert await client.heard() == []
        assert node.rooms_opened == []
        await client.show_token("notes", token())
        assert (await client.answered("notes", GRANTED))[-1] == ("notes", GRANTED + encode_string("read-write"))
        assert await count_stored(node.database, "notes") == 0


@pytest.mark.parametrize(
    "frames",
    [[STEP1] * 257, [encode_update(b"\0" * 600_000)] * 2],
    ids=["frames", "bytes"],
)
async def test_too_much_before_a_token_ends_the_document_and_not_the_socket(node: Node, frames: list[bytes]) -> None:
    async with connected(node) as client:
        for frame in frames[:-1]:
            await client.say("notes", frame)
        assert await client.heard() == []
        await client.say("notes", frames[-1])
        assert await client.heard() == refused("notes", "too much was sent before a token")
        assert node.rooms_opened == []
        await client.show_token("other", token())
        await client.answered("other", GRANTED)
        assert [room.name for room in node.rooms_opened] == ["other"]


async def test_the_101st_document_of_a_socket_is_refused_and_the_others_stay(node: Node) -> None:
    async with connected(node) as client:
        for number in range(100):
            await client.say(f"notes/{number}", STEP1)
        await client.show_token("notes/100", token())
        assert await client.heard() == refused("notes/100", "too many documents on one socket", "limit_exceeded")
        assert node.rooms_opened == []
        await client.show_token("notes/99", token())
        await client.answered("notes/99", GRANTED)
        # Whoever leaves one makes room for another.
        await client.say("notes/0", bytes((wire.CLOSE,)))
        await client.show_token("notes/100", token())
        await client.answered("notes/100", GRANTED)


async def test_a_socket_on_which_no_token_came_in_time_is_closed_with_4401(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hocuspocus, "REFUSED_STAYS_S", 0.3)
    async with running_node(database_url, jwt_secret=SECRET, token_timeout_s=0.3) as node:
        async with connected(node) as silent:
            assert await silent.closed() == ([], 4401, "no token came in time")
        async with connected(node) as client:
            await client.say("notes", STEP1)
            assert await client.closed() == (refused("notes", "no token came in time"), 4401, "no token came in time")
        async with connected(node) as client:
            await client.show_token("notes", "nonsense")
            assert await client.closed() == (refused("notes", "this is no token"), 4401, "no token came in time")
        assert node.rooms_opened == []


async def test_a_document_without_a_token_in_time_is_denied_beside_one_that_is_open(database_url: str) -> None:
    async with running_node(database_url, jwt_secret=SECRET, token_timeout_s=0.5) as node, connected(node) as client:
        await client.say("silent", STEP1)
        await client.show_token("open", token())
        await client.answered("open", GRANTED)
        assert (await client.answered("silent", bytes((wire.CLOSE,))))[-2:] == refused(
            "silent", "no token came in time"
        )
        await client.say("open", STEP1)
        await client.answered("open", b"\0\1")
        assert [room.name for room in node.rooms_opened] == ["open"]


async def test_a_second_token_of_another_user_or_tenant_is_denied_on_whatever_document(node: Node) -> None:
    for words in (token("ben"), token("ann", tenant="other")):
        for name in ("notes", "other"):
            async with connected(node) as client:
                await client.show_token("notes", token("ann"))
                await client.answered("notes", GRANTED)
                await client.show_token(name, words)
                told = await client.answered(name, bytes((wire.CLOSE,)))
                assert told[-2:] == refused(name, "this socket belongs to somebody else", "forbidden")
    assert {room.name for room in node.rooms_opened} == {"notes"}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 1008),
        (b"\x05note", 1008),
        (encode_string("notes") + b"\2\1" + encode_string("denied, says a client"), 1008),
        (encode_string("notes") + b"\2\0" + encode_string("token") + encode_string("4.0.0") + b"more", 1008),
        (encode_string("notes") + STEP1 + b"\0", 1008),
        (encode_string("n" * 1_000) + STEP1, 1008),
        ("a text frame", 1003),
    ],
    ids=["empty", "cut", "denial", "more", "more of a step", "long address", "text"],
)
async def test_what_is_no_message_closes_the_socket(node: Node, frame: bytes | str, code: int) -> None:
    async with connected(node) as client:
        await client.socket.send(frame)
        heard, found, reason = await client.closed()
        assert (heard, found) == ([], code)
        assert reason
    assert node.rooms_opened == []


@pytest.mark.parametrize("name", ["", "..", "a//b", "a\x01b", "x" * 600])
async def test_a_name_outside_the_rule_is_denied(node: Node, name: str) -> None:
    async with connected(node) as client:
        await client.show_token(name, token())
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            denial = await client.socket.recv()
        assert isinstance(denial, bytes)
        assert denial.startswith(wire.encode_address(name) + DENIED)
        assert await client.heard() != []
    assert node.rooms_opened == []


async def test_what_servers_say_to_each_other_is_ignored_from_a_client(node: Node) -> None:
    async with connected(node) as client:
        await client.show_token("notes", token())
        await client.answered("notes", GRANTED)
        for kind in (4, 6, 8, 99):
            await client.say("notes", bytes((kind,)) + encode_string("x"))
        assert await client.heard() == []
        await client.say("notes", STEP1)
        await client.answered("notes", b"\0\1")
