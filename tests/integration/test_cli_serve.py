"""`ydoc-store serve` as a person starts it: what is told, what stops it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.integration.test_cli_commands import clean_environment, run_command, typed
from tests.tokens import SECRET
from ydoc_store.yjs.messages import SyncStep1, SyncStep2, Update, decode_message, encode_sync_step1, encode_update

PATIENCE_S = 60.0
DRAIN_S = 15.0
HANDSHAKE = (
    "GET /yjs/plan HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Service:
    """A running `ydoc-store serve`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.told = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_until_up(self) -> None:
        assert self.process.stdout is not None
        while "new WebsocketProvider" not in self.told:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)
            assert line, f"it ended instead: {await self.errors()}"
            self.told += line.decode()

    async def errors(self) -> str:
        assert self.process.stderr is not None
        return (await asyncio.wait_for(self.process.stderr.read(), PATIENCE_S)).decode()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def starting(port: int, *arguments: str | Path) -> AsyncIterator[Service]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ydoc_store", "serve", "--port", str(port), *map(str, arguments)),
        env=clean_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    service = Service(process, port)
    try:
        yield service
    finally:
        if process.returncode is None:
            await service.stop()


@asynccontextmanager
async def serving(port: int, *arguments: str | Path) -> AsyncIterator[Service]:
    async with starting(port, *arguments) as service:
        await service.wait_until_up()
        yield service


async def apart(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    ran = await asyncio.to_thread(run_command, *arguments, stdin=stdin)
    return ran.code, ran.out.decode(), ran.err


async def test_a_first_run_brings_up_everything_and_says_so(free_port: int, data_dir: Path) -> None:
    async with serving(free_port, "--data-dir", data_dir) as service:
        for told in (f"ws://127.0.0.1:{free_port}/yjs/NAME", str(data_dir), f"remove {data_dir}", "from 'y-websocket'"):
            assert told in service.told
        async with httpx.AsyncClient(base_url=service.url) as client:
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert {check["name"] for check in ready.json()["checks"]} == {
                "phase",
                "database",
                "changes",
                "compactor",
                "vacuum",
                "fan-out",
            }
            assert "/yjs/NAME" in (await client.get("/")).text
            assert "ydoc_rooms 0.0" in (await client.get("/metrics")).text
        # what a person types in another terminal works on the running service's database
        code, _, error = await apart("import", "plan", "-", "--data-dir", data_dir, stdin=typed("hello")[0])
        assert code == 0, error
        assert await service.stop() == 0
    code, out, error = await apart("documents", "list", "--data-dir", data_dir)
    assert (code, "plan" in out) == (0, True), error


async def test_what_a_person_must_decide_is_told_at_once(free_port: int, data_dir: Path) -> None:
    async with serving(free_port, "--data-dir", data_dir) as service:
        code, _, error = await apart("serve", "--port", str(free_port), "--data-dir", data_dir)
        assert code == 2
        assert f"port {free_port} is taken by python" in error
        assert f"process {service.process.pid}" in error
        assert "--port" in error
        code, _, error = await apart("serve", "--port", "0", "--data-dir", data_dir)
        assert code == 3
        assert "in use by another ydoc-store" in error
        assert "--data-dir" in error


async def test_an_address_of_the_network_needs_identities(free_port: int) -> None:
    code, _, error = await apart("serve", "--host", "0.0.0.0", "--port", str(free_port))
    assert code == 2
    assert "YDOC_JWT_SECRET" in error
    assert "YDOC_AUTHORIZE_URL" in error


async def test_an_update_outlives_the_service(free_port: int, database_url: str) -> None:
    address = f"ws://127.0.0.1:{free_port}/yjs/plan"
    update = typed("h")[0]
    async with serving(free_port, "--database-url", database_url) as service:
        async with connect(address) as writer, connect(address) as reader:
            await reader.send(encode_sync_step1(b"\0"))
            assert isinstance(decode_message(await received(reader)), SyncStep1)
            assert isinstance(decode_message(await received(reader)), SyncStep2)
            await writer.send(encode_sync_step1(b"\0"))
            await writer.send(encode_update(update))
            # the first accepted update makes the document, and its epoch's marker goes ahead of it
            assert isinstance(decode_message(await received(reader)), Update)
            assert decode_message(await received(reader)) == Update(update)
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
    async with serving(free_port, "--database-url", database_url), connect(address) as reader:
        await reader.send(encode_sync_step1(b"\0"))
        told: list[object] = []
        while not isinstance(message := decode_message(await received(reader)), SyncStep2):
            told.append(message)
        assert b"h" in message.update


async def test_a_drain_closes_sockets_with_1001_and_ends_with_success(free_port: int, database_url: str) -> None:
    async with serving(free_port, "--database-url", database_url) as service:
        async with connect(f"ws://127.0.0.1:{free_port}/yjs/plan") as member:
            service.process.send_signal(signal.SIGTERM)
            async for _ in member:
                pass
            assert member.close_code == 1001
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_S) == 0


