"""A reader that takes little by little what others wait for gives way to them, whatever carries it (I16)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.frames import Frame, Opcode

from tests.integration.http.stream_copies import WAIT_S, created, path_of, typed
from tests.nodes import new_doc
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.http import staying
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs import messages

MIB = 1024 * 1024
# More than the kernel takes for both sides; the largest body is 16 MiB.
LARGE_BYTES = 12 * MIB
SLOW_MEMBER_S = 3
SETTINGS = {
    "process_sync_bytes_max": LARGE_BYTES + 2 * MIB,
    "slow_member_s": SLOW_MEMBER_S,
    "reader_bytes_per_s_min": "512KiB",
    "room_cache_bytes_max": 1,
}
SHAPE = "/v1/shape?table=updates&where=document%20%3D%20%27large%27&offset=-1"
WAYS = ("/v1/documents/large", f"{path_of('large')}?offset=-1&live=sse", SHAPE)


class Trickle:
    """A peer that takes some 100 KB a second, until the other side ends it."""

    def __init__(self, port: int) -> None:
        self.peer = socket.socket()
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = port
        self.taken_bytes = 0
        self._taking: asyncio.Task[None] | None = None

    async def ask(self, target: str, status: int = 200, headers: str = "") -> None:
        self.peer.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.peer, ("127.0.0.1", self.port))
        await loop.sock_sendall(self.peer, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        assert (await loop.sock_recv(self.peer, 12)).decode() == f"HTTP/1.1 {status}", target
        self._taking = asyncio.create_task(self._take())

    async def edit(self, name: str) -> None:
        """Open a socket as an editor does, and ask for the document."""
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        await self.ask(f"/yjs/{name}", 101, f"{upgrade}Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n")
        step1 = messages.encode_sync_step1(new_doc().get_state())
        await asyncio.get_running_loop().sock_sendall(self.peer, Frame(Opcode.BINARY, step1).serialize(mask=True))

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while piece := await loop.sock_recv(self.peer, 2048):
                self.taken_bytes += len(piece)
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
        self.peer.close()


@contextlib.asynccontextmanager
async def trickling(site: Site) -> AsyncIterator[Trickle]:
    trickle = Trickle(site.port)
    try:
        yield trickle
    finally:
        await trickle.stop()


@contextlib.asynccontextmanager
async def running(database_url: str, **settings: object) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    """A site whose memory for readers holds one large document, and a little."""
    async with running_site(database_url, **{**SETTINGS, **settings}) as site, site.client() as client:
        await created(client, typed("abcdefgh" * (LARGE_BYTES // 8)), name="large")
        await created(client, typed("ab" * 2 * MIB), name="other")
        yield site, client


def held_bytes(site: Site) -> int:
    return sum(shares.used for shares in site.service.rooms.shares)


async def test_a_trickling_reader_gives_way_to_whoever_waits(database_url: str) -> None:
    async with running(database_url) as (site, client):
        for target in WAYS:
            async with trickling(site) as slow:
                await slow.ask(target)
                await until(lambda: held_bytes(site) >= LARGE_BYTES)
                async with asyncio.timeout(WAIT_S):
                    answer = await client.get("/v1/documents/other")
                assert (answer.status_code, len(answer.content) > 4 * MIB) == (200, True), target
                await until(lambda: held_bytes(site) == 0)
                assert slow.taken_bytes < LARGE_BYTES / 2


async def test_a_trickling_reader_of_a_stream_gives_way_to_whoever_waits(database_url: str) -> None:
    async with running_site(database_url, **SETTINGS) as site, site.client() as client:
        for name, body in (("large", b"x" * LARGE_BYTES), ("other", b"x" * 100)):
            made = await client.put(f"/v1/stream/{name}", content=body, headers={"Content-Type": "text/plain"})
            assert made.status_code == 201
        # The shares of streams, which no setting makes small.
        site.service.rooms.shares[2].size_max = 17 * MIB
        for target in ("/v1/stream/large?offset=-1", "/v1/stream/large?offset=-1&live=sse"):
            async with trickling(site) as slow:
                await slow.ask(target)
                await until(lambda: held_bytes(site) == LARGE_BYTES)
                async with asyncio.timeout(WAIT_S):
                    answer = await client.get("/v1/stream/other?offset=-1")
                assert (answer.status_code, len(answer.content)) == (200, 100), target
                await until(lambda: held_bytes(site) == 0)


async def test_what_is_made_for_one_reader_counts_until_it_is_taken(database_url: str) -> None:
    """I15: each reader of JSON or text has its own copy, however few documents there are."""
    async with running(database_url) as (site, client):
        made = site.service.rooms.made
        made.size_max = LARGE_BYTES + MIB
        target = "/v1/documents/large/content?root=text&as=text"
        async with trickling(site) as slow:
            await slow.ask(target)
            await until(lambda: made.used == LARGE_BYTES)
            async with asyncio.timeout(WAIT_S):
                answer = await client.get(target)
            assert (answer.status_code, len(answer.content)) == (200, LARGE_BYTES)
            await until(lambda: made.used == 0)


async def test_a_trickling_editor_gives_way_to_whoever_waits_and_is_told(database_url: str) -> None:
    async with running(database_url) as (site, client), trickling(site) as slow:
        await slow.edit("large")
        await until(lambda: held_bytes(site) >= LARGE_BYTES)
        async with asyncio.timeout(WAIT_S):
            answer = await client.get("/v1/documents/other")
        assert answer.status_code == 200
        assert site.count('ydoc_closes_total{code="1013"}') == 1
        assert slow.taken_bytes < LARGE_BYTES / 2


async def test_a_trickling_reader_is_let_be_while_nobody_waits(database_url: str) -> None:
    async with running(database_url) as (site, _), trickling(site) as slow:
        await slow.ask(WAYS[0])
        await until(lambda: held_bytes(site) >= LARGE_BYTES)
        held, before_bytes = next(iter(site.service.rooms.first_sync.prepared.held)), slow.taken_bytes
        # It is known to be slow by now, and goes on.
        await until(lambda: held.speed(time.monotonic(), site.settings.reader_bytes_per_s_min) < 1)
        await until(lambda: slow.taken_bytes > before_bytes + 100_000)
        assert held_bytes(site) >= LARGE_BYTES


async def test_whoever_is_revoked_while_it_streams_is_cut_however_slow_it_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I18."""
    monkeypatch.setattr(staying, "LOOK_INTERVAL_S", 0.1)
    async with running_site(database_url, jwt_secret=SECRET) as site, contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(site.client(token("root", {"*": "admin"})))
        await created(client, typed("abcdefgh" * (LARGE_BYTES // 8)), name="large")
        plain = {"Content-Type": "text/plain"}
        assert (await client.put("/v1/stream/large", content=b"x", headers=plain)).status_code == 201
        asks = f"Authorization: Bearer {token('ann', {'*': 'admin'})}\r\n"
        handle = (await client.get(SHAPE)).headers["electric-handle"]
        for target, more in (
            (WAYS[0], ""),
            (WAYS[1], ""),
            (f"{SHAPE}&live=true&live_sse=true&handle={handle}", ""),
            ("/v1/stream/large?offset=now&live=sse", ""),
            ("/v1/stream/documents?offset=now&live=sse", ""),
            ("/v1/changes?after=now", "Accept: text/event-stream\r\n"),
        ):
            slow = await stack.enter_async_context(trickling(site))
            await slow.ask(target, headers=asks + more)
        stays = staying._STAYS[site.phase.stopping]._all
        assert len(stays) == 6
        await insert_revocation(site.database, "default", "user", "ann", None, lifetime_s_max=86_400)
        await site.service.authorizer.revocations.refresh(site.database, 86_400)
        await until(lambda: not stays)
        await until(lambda: held_bytes(site) == 0)
