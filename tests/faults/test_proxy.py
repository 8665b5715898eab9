"""The network that misbehaves does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import TcpProxy


@pytest.fixture
async def line() -> AsyncIterator[TcpProxy]:
    """To a server that repeats what it hears."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(repeat, "127.0.0.1", 0)
    async with TcpProxy(server.sockets[0].getsockname()[1]) as opened:
        yield opened
    server.close()
    await server.wait_closed()


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, text: bytes) -> None:
        self.writer.write(text)

    async def hears(self, text: bytes) -> None:
        async with asyncio.timeout(60):
            assert await self.reader.readexactly(len(text)) == text

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await self.reader.read(1)

    async def hears_the_end(self) -> None:
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                assert await self.reader.read() == b""
        self.writer.close()


async def call(line: TcpProxy) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", line.port))


async def test_it_passes_on_what_is_said_and_the_end_of_it(line: TcpProxy) -> None:
    caller = await call(line)
    caller.say(b"x" * 1_000_000)
    await caller.hears(b"x" * 1_000_000)
    caller.writer.write_eof()
    await caller.hears_the_end()


async def test_a_delay_keeps_the_order_and_holds_for_both_directions(line: TcpProxy) -> None:
    caller = await call(line)
    line.delay(0.2)
    started_s = time.monotonic()
    for number in range(10):
        caller.say(str(number).encode())
        await asyncio.sleep(0)
    await caller.hears(b"0123456789")
    assert 0.4 <= time.monotonic() - started_s < 3.5
    line.delay(0)
    caller.say(b"at once")
    await caller.hears(b"at once")
    caller.writer.close()


async def test_a_stall_is_silent_for_new_connections_too_and_loses_nothing(line: TcpProxy) -> None:
    before = await call(line)
    line.stall()
    during = await call(line)
    before.say(b"before")
    during.say(b"during")
    await before.hears_nothing()
    await during.hears_nothing()
    line.resume()
    await before.hears(b"before")
    await during.hears(b"during")
    before.writer.close()
    during.writer.close()


async def test_a_swallowed_answer_is_lost_and_the_request_was_passed_on(line: TcpProxy) -> None:
    caller = await call(line)
    line.swallow_answers(after=b"secret")
    caller.say(b"open")
    await caller.hears(b"open")
    caller.say(b"a secret")
    async with asyncio.timeout(60):
        await line.swallowing.wait()
    await caller.hears_nothing()
    line.heal()
    await caller.hears_the_end()
    again = await call(line)
    again.say(b"a secret")
    await again.hears(b"a secret")
    again.writer.close()


async def test_a_cut_ends_every_connection(line: TcpProxy) -> None:
    callers = [await call(line) for _ in range(3)]
    for caller in callers:
        caller.say(b"x")
        await caller.hears(b"x")
    line.cut()
    for caller in callers:
        await caller.hears_the_end()
