"""Thousands of raw clients in a process of their own, driven by lines of JSON: `python -m tests.faults.crowd`.

A client opens a document, says what it has, and counts as synced when its Step2 has come. Whoever loses its socket
comes back as y-websocket does, but all at the same moment: at once, and then every `retry_s`, without jitter. It
brings the state vector that it was told, as a client does that has everything. A frozen one stops reading. Nothing
here decodes content; what a document holds is for the oracle. `Crowd` is the test's side of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
STEP1, STEP2, UPDATE = b"\x00\x00", b"\x00\x01", b"\x00\x02"
NOTHING = b"\x00"
REQUEST = (
    "GET /yjs/{document} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
REPLY_TIMEOUT_S = 120.0


def encode_frame(message: bytes) -> bytes:
    """A masked binary frame; a mask of zeros leaves the bytes as they are."""
    size = len(message)
    if size < 126:
        return b"\x82" + bytes([0x80 | size]) + bytes(4) + message
    if size < 65_536:
        return b"\x82\xfe" + size.to_bytes(2, "big") + bytes(4) + message
    return b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + message


@dataclass
class Counts:
    """What became of one group of clients."""

    group: list[RawClient] = field(default_factory=list)
    closes: Counter[int] = field(default_factory=Counter)
    refused_handshakes: Counter[str] = field(default_factory=Counter)
    refused_connections: int = 0
    closed_at_s: list[float] = field(default_factory=list)


class RawClient(asyncio.Protocol):
    """One client, over all its connections."""

    def __init__(self, counts: Counts, port: int, document: str, options: dict[str, Any]):
        self.counts = counts
        self.port = port
        self.document = document
        self.retry_s: float | None = options.get("retry_s")
        self.receive_bytes: int | None = options.get("receive_bytes")
        # "live" stops reading behind its first sync, "sync" during it.
        self.frozen: str | None = options.get("frozen")
        self.vector = NOTHING
        self.is_synced = False
        self.synced_at_s = 0.0
        self.close_code = 1006
        self._received = bytearray()
        self._is_open = False
        self._is_leaving = False
        self.transport: asyncio.Transport | None = None
        # Held, or the loop would forget them.
        self.connecting: deque[asyncio.Task[None]] = deque(maxlen=2)

    async def connect(self) -> None:
        carrier = socket.socket()
        carrier.setblocking(False)  # noqa: FBT003 # the socket's own signature
        if self.receive_bytes:
            carrier.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(carrier, ("127.0.0.1", self.port))
            await loop.create_connection(lambda: self, sock=carrier)
        except OSError:
            carrier.close()
            self.counts.refused_connections += 1
            self._come_back()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._received.clear()
        self._is_open = False
        self.close_code = 1006
        transport.write(REQUEST.format(document=self.document, port=self.port).encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_open:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._received.startswith(b"HTTP/1.1 101"):
                self.counts.refused_handshakes[self._received[9:40].split(b"\r")[0].decode()] += 1
                self.transport.abort()  # type: ignore[union-attr] # it is connected
                return
            del self._received[: end + 4]
            self._is_open = True
            self.say(STEP1 + bytes([len(self.vector)]) + self.vector)
        if self.frozen == "sync":
            self.transport.pause_reading()  # type: ignore[union-attr]
            return
        while (frame := self._next_frame()) is not None:
            self._take(*frame)

    def _next_frame(self) -> tuple[int, bytes] | None:
        received = self._received
        if len(received) < 2:
            return None
        size, at = received[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(received[2:at], "big")
        if len(received) < at + size:
            return None
        opcode, payload = received[0] & 0x0F, bytes(received[at : at + size])
        del received[: at + size]
        return opcode, payload

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.transport.write(b"\x88\x82\x00\x00\x00\x00" + payload[:2])  # type: ignore[union-attr]
        elif payload[:2] == STEP1 and not self.is_synced:
            # What it will have once its Step2 is here; short enough for one byte of length.
            if payload[2] < 0x80:
                self.vector = payload[3:]
            self.say(STEP2 + b"\x02\x00\x00")
        elif payload[:2] == STEP2 and not self.is_synced:
            self.is_synced, self.synced_at_s = True, time.monotonic()
            if self.frozen == "live":
                self.transport.pause_reading()  # type: ignore[union-attr]

    def say(self, message: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(encode_frame(message))

    def thaw(self) -> None:
        """Read on, to hear why it was closed."""
        self.frozen = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        was_synced, self.is_synced = self.is_synced, False
        self.transport = None
        self.counts.closes[self.close_code] += 1
        self.counts.closed_at_s.append(time.monotonic())
        if not self._is_leaving:
            self._come_back(at_once=was_synced)

    def _come_back(self, *, at_once: bool = False) -> None:
        if self.retry_s is not None and not self._is_leaving:
            loop = asyncio.get_running_loop()
            # All of them at the same moments, whenever each was lost.
            wait_s = 0 if at_once else self.retry_s - loop.time() % self.retry_s
            loop.call_later(wait_s, lambda: self.connecting.append(loop.create_task(self.connect())))

    def leave(self) -> None:
        self._is_leaving = True
        if self.transport is not None:
            self.transport.abort()


class Groups:
    """The clients by the name of their group, and what can be asked of them."""

    def __init__(self) -> None:
        self._groups: dict[str, Counts] = {}

    async def open(self, group: str, port: int, documents: list[str], **options: Any) -> dict[str, Any]:
        """A client a name, all at once."""
        counts = self._groups.setdefault(group, Counts())
        clients = [RawClient(counts, port, document, options) for document in documents]
        counts.group += clients
        await asyncio.gather(*(client.connect() for client in clients))
        return {}

    async def synced(self, group: str, count: int, timeout_s: float) -> dict[str, Any]:
        """Once so many are synced, when the last of them was."""
        counts = self._groups[group]
        deadline_s = time.monotonic() + timeout_s
        while sum(client.is_synced for client in counts.group) < count:  # thousands of signals
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{sum(client.is_synced for client in counts.group)} of {count} are synced")
            await asyncio.sleep(0.05)
        return {"last_at_s": max(client.synced_at_s for client in counts.group)}

    async def look(self, group: str) -> dict[str, Any]:
        """The counts so far."""
        counts = self._groups[group]
        return {
            "synced": sum(client.is_synced for client in counts.group),
            "closes": counts.closes,
            "refused_handshakes": counts.refused_handshakes,
            "refused_connections": counts.refused_connections,
            "closed_at_s": counts.closed_at_s,
        }

    async def say(self, group: str, messages: list[str]) -> dict[str, Any]:
        """Each client says the message of its place, in hex."""
        for client, message in zip(self._groups[group].group, messages, strict=False):
            client.say(bytes.fromhex(message))
        return {}

    async def thaw(self, group: str) -> dict[str, Any]:
        for client in self._groups[group].group:
            client.thaw()
        return {}

    async def leave(self, group: str) -> dict[str, Any]:
        for client in self._groups.pop(group).group:
            client.leave()
        return {}


async def serve() -> None:
    """Answer lines until stdin ends."""
    groups, loop = Groups(), asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = loop.create_task(_answer(groups, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


async def _answer(groups: Groups, question: dict[str, Any]) -> None:
    number, op = question.pop("id"), question.pop("op")
    try:
        answer = await getattr(groups, op)(**question)
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": number, **answer}), flush=True)


class Crowd:
    """The test's side: questions to the process, answered once what they ask for has happened."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, op: str, **options: Any) -> dict[str, Any]:
        """One operation of `Groups`; AssertionError when it fails there."""
        self._number += 1
        answered = self._asked[self._number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._number, "op": op, **options}).encode() + b"\n")
        async with asyncio.timeout(options.get("timeout_s", 0) + REPLY_TIMEOUT_S):
            answer = await answered
        assert "failed" not in answer, f"{op}: {answer['failed']}"
        return answer

    async def open(self, group: str, port: int, documents: Sequence[str], **options: Any) -> None:
        await self.ask("open", group=group, port=port, documents=list(documents), **options)

    async def synced(self, group: str, count: int, timeout_s: float = 60) -> float:
        """When the last of them was synced, by the clock of `time.monotonic`, which processes share."""
        return float((await self.ask("synced", group=group, count=count, timeout_s=timeout_s))["last_at_s"])

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._asked.pop(answer["id"]).set_result(answer)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def crowding() -> AsyncIterator[Crowd]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.crowd",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        limit=2**26,
    )
    crowd = Crowd(process)
    try:
        yield crowd
    finally:
        await crowd.end()


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve())
