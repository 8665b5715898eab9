"""What the client makes of servers that are mute, broken or something else: an end or a deadline, never silence."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http
import ipaddress
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pycrdt import Doc, Map
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.integration.client.opening import opening
from tests.waiting import TIMEOUT_S
from ydoc_store.client import ClientError, Refused, Unavailable, Unreadable, connect, connect_sync, connection
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.messages import encode_sync_step1, encode_sync_step2, encode_update

Handler = Callable[[ServerConnection], Awaitable[None]]
NOTES = encode_string("notes")
GREETING = (wire.encode_granted(writes=True), encode_sync_step1(b"\0"), encode_sync_step2(b"\0\0"))


@contextlib.asynccontextmanager
async def odd(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """The URL of a server that treats its connections like this."""

    async def handle(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await handler(socket)

    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/hocuspocus"


async def greet(socket: ServerConnection) -> None:
    for message in GREETING:
        await socket.send(NOTES + message)


async def listen(socket: ServerConnection) -> None:
    async for _frame in socket:
        pass


async def test_a_mute_server_is_left_for_another_try_and_the_deadline_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_S_MAX", 0.1)
    tries: list[float] = []

    async def mute(socket: ServerConnection) -> None:
        tries.append(time.monotonic())
        await listen(socket)

    async with odd(mute) as url:
        error = await opening(url, tells="said nothing for 0.1 s", timeout_s=1.5)
    assert isinstance(error, Unavailable)
    assert "said nothing for 0.1 s" in str(error)
    assert len(tries) > 1
    assert time.monotonic() - tries[0] < 10


async def test_a_server_that_never_acks_is_never_believed() -> None:
    async def never(socket: ServerConnection) -> None:
        await greet(socket)
        await listen(socket)

    async def edit(url: str) -> None:
        async with connect(url, "notes", leave_timeout_s=0.1) as document:
            document.ydoc.get("map", type=Map)["key"] = 1
            with pytest.raises(Unavailable, match="it is connected"):
                await document.saved(timeout_s=0.2)

    async with odd(never) as url:
        with pytest.raises(Unavailable):
            await edit(url)


@pytest.mark.parametrize("frame", ["words", b"", NOTES, b"\xff" * 40, NOTES + b"\x00\x09"])
async def test_frames_that_are_none_cost_the_connection_until_the_deadline(frame: str | bytes) -> None:
    async def babble(socket: ServerConnection) -> None:
        await socket.send(frame)
        await listen(socket)

    async with odd(babble) as url:
        error = await opening(url, tells="the server sent")
    assert isinstance(error, Unavailable)
    assert "the server sent" in str(error)


async def test_an_update_that_is_none_ends_the_document() -> None:
    async def send(socket: ServerConnection) -> None:
        await socket.send(NOTES + encode_update(b"\x01\x02\x03"))
        await listen(socket)

    async with odd(send) as url:
        assert isinstance(await opening(url, timeout_s=TIMEOUT_S), Unreadable)


async def test_a_message_beyond_the_bound_is_not_taken_in() -> None:
    async def flood(socket: ServerConnection) -> None:
        await socket.send(NOTES + encode_update(bytes(300_000)))
        await listen(socket)

    async with odd(flood) as url:
        with pytest.raises(Unreadable):
            async with connect(url, "notes", frame_bytes_max=100_000):
                pytest.fail("opened")


async def test_a_close_for_good_is_an_end_and_another_is_not() -> None:
    codes = iter([1012, 1011, 4403])

    async def close(socket: ServerConnection) -> None:
        await socket.close(next(codes), "because")

    async with odd(close) as url:
        error = await opening(url, timeout_s=TIMEOUT_S)
    assert isinstance(error, Refused)
    assert error.code == "closed_4403"
    assert str(error) == "because"


@pytest.mark.parametrize(("status", "ending"), [(404, Refused), (401, Refused), (503, Unavailable), (429, Unavailable)])
async def test_an_answer_that_is_no_upgrade_is_judged_by_its_status(status: int, ending: type[ClientError]) -> None:
    def answer(socket: ServerConnection, _request: Request) -> Response:
        return socket.respond(http.HTTPStatus(status), "no")

    async with odd(listen, process_request=answer) as url:
        error = await opening(url, tells=str(status))
    assert isinstance(error, ending)
    assert str(status) in str(error)


async def test_a_function_for_tokens_that_never_answers_does_not_hold_up_the_deadline() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with odd(listen) as url:
        with pytest.raises(Unavailable):
            async with connect(url, "notes", token=never, timeout_s=0.3):
                pytest.fail("opened")


async def test_a_function_for_tokens_that_fails_is_not_asked_at_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants the next token goes on talking: a busy document must not storm whoever gives tokens."""
    monkeypatch.setattr(connection, "RENEW_PAUSE_S", 60)
    asked: list[float] = []
    is_over = asyncio.Event()

    async def give() -> str:
        asked.append(time.monotonic())
        if len(asked) > 1:
            raise ConnectionError("away")
        return "a token"

    async def want(socket: ServerConnection) -> None:
        await greet(socket)
        for _ in range(50):
            await socket.send(NOTES + wire.encode_token_wanted())
            await socket.send(wire.PING)
        async for frame in socket:
            answers.append(frame)
            if answers.count(wire.PONG) == 50:
                is_over.set()

    answers: list[str | bytes] = []
    async with odd(want) as url, connect(url, "notes", token=give, timeout_s=20):
        async with asyncio.timeout(60):
            await is_over.wait()
        assert len(asked) == 2


