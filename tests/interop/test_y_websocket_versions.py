"""`y-websocket` 1, 2 and 3, as npm has them: 1 and 2 edit like 3, and know no close code that stops them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.interop.editors import Editor, Editors
from tests.interop.together import meet_and_type, part_and_merge
from tests.service import STORE, Service, run, serving
from tests.tokens import SECRET, token

OLDER = [1, 2]
# So long is looked on; without our waits they come back some fifty times meanwhile.
LOOKED_ON_S = 6.0
# At once, at once again, then after 0.5, 1, 2 and 4 s.
RETURNS_MAX = 6


@pytest.fixture(params=OLDER, ids=lambda version: f"version {version}")
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


async def test_it_edits_both_ways_and_offline_and_sees_who_is_there(
    service: Service, editors: Editors, version: int
) -> None:
    ann = await editors.open_synced(service.url, "team/notes", version=version)
    ben = await editors.open_synced(service.url, "team/notes", version=3)
    await meet_and_type(ann, ben)
    await part_and_merge(ann, ben)
    await service.kill()
    await ann.ask("untilCloses", count=2)
    await ann.type("!")
    await service.restart()
    await ben.shows("zero one two three!")


async def returns(editor: Editor, code: int) -> int:
    """How often it is sent away with this code while somebody looks on."""
    await editor.ask("untilCloses", count=1)
    began_s = time.monotonic()
    await asyncio.sleep(LOOKED_ON_S)
    closes = (await editor.ask("closes"))["closes"]
    print(f"{code}: {len(closes)} closes in {time.monotonic() - began_s:.1f} s")
    assert {close["code"] for close in closes} == {code}
    return len(closes)


async def test_whoever_is_refused_for_good_does_not_come_back_in_a_hot_loop(
    tmp_path: Path, database_url: str, editors: Editors, version: int
) -> None:
    """4401, 4403, 4404, 4409 and 4413, all at once; whoever else comes from there is not let wait."""
    environment = {"YDOC_JWT_SECRET": SECRET, "YDOC_UPDATE_BYTES_MAX": "4096"}
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:

        async def open_one(room: str, worth: str, **options: Any) -> Editor:
            return await editors.open(service.url, room, version=version, params={"token": worth}, **options)

        writes = token()
        deleted, repaired, large = [await open_one(room, writes) for room in ("deleted", "repaired", "large")]
        for editor in (deleted, repaired, large):
            await editor.synced()
        for room, editor in (("deleted", deleted), ("repaired", repaired)):
            for text in ("good", " bad"):
                await editor.type(text)
            watching = await open_one(room, writes)
            await watching.shows("good bad")
            await watching.destroy()
        for command in (("documents", "delete", "deleted"), ("repair", "repaired", "--to-seq", "1")):
            ended = await run(*STORE, *command, "--database-url", database_url)
            assert ended.exit_code == 0, ended.messages
        await large.ask("paste", seed="x", bytes=10_000, pieceBytes=10_000)
        counted = await asyncio.gather(
            returns(await open_one("notes", "no token"), 4401),
            returns(await open_one("notes", token(documents={"other": "write"})), 4403),
            returns(deleted, 4404),
            returns(repaired, 4409),
            returns(large, 4413),
        )
        assert max(counted) <= RETURNS_MAX
        began_s = time.monotonic()
        others = await open_one("large", token("ben"))
        await others.synced()
        assert time.monotonic() - began_s < LOOKED_ON_S


async def test_whoever_may_again_is_let_in_by_itself(
    tmp_path: Path, database_url: str, editors: Editors, version: int
) -> None:
    async with serving(tmp_path, database_url=database_url) as service:
        ann = await editors.open_synced(service.url, "notes", version=version)
        ben = await editors.open_synced(service.url, "notes")
        await ann.type("typed")
        await ben.shows("typed")
        for word in ("delete", "undelete"):
            ended = await run(*STORE, "documents", word, "notes", "--database-url", database_url)
            assert ended.exit_code == 0, ended.messages
            if word == "delete":
                assert (await ann.ask("untilCloses", count=2))["closes"][-1]["code"] == 4404
                await ann.type("!")
        back = await editors.open_synced(service.url, "notes")
        await back.shows("typed!")
