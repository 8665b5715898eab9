"""The feed's window passes while it is followed: who keeps up goes on, who is overtaken is told, nobody has a gap."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx
import pytest

from compactor import retention
from compactor.retention import Retention
from tests.integration.http.test_changes import CHANGES, read, read_all, settled, write
from tests.integration.http.test_document_list import LIST, Reader
from tests.sites import Site
from ydoc_store.storage.commits import drop_outlived

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

AGE = "UPDATE ydoc.commits SET at = at - interval '8 days', writer = pg_current_xact_id()::xid"
KEPT = 20


@pytest.fixture
def small_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compactor's passes follow each other, bite by bite of a few rows."""
    monkeypatch.setattr(retention, "ROWS_MAX", 10)
    monkeypatch.setattr(retention, "PIECE_S", 0)
    monkeypatch.setattr(retention, "PASS_INTERVAL_S", 0)
    monkeypatch.setitem(drop_outlived.__kwdefaults__, "keep_newest", KEPT)


@pytest.mark.usefixtures("small_bites")
async def test_a_follower_that_keeps_up_goes_on_and_one_that_is_overtaken_is_told_and_begins_again(
    site: Site, client: httpx.AsyncClient, connection: Connection
) -> None:
    await write(site, "old", 120)
    await settled(site)
    await connection.execute(AGE)
    behind = [(await read(client, limit=3))[1]["cursor"]]
    offset = (await client.get(LIST, params={"offset": "now"})).headers["stream-next-offset"]
    level = (await read_all(client))[-1]["cursor"]
    passing = Retention(site.database, history_days=7, bases_min=1)
    keeping_up: list[int] = []
    overtaken: list[int] = [1, 2]
    followed = asyncio.create_task(follow(client, level, keeping_up, 40))
    for number in range(1, 41):
        await write(site, f"new {number}")
        await passing.drop_some()
        answer = await client.get(CHANGES, params={"after": behind[-1], "limit": 3})
        if answer.status_code == 410:
            break
        lines = [httpx.Response(200, content=line).json() for line in answer.text.splitlines()]
        overtaken += [line["seq"] for line in lines if line["type"] == "append"]
        behind.append(lines[-1]["cursor"])
    else:
        raise AssertionError("never overtaken")
    assert answer.json()["code"] == "cursor_expired"
    assert overtaken == list(range(1, len(overtaken) + 1)), "passed by something"
    assert len(overtaken) < 120
    for left in range(number + 1, 41):
        await write(site, f"new {left}")
        await passing.drop_some()
    await followed
    assert keeping_up == list(range(1, 41))
    await settled(site)
    # As README says: a place, what there is, and on from there.
    place = (await read(client, after="now"))[1]["cursor"]
    await write(site, "later")
    await settled(site)
    assert [change["document"] for change in await read_all(client, after=place)] == ["later", "later"]
    # The list's offset stood at the end of what is gone by now, and the newest of that time went with it.
    assert (await client.get(LIST, params={"offset": offset})).status_code == 410
    assert len(await Reader(client).catch_up()) == 42


async def follow(client: httpx.AsyncClient, cursor: str, numbers: list[int], count: int) -> None:
    """The numbers of the new documents as they are told, until so many are."""
    while len(numbers) < count:
        changes, checkpoint = await read(client, after=cursor, wait_s=30)
        numbers += [int(change["document"].split()[1]) for change in changes if change["type"] == "created"]
        cursor = checkpoint["cursor"]
