"""One document edited at once through everything that can edit it, with compactions in between, ends equal everywhere.

y-websocket, Hocuspocus, Durable Streams and ElectricSQL (by long-poll and by events) with their stock providers, and a
backend with plain requests. Timing and edits come from a seed; what nobody takes away must be there at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pycrdt import Array, Doc, Map, Text

from tests.interop.editors import Editor, Editors
from tests.service import AT_FULL_SPEED, BUSIEST_COMPACTION, STORE, Service, run, serving, verify
from tests.stored import connecting

pytestmark = pytest.mark.least_rights

NAME = "notes"
DOCUMENT = f"/v1/documents/{NAME}"
PAUSE_MS_MAX = 60


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    environment = {**BUSIEST_COMPACTION, **AT_FULL_SPEED}
    async with serving(tmp_path, database_url=database_url, environment=environment) as started:
        yield started


@pytest.fixture
async def backend(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=60) as client:
        yield client


async def open_all(service: Service, editors: Editors) -> dict[str, Editor]:
    base = f"http://127.0.0.1:{service.port}"
    hocuspocus = service.url.replace("/yjs", "/hocuspocus")
    found = {
        "y-websocket": await editors.open(service.url, NAME, "y-websocket"),
        "hocuspocus": await editors.open_hocuspocus(hocuspocus, NAME, "hocuspocus"),
        "durable": await editors.open_durable(f"{base}/v1/yjs/default", NAME, "durable"),
        "electric": await editors.open_electric(base, NAME, "electric", reconnect=True),
        "electric events": await editors.open_electric(base, NAME, "electric events", sse=True, reconnect=True),
    }
    for editor in found.values():
        await editor.synced()
    return found


class Backend:
    """Edits in JSON, and updates that a program makes of what it has read."""

    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self.client = client
        self.dice = random.Random(seed)
        self.put: list[str] = []

    async def edit_randomly(self, count: int) -> None:
        for _ in range(count):
            if self.dice.random() < 0.3:
                await self._append_update()
            else:
                await self._patch(self._edit())
            await asyncio.sleep(self.dice.random() * PAUSE_MS_MAX / 1000)

    def _next(self) -> str:
        self.put.append(f"backend {len(self.put)}")
        return self.put[-1]

    def _edit(self) -> dict[str, Any]:
        key = f"key {self.dice.randrange(6)}"
        return self.dice.choice(
            [
                lambda: {"op": "insert", "path": ["text", self.dice.randrange(3)], "text": "hälp 😀 "},
                lambda: {"op": "delete", "path": ["text", self.dice.randrange(9)], "count": 1},
                lambda: {"op": "set", "path": ["map", key], "value": {"by": "backend"}},
                lambda: {"op": "delete", "path": ["map", key]},
                lambda: {"op": "append", "path": ["array"], "values": [self._next()]},
            ]
        )()

    async def _patch(self, edit: dict[str, Any]) -> None:
        answer = await self.client.patch(DOCUMENT, json={"edits": [edit]})
        # What an edit is about may just have been taken away by somebody.
        assert answer.status_code in (200, 201, 409), answer.text
        assert answer.status_code != 409 or "values" not in edit, answer.text

    async def _append_update(self) -> None:
        doc: Doc[Any] = Doc()
        answer = await self.client.get(DOCUMENT)
        assert answer.status_code in (200, 404), answer.text
        if answer.status_code == 200:
            doc.apply_update(answer.content)
        had = doc.get_state()
        doc.get("text", type=Text).insert(0, "read and written. ")
        doc.get("array", type=Array).insert(0, self._next())
        doc.get("map", type=Map)["by program"] = len(self.put)
        answer = await self.client.post(
            DOCUMENT, content=doc.get_update(had), headers={"Content-Type": "application/octet-stream"}
        )
        assert answer.status_code in (200, 201), answer.text


async def edit_at_once(everyone: dict[str, Editor], backend: Backend, seed: int, count: int) -> set[str]:
    """All of them until each is done; some leave and come back. What was put into the array."""
    dice = random.Random(seed)
    editing = [
        asyncio.create_task(
            editor.ask("editRandomly", seed=dice.randrange(2**30), count=count, pauseMsMax=PAUSE_MS_MAX, timeout_s=120)
        )
        for editor in everyone.values()
    ]
    others = asyncio.gather(backend.edit_randomly(count), _come_and_go(everyone, dice))
    put = set(backend.put)
    for done in await asyncio.gather(*editing):
        put |= set(done["put"])
    await others
    return put | set(backend.put)


async def _come_and_go(everyone: dict[str, Editor], dice: random.Random) -> None:
    # Durable Streams' provider does not send what was edited while it was away.
    for name in dice.sample(["y-websocket", "hocuspocus", "electric", "electric events"], 3):
        await asyncio.sleep(dice.random() * 0.3)
        editor = everyone[name]
        await editor.disconnect()
        await asyncio.sleep(dice.random() * 0.3)
        await editor.connect()


async def exported(service: Service, database_url: str, folder: Path) -> bytes:
    target = folder / "notes.bin"
    ended = await run(*STORE, "export", NAME, "-o", str(target), "--database-url", database_url)
    assert ended.exit_code == 0, ended.messages
    return target.read_bytes()


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 40), *(pytest.param(seed, 300, marks=pytest.mark.long) for seed in range(2, 12))]
)
async def test_a_document_that_is_edited_in_five_ways_at_once_ends_equal_everywhere(
    service: Service,
    editors: Editors,
    backend: httpx.AsyncClient,
    database_url: str,
    tmp_path: Path,
    seed: int,
    count: int,
) -> None:
    everyone = await open_all(service, editors)
    program = Backend(backend, seed)
    put = await edit_at_once(everyone, program, seed, count)
    for name in ("electric", "electric events"):
        await everyone[name].ask("untilSent", timeout_s=60)
    await editors.show_the_same(*everyone.values(), timeout_s=60)
    content = (await everyone["y-websocket"].ask("content"))["content"]
    assert sorted(content["array"]["items"]) == sorted(put), "everybody's, each once"

    judge = await editors.open(service.url, "elsewhere", connect=False)
    await judge.apply(await exported(service, database_url, tmp_path))
    stored = (await judge.ask("content"))["content"]
    assert {root: stored[root] for root in ("text", "map", "array")} == {
        root: content[root] for root in ("text", "map", "array")
    }
    ended = await verify(database_url)
    assert ended.exit_code == 0, ended.messages
    async with connecting(database_url) as connection:
        compactions = await connection.fetchval("SELECT count(*) FROM ydoc.segments")
    assert compactions >= 3, "compactions came in between"


async def test_everybody_sees_who_else_is_there_whatever_way_they_came(service: Service, editors: Editors) -> None:
    everyone = await open_all(service, editors)
    shows = {name: {"user": {"name": name}} for name in everyone}
    for name, editor in everyone.items():
        await editor.ask("setPresence", presence=shows[name])
    for name, editor in everyone.items():
        await editor.shows_others(*(shown for other, shown in shows.items() if other != name))
    await everyone["electric"].disconnect()
    await everyone["y-websocket"].disconnect()
    left = [name for name in everyone if name not in ("electric", "y-websocket")]
    for name in left:
        await everyone[name].shows_others(*(shows[other] for other in left if other != name))
