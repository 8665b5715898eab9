"""A client of `/v1/shape` as it keeps its place between requests, for tests of the answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from pycrdt import Doc, Text

from tests.nodes import new_doc
from tests.sites import Site
from tests.waiting import until
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import frame, frames

NAMED = {"where": "document = $1", "params[1]": "notes"}
UPDATES = {"table": "updates", **NAMED}
AWARENESS = {"table": "awareness", **NAMED}


class Shape:
    """What a client of one table keeps between its requests, and what it makes of the rows."""

    def __init__(self, client: httpx.AsyncClient, table: str = "updates") -> None:
        self.client = client
        self.asks = {"table": table, **NAMED}
        self.handle: str | None = None
        self.offset = "-1" if table == "updates" else "now"
        self.doc: Doc[Any] = new_doc()
        self.present: dict[int, AwarenessEntry] = {}
        self.rows: list[dict[str, Any]] = []

    async def ask(self, **more: str) -> httpx.Response:
        held = {} if self.handle is None else {"handle": self.handle}
        return await self.client.get("/v1/shape", params={**self.asks, "offset": self.offset, **held, **more})

    async def read(self, **more: str) -> httpx.Response:
        answer = await self.ask(**more)
        assert answer.status_code == 200, answer.text
        *self.rows, last = answer.json()
        assert last["headers"]["control"] == "up-to-date"
        assert f"{last['headers']['global_last_seen_lsn']}_0" == answer.headers["electric-offset"]
        self.take(self.rows)
        self.handle, self.offset = answer.headers["electric-handle"], answer.headers["electric-offset"]
        return answer

    async def live(self, **more: str) -> httpx.Response:
        return await self.read(live="true", **more)

    def take(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            assert row["headers"]["operation"] != "delete"
            (payload,) = frames(bytes.fromhex(row["value"]["op"].removeprefix("\\x")))
            if self.asks["table"] == "updates":
                self.doc.apply_update(payload)
            else:
                (entry,) = decode_awareness(payload, entries_max=1, bytes_max=20_000, json_depth_max=64)
                self.present[entry.client_id] = entry

    @property
    def text(self) -> str:
        return str(self.doc.get("text", type=Text))

    async def put(self, payload: bytes, **more: str) -> httpx.Response:
        return await self.client.put("/v1/shape", params={**self.asks, **more}, content=frame(payload))


def shown(client_id: int, clock: int, state: str | None = "{}") -> bytes:
    return encode_awareness_entries([AwarenessEntry(client_id, clock, state)])


@contextlib.asynccontextmanager
async def events(client: httpx.AsyncClient, shape: Shape) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The messages of a stream, as they come."""
    asks = {**shape.asks, "offset": shape.offset, "handle": shape.handle or "", "live": "true", "live_sse": "true"}
    async with client.stream("GET", "/v1/shape", params=asks) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["electric-handle"]
        assert answer.headers["electric-cursor"]

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

        yield messages()


async def has_reader(site: Site, count: int = 1) -> None:
    rooms = site.service.rooms.rooms
    await until(lambda: sum(len(room.wakers) for room in rooms.values()) >= count)
