"""The service inside somebody else's server, run as README says: peers that freeze on sockets and on event streams,
and a stop under load. What is held is bounded, whoever types on is not delayed, and nothing that was seen is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pycrdt import Array

from tests.faults.crowd import STEP1, encode_frame
from tests.hosts import SERVERS
from tests.memory import MIB, service_bytes
from tests.nodes import Editor
from tests.service import SAMPLE, Program, free_port
from tests.waiting import until

pytestmark = pytest.mark.long

SLOW_MEMBER_S = 4
OUTBOX_BYTES = 512 * 1024
FROZEN = 60
# Of a loaded machine: a peer that was waited for would cost a whole SLOW_MEMBER_S.
DELAY_MAX_S = 3.0
SMALL_BUFFER_BYTES = 4_096
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Hosted(Program):
    """`tests.bench.mounted` under uvicorn or hypercorn, on one port for all its lives."""

    def __init__(self, server: str, folder: Path, database_url: str) -> None:
        self.port = free_port()
        address = f"127.0.0.1:{self.port}"
        own = {
            "uvicorn": ["--port", str(self.port), "--ws-max-size", "33554432", "--timeout-graceful-shutdown", "5"],
            "hypercorn": ["--bind", address, "--graceful-timeout", "5"],
        }
        # Both speak on stderr.
        command = ("sh", "-c", 'exec "$@" 2>&1', "sh", sys.executable, "-m", server, "tests.bench.mounted:app")
        environment = {
            "YDOC_DATABASE_URL": database_url,
            "YDOC_SLOW_MEMBER_S": str(SLOW_MEMBER_S),
            "YDOC_OUTBOX_BYTES_MAX": str(OUTBOX_BYTES),
        }
        log = folder / f"{server}.log"
        super().__init__((*command, *own[server]), re.compile(r"[Rr]unning on http"), log, environment)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/collab{path}"

    async def editor(self) -> Editor:
        return await Editor.open_synced(f"ws://127.0.0.1:{self.port}/collab/yjs/notes")

    async def metrics(self) -> dict[str, float]:
        async with httpx.AsyncClient(timeout=60) as client:
            text = (await client.get(self.url("/metrics"))).text
        return {name: float(value) for name, value in SAMPLE.findall(text)}

    async def frozen(self, path: str, headers: str = "") -> socket.socket:
        """A peer with a small buffer that reads the first line of an answer and no more."""
        loop, peer = asyncio.get_running_loop(), socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        peer.settimeout(0)
        await loop.sock_connect(peer, ("127.0.0.1", self.port))
        await loop.sock_sendall(peer, f"GET /collab{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        assert (await loop.sock_recv(peer, 12)) in (b"HTTP/1.1 200", b"HTTP/1.1 101")
        if headers:
            await loop.sock_sendall(peer, encode_frame(STEP1 + b"\x01\x00"))
        return peer


@pytest.fixture(params=SERVERS)
async def hosted(request: pytest.FixtureRequest, tmp_path: Path, durable_url: str) -> AsyncIterator[Hosted]:
    service = Hosted(request.param, tmp_path, durable_url)
    try:
        await service.start()
        yield service
    finally:
        await service.clear_away()


async def edit(ann: Editor, ben: Editor, fill_bytes: int) -> float:
    """How long until the other one has it."""
    started_s = time.perf_counter()
    with ann.doc.transaction():
        ann.root.insert(len(ann.root), "x")
        ann.doc.get("fill", type=Array).append(os.urandom(fill_bytes))
    await ann.send_edits()
    await ben.until(lambda: len(ben.root) == len(ann.root))
    return time.perf_counter() - started_s


async def test_frozen_peers_of_a_mounted_service_delay_nobody_and_hold_little(hosted: Hosted) -> None:
    """I15, I16: a hundred and twenty of them, half on sockets and half on event streams."""
    ann, ben = await hosted.editor(), await hosted.editor()
    calm_s = sorted([await edit(ann, ben, 20_000) for _ in range(100)])
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.put(hosted.url("/v1/yjs/default/docs/notes"))).status_code == 200
    calm_bytes = service_bytes(hosted.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(FROZEN):
            stack.enter_context(await hosted.frozen("/yjs/notes", UPGRADE))
            stack.enter_context(await hosted.frozen("/v1/yjs/default/docs/notes?offset=now&live=sse"))
        took_s, peak_bytes, metrics = [], 0, await hosted.metrics()
        while (
            metrics.get('ydoc_closes_total{code="1013"}', 0) < FROZEN
            or metrics['ydoc_connections{dialect="durable-streams"}']
        ):
            took_s += [await edit(ann, ben, 20_000) for _ in range(20)]
            peak_bytes, metrics = max(peak_bytes, service_bytes(hosted.pid)), await hosted.metrics()
        print(
            f"p99 {calm_s[98] * 1000:.0f} ms before, {sorted(took_s)[len(took_s) * 99 // 100] * 1000:.0f} ms with"
            f" {2 * FROZEN} frozen; {(peak_bytes - calm_bytes) / MIB:.0f} MiB grown"
        )
        assert max(took_s) < calm_s[98] + DELAY_MAX_S
        # An outbox each at most, what the server buffers, and the allocator's holes; the document itself grows too.
        assert peak_bytes - calm_bytes < 2 * FROZEN * (OUTBOX_BYTES + MIB // 4) * 2 + 128 * MIB
        assert metrics['ydoc_held_bytes{what="outboxes"}'] <= 2 * MIB
        assert metrics['ydoc_held_bytes{what="first_syncs"}'] == 0


async def test_a_mounted_service_that_is_stopped_under_load_has_all_that_was_seen(hosted: Hosted) -> None:
    """I1, I2: frozen peers do not hold up the stop, and what another person has seen is there behind it."""
    ann, ben = await hosted.editor(), await hosted.editor()
    with contextlib.ExitStack() as stack:
        for _ in range(FROZEN // 2):
            stack.enter_context(await hosted.frozen("/yjs/notes", UPGRADE))
        await edit(ann, ben, 100)
        typing = asyncio.create_task(type_on(ann, ben))
        await until(lambda: len(ben.root) > 20)
        started_s = time.monotonic()
        hosted.signal(signal.SIGTERM)
        await hosted.ended()
        print(f"ended after {time.monotonic() - started_s:.1f} s; {len(ben.root)} edits were seen")
        seen = len(ben.root)
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)
    await hosted.start()
    again = await hosted.editor()
    assert len(again.root) >= seen


async def type_on(ann: Editor, ben: Editor) -> None:
    while True:
        await edit(ann, ben, 100)