async def test_who_asks_again_does_not_wait_for_the_drain_and_is_told(free_port: int, database_url: str) -> None:
    async with serving(free_port, "--database-url", database_url) as service:
        # an editor that never answers the close, which the drain waits for
        reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
        writer.write(HANDSHAKE.format(port=free_port).encode())
        assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        started_s = time.monotonic()
        # as a wrapper does it, which passes on what the whole group has heard
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGINT)
        assert service.process.stderr is not None
        told = ""
        while "asked again" not in told:
            try:
                told += (await asyncio.wait_for(service.process.stderr.readline(), 0.1)).decode()
            except TimeoutError:
                service.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(service.process.wait(), PATIENCE_S)
        told += await service.errors()
        writer.close()
    assert code == 1, told
    assert 1 <= time.monotonic() - started_s < DRAIN_S
    assert told.count("asked again: stopping without the drain") == 1
    assert "Traceback" not in told


async def test_a_service_without_identities_says_that_it_is_open(free_port: int, database_url: str) -> None:
    async with serving(free_port, "--database-url", database_url) as service:
        assert "open: whoever reaches this port reads and writes every document" in service.told


async def test_with_identities_an_address_of_the_network_is_listened_on(
    free_port: int, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {**clean_environment(), "YDOC_JWT_SECRET": SECRET}
    monkeypatch.setattr("tests.integration.test_cli_serve.clean_environment", lambda: secret)
    async with serving(free_port, "--host", "0.0.0.0", "--database-url", database_url) as service:
        assert "open:" not in service.told
        assert f"overview   http://127.0.0.1:{free_port}/" in service.told
        metrics = (await asyncio.to_thread(httpx.get, f"{service.url}/metrics")).text
        assert 'ydoc_connections{dialect="y-websocket"} 0.0' in metrics
        assert await service.stop() == 0
        log = await service.errors()
        assert "0.0.0.0" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_can_be_broken_off(number: signal.Signals, free_port: int, data_dir: Path) -> None:
    async with starting(free_port, "--data-dir", data_dir) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            # HTTP answers before the database is made, so this is early in the start
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    first = await client.get("/health/ready", timeout=PATIENCE_S)
                    break
        assert first.status_code in (200, 503)
        assert await service.stop(number) == 0
        assert "Traceback" not in await service.errors()
    # a command that may make the cluster, because the start may have ended before there was one
    code, _, error = await apart("migrate", "--data-dir", data_dir)
    assert code == 0, error


async def test_the_open_server_closes_foreign_sockets_with_a_reason(free_port: int, database_url: str) -> None:
    async with serving(free_port, "--database-url", database_url):
        address = f"ws://127.0.0.1:{free_port}/yjs/plan"
        async with connect(address, origin="https://example.com") as foreign:  # type: ignore[arg-type] # a plain text will do
            with pytest.raises(ConnectionClosed):
                await received(foreign)
            assert foreign.close_code == 4403
            assert "YDOC_JWT_SECRET" in (foreign.close_reason or "")
        async with connect(f"ws://127.0.0.1:{free_port}/elsewhere") as lost:
            with pytest.raises(ConnectionClosed):
                await received(lost)
            assert lost.close_code == 4404
            assert f"127.0.0.1:{free_port}/yjs/NAME" in (lost.close_reason or "")


async def received(socket: object) -> bytes:
    message = await asyncio.wait_for(socket.recv(), PATIENCE_S)  # type: ignore[attr-defined] # a client connection
    assert isinstance(message, bytes)
    return message
