"""A slow line between an editor and the server: bytes arrive no faster than its rate, and the server notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

CHUNK_BYTES = 8 * 1024
# What the line itself holds: little, so that the server soon sees that its socket takes nothing.
BUFFER_BYTES = 32 * 1024


@contextlib.asynccontextmanager
async def slow_link(port: int, bits_per_s: float) -> AsyncIterator[int]:
    """The port of a proxy to `port` on the loopback; towards the client it carries `bits_per_s` a connection."""
    lines: set[asyncio.Task[None]] = set()

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        try:
            await _carry_both_ways(port, reader, writer, bits_per_s)
        except* OSError:
            # Either end hung up.
            writer.close()

    server = await asyncio.start_server(line, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in lines:
            task.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        await server.wait_closed()


async def _carry_both_ways(
    port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bits_per_s: float
) -> None:
    far = socket.socket()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    far.settimeout(0)
    await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", port))
    far_reader, far_writer = await asyncio.open_connection(sock=far, limit=BUFFER_BYTES)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_carry(reader, far_writer, None))
            both.create_task(_carry(far_reader, writer, bits_per_s))
    finally:
        writer.close()
        far_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bits_per_s: float | None) -> None:
    loop = asyncio.get_running_loop()
    free_at_s = loop.time()
    while chunk := await reader.read(CHUNK_BYTES):
        if bits_per_s is not None:
            free_at_s = max(free_at_s, loop.time()) + len(chunk) * 8 / bits_per_s
            await asyncio.sleep(free_at_s - loop.time())
        writer.write(chunk)
        await writer.drain()
    writer.close()