def test_a_function_for_tokens_that_hangs_does_not_hold_up_a_job() -> None:
    """Not its deadline, and not the end of its thread's loop, which would wait for threads of its own."""
    over = threading.Event()

    def hang() -> str:
        over.wait(60)
        return ""

    began_s = time.monotonic()
    with pytest.raises(Unavailable), connect_sync("ws://127.0.0.1:9/hocuspocus", "notes", token=hang, timeout_s=0.3):
        pytest.fail("opened")
    assert time.monotonic() - began_s < 30
    over.set()


async def test_whoever_is_cancelled_while_leaving_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT_S", 60)
    is_deaf = asyncio.Event()

    async def turn_deaf(socket: ServerConnection) -> None:
        await greet(socket)
        socket.transport.pause_reading()
        is_deaf.set()
        await over.wait()

    async def work(url: str) -> None:
        async with connect(url, "notes", ydoc=mine):
            await is_deaf.wait()
            leaving.set()

    mine: Doc[Any] = Doc()
    leaving, over = asyncio.Event(), asyncio.Event()
    async with odd(turn_deaf, close_timeout=0.1) as url:
        task = asyncio.create_task(work(url))
        await leaving.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not mine._subscriptions
        clients = [task for task in asyncio.all_tasks() if task.get_name().startswith("ydoc-store client")]
        over.set()
        assert clients == []


def certified(folder: Path) -> Path:
    """A key, and a certificate of its own for 127.0.0.1, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = folder / "certified.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return file


async def test_a_certificate_is_looked_at_and_the_environment_says_whose_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certified(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def sync(socket: ServerConnection) -> None:
        await greet(socket)
        await listen(socket)

    async with odd(sync, ssl=context) as plain:
        url = plain.replace("ws://", "wss://")
        error = await opening(url, tells="certificate")
        assert isinstance(error, Unavailable)
        assert "certificate" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with connect(url, "notes") as document:
            assert document.is_connected


async def test_the_token_is_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "ydoc_store")

    async def deny(socket: ServerConnection) -> None:
        await socket.send(NOTES + wire.encode_denied("no", "forbidden"))
        await listen(socket)

    async with odd(deny) as url:
        with pytest.raises(Refused) as refused:
            async with connect(url, "notes", token="a-secret-token"):
                pytest.fail("opened")
    assert "a-secret-token" not in caplog.text + repr(refused.value) + str(refused.value)
