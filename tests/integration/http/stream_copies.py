"""What a client of Durable Streams does over plain HTTP: frames, offsets, and events as they come."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from pycrdt import Doc, Text

from tests.nodes import new_doc
from ydoc_store.yjs.lib0 import frames, join_frames

WAIT_S = 60.0


def path_of(name: str = "notes", service: str = "default") -> str:
    return f"/v1/yjs/{service}/docs/{name}"


def typed(text: str, doc: Doc[Any] | None = None) -> bytes:
    """An update that types `text` at the beginning of the root text `text`."""
    doc = new_doc() if doc is None else doc
    before = doc.get_state()
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update(before)


async def post(
    client: httpx.AsyncClient, *updates: bytes, name: str = "notes", headers: dict[str, str] | None = None
) -> httpx.Response:
    return await client.post(path_of(name), content=join_frames(updates), headers=headers)


async def created(client: httpx.AsyncClient, *updates: bytes, name: str = "notes") -> None:
    """A document that holds these updates, one append each."""
    assert (await client.put(path_of(name))).status_code == 201
    for update in updates:
        assert (await post(client, update, name=name)).status_code == 204


class Copy:
    """A reader's document and where it stands."""

    def __init__(self, offset: str = "-1") -> None:
        self.doc: Doc[Any] = new_doc()
        self.offset = offset

    @property
    def text(self) -> str:
        return str(self.doc.get("text", type=Text))

    def take(self, body: bytes, offset: str) -> int:
        """Apply a run of frames; returns how many there were."""
        updates = list(frames(body))
        for update in updates:
            self.doc.apply_update(update)
        self.offset = offset
        return len(updates)

    async def read(self, client: httpx.AsyncClient, name: str = "notes", **params: str) -> httpx.Response:
        answer = await client.get(path_of(name), params={"offset": self.offset, **params})
        assert answer.status_code in (200, 204), answer.text
        self.take(answer.content, answer.headers["stream-next-offset"])
        return answer

    async def follow(self, events: Events, until: str) -> None:
        """Apply events until the text is this."""
        async with asyncio.timeout(WAIT_S):
            while self.text != until:
                data, control = await events.next()
                self.take(data, control["streamNextOffset"])


class Events:
    """An event stream: what each control event closes."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self.data_events = 0
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[bytes, dict[str, Any]]:
        """The data up to the next control event, and that. StopAsyncIteration at the stream's end."""
        data, kind = b"", ""
        async with asyncio.timeout(WAIT_S):
            while True:
                line = await anext(self._lines)
                if line.startswith(":"):
                    self.comments += 1
                elif line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    text = line.removeprefix("data:")
                    if kind == "control":
                        return data, json.loads(text)
                    self.data_events += 1
                    data += base64.b64decode(text, validate=True)

    async def ended(self) -> None:
        """Returns when the server ends it."""
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self.next()


@contextlib.asynccontextmanager
async def streaming(client: httpx.AsyncClient, name: str = "notes", **params: str) -> AsyncIterator[Events]:
    async with client.stream("GET", path_of(name), params={"live": "sse", **params}) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["stream-sse-data-encoding"] == "base64"
        yield Events(response)
