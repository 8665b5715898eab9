"""The load: updates written by hand, clients that count them, and the two dialects' frames around them.

Every update inserts 30 characters of which the first nine are a marker, `~0000001~`. A marker can be found in any
frame or row by a scan of its bytes, so deliveries are counted by update even where a server merges many into one
frame, and durability is read from the store without decoding it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from ydoc_store.yjs.lib0 import encode_buf, encode_string, encode_uint

MARKER = re.compile(rb"~(\d{7})~")
FILL = "abcdefghijklmnopqrstu"
TEXT_UNITS = 30
# One client's run of characters becomes one string, which every later update copies when it is merged; a new text
# now and then keeps the benchmark about servers.
UPDATES_A_TEXT = 100
FRAME_BYTES_MAX = 1 << 30
# Client ids from here on are the load's; the histories use small ones.
LOAD_CLIENT_ID = 100_000

now_s = time.perf_counter


class Typist:
    """One Yjs client that types into root texts, one update at a time."""

    def __init__(self, client_id: int):
        self._client = encode_uint(client_id)
        self._clock = 0

    def update(self, marker: int) -> bytes:
        clock, self._clock = self._clock, self._clock + TEXT_UNITS
        if clock // TEXT_UNITS % UPDATES_A_TEXT == 0:
            place = b"\x04\x01" + encode_string(f"t{clock // TEXT_UNITS // UPDATES_A_TEXT}")
        else:
            place = b"\x84" + self._client + encode_uint(clock - 1)
        head = b"\x01\x01" + self._client + encode_uint(clock)
        return head + place + encode_string(f"~{marker:07d}~{FILL}") + b"\x00"


class Dialect(Protocol):
    """How a server wants its frames."""

    def path(self, document: str) -> str: ...
    def prefix(self, document: str) -> bytes: ...
    def hello(self, document: str) -> list[bytes]: ...


class YWebsocket:
    """Dialect A: one document a socket, named by the path behind the mount's, if there is one."""

    def __init__(self, root: str = ""):
        self._root = root

    def path(self, document: str) -> str:
        return f"{self._root}/yjs/{document}"

    def prefix(self, document: str) -> bytes:
        return b""

    def hello(self, document: str) -> list[bytes]:
        return [b"\x00\x00\x01\x00"]


class Hocuspocus:
    """Dialect B: every frame begins with the document's name."""

    def path(self, document: str) -> str:
        return "/"

    def prefix(self, document: str) -> bytes:
        return encode_string(document)

    def hello(self, document: str) -> list[bytes]:
        name = encode_string(document)
        return [name + b"\x02\x00" + encode_string("token") + encode_string("4.0.0"), name + b"\x00\x00\x01\x00"]


Sink = Callable[["Client", bytes], None]


class Client(WSListener):  # type: ignore[misc] # picows ships no types for its base class
    """One connection in one document; `sink` gets every frame that carries content."""

    def __init__(self, dialect: Dialect, document: str, sink: Sink | None):
        self._hello = dialect.hello(document)
        self.prefix = dialect.prefix(document)
        self._skip = len(self.prefix)
        self._sink = sink
        self.index = 0
        self.frames = 0
        self.is_closed = False
        self.synced: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        for message in self._hello:
            transport.send(WSMsgType.BINARY, message)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.is_closed = True
            transport.disconnect()
        if frame.msg_type != WSMsgType.BINARY:
            return
        payload = frame.get_payload_as_bytes()
        self.frames += 1
        kind, step = payload[self._skip], payload[self._skip + 1] if len(payload) > self._skip + 1 else 0
        if kind != 0:
            return
        if step == 0:
            transport.send(WSMsgType.BINARY, self.prefix + b"\x00\x01\x02\x00\x00")
            return
        if self._sink is not None:
            self._sink(self, payload)
        if step == 1 and not self.synced.done():
            self.synced.set_result(now_s())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.is_closed = True
        if not self.synced.done():
            self.synced.cancel()

    def frame_of(self, update: bytes) -> bytes:
        return self.prefix + b"\x00\x02" + encode_buf(update)

    def send(self, frame: bytes) -> None:
        self.transport.send(WSMsgType.BINARY, frame)

    def close(self) -> None:
        if not self.is_closed:
            self.transport.disconnect()


async def connect(dialect: Dialect, port: int, document: str, sink: Sink | None = None, *, sync: bool = True) -> Client:
    """A client, synced unless told otherwise."""
    url = f"ws://127.0.0.1:{port}{dialect.path(document)}"
    _, client = await ws_connect(lambda: Client(dialect, document, sink), url, max_frame_size=FRAME_BYTES_MAX)
    if sync:
        await asyncio.wait_for(asyncio.shield(client.synced), 30)
    return client


async def connect_all(dialect: Dialect, port: int, documents: Iterable[str], sink: Sink | None = None) -> list[Client]:
    """One client a name, in order, twenty at a time."""
    turns = asyncio.Semaphore(20)

    async def one(index: int, document: str) -> Client:
        async with turns:
            client = await connect(dialect, port, document, sink)
            client.index = index
            return client

    return list(await asyncio.gather(*(one(index, document) for index, document in enumerate(documents))))


def markers(data: bytes) -> list[int]:
    return [int(found) for found in MARKER.findall(data)]


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
