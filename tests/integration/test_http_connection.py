"""What a peer can do to an HTTP connection before anyone knows what it wants: little, and not for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from ydoc_store.http.connection import HEAD_BYTES_MAX, HEADERS_MAX, Gate, bounded_connection

PATIENCE_S = 60.0
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Upgraded(asyncio.Protocol):
    """Stands for the relay: says that it was reached, and closes."""

    def __init__(self, **_uvicorns: Any) -> None:
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"reached: " + data.split(b"\r\n")[0])
        self.transport.close()


@asynccontextmanager
async def serving(
    *, handshake_timeout_s: float = 60.0, gate: Callable[[], Gate] = lambda: "open"
) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        answer_ok,
        http=bounded_connection(handshake_timeout_s, gate),
        ws=Upgraded,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield listener.getsockname()[1]
    finally:
        await server.shutdown([listener])


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Everything that the server says until it closes, after being told these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()


async def test_a_request_is_answered() -> None:
    async with serving() as port:
        answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"ok")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_whoever_does_not_finish_the_head_is_cut(sent: bytes) -> None:
    async with serving(handshake_timeout_s=0.05) as port:
        answer = await exchange(port, sent)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_the_time_for_a_head_ends_with_the_head() -> None:
    async with serving(handshake_timeout_s=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_S)).startswith(b"HTTP/1.1 200 ")
        # a second request on the same connection has a time of its own
        writer.write(b"GET / HT")
        assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_head_without_end_is_refused() -> None:
    async with serving() as port:
        answer = await exchange(port, b"GET / HTTP/1.1\r\nX: ", b"a" * (HEAD_BYTES_MAX + 1))
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_ten_thousand_headers_are_refused() -> None:
    async with serving() as port:
        answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n")
        most = b"a: b\r\n" * (HEADERS_MAX - 2)
        fine = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + most + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert fine.startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_is_no_head() -> None:
    body = b"a" * (4 * HEAD_BYTES_MAX)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with serving() as port:
        answer = await exchange(port, head, body)
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http_is_refused() -> None:
    async with serving() as port:
        answer = await exchange(port, b"\x16\x03\x01\x02\x00")
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_upgrade_reaches_the_relay() -> None:
    async with serving() as port:
        answer = await exchange(port, b"GET /yjs/a%20b HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
    assert answer == b"reached: GET /yjs/a%20b HTTP/1.1"


async def test_no_socket_is_opened_while_the_process_drains() -> None:
    async with serving(gate=lambda: "shut") as port:
        answer = await exchange(port, b"GET /yjs/a HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")


async def test_an_upgrade_with_ten_thousand_headers_is_refused() -> None:
    head = b"GET /yjs/a HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"a: b\r\n" * 10_000 + b"\r\n"
    async with serving() as port:
        answer = await exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"reached" not in answer


async def test_an_upgrade_during_the_start_is_held_until_the_process_serves() -> None:
    asked = asyncio.Event()
    phases: list[Gate] = ["soon"]

    def gate() -> Gate:
        asked.set()
        return phases[-1]

    async with serving(gate=gate) as port:
        exchanging = asyncio.create_task(exchange(port, b"GET /yjs/a HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n"))
        await asked.wait()
        phases.append("open")
        assert (await exchanging).startswith(b"reached: GET")


async def test_an_upgrade_is_held_no_longer_than_a_handshake_may_take() -> None:
    async with serving(handshake_timeout_s=0.1, gate=lambda: "soon") as port:
        assert (await exchange(port, b"GET /yjs/a HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")).startswith(
            b"HTTP/1.1 503"
        )
