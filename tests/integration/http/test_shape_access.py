"""Who is there, and who may, at `/v1/shape`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.integration.http.shape_reader import UPDATES, Shape, events, has_reader, shown
from tests.integration.relay.test_contribution import typed
from tests.nodes import Editor
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs.awareness import AwarenessEntry

# Presence


async def test_presence_is_shared_with_editors_both_ways_and_its_end_is_a_null(
    site: Site, client: httpx.AsyncClient
) -> None:
    reader = Shape(client, "awareness")
    await reader.read()
    ann = await Editor.open_synced(site.url("notes"))
    await ann.show(1, '{"user":{"name":"Ann"}}', client_id=7)
    await reader.live()
    assert reader.present[7].state_json == '{"user":{"name":"Ann"}}'
    assert (await reader.put(shown(9, 1, '{"user":{"name":"Ben"}}'))).status_code == 204
    await ann.sees(9, '{"user":{"name":"Ben"}}')
    newcomer = Shape(client, "awareness")
    await newcomer.read()
    assert {client_id: entry.state_json is None for client_id, entry in newcomer.present.items()} == {
        7: False,
        9: False,
    }
    await ann.leave()
    while 7 not in reader.present or reader.present[7].state_json is not None:
        await reader.live()
    assert {row["headers"]["operation"] for row in reader.rows} == {"update"}
    await reader.put(shown(9, 2, None))
    while reader.present[9].state_json is not None:
        await reader.live()


async def test_a_guest_who_is_not_renewed_is_gone(database_url: str) -> None:
    async with running_site(database_url) as site, site.client() as client:
        reader = Shape(client, "awareness")
        await reader.put(shown(9, 1))
        await reader.read()
        site.service.rooms.attendance.expire(10**9)
        await reader.live()
    assert reader.present[9] == AwarenessEntry(9, 2, None)


async def test_a_reader_from_another_node_is_not_answered_again_and_again(quick: Site) -> None:
    """It would go to and fro between two nodes without a pause."""
    async with quick.client() as client:
        reader = Shape(client, "awareness")
        await reader.read()
        await reader.put(shown(9, 1))
        await reader.live()
        assert list(reader.present) == [9], "from another life of the room on this node: at once"
        reader.present.clear()
        reader.handle, reader.offset = "presence-0123456789ab-0123456789ab", "4711_0"
        began_s = asyncio.get_running_loop().time()
        await reader.live()
        assert asyncio.get_running_loop().time() - began_s > 0.2
        assert list(reader.present) == [9], "everyone, once its wait is over"
        reader.handle, reader.offset = "presence-0123456789ab-0123456789ab", "4711_0"
        waiting = asyncio.create_task(reader.live())
        await reader.put(shown(8, 1))
        await waiting
    assert set(reader.present) == {8, 9}


async def test_events_bring_presence_too(client: httpx.AsyncClient) -> None:
    reader = Shape(client, "awareness")
    await reader.put(shown(9, 1))
    await reader.read()
    async with events(client, reader) as messages:
        await reader.put(shown(9, 2, '{"at":2}'))
        reader.take([await anext(messages)])
    assert reader.present[9].state_json == '{"at":2}'


# Who may


@pytest.fixture
async def guarded(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url, jwt_secret=SECRET, origins="https://app.example.com") as site:
        yield site


async def test_nobody_reads_or_writes_without_a_token_and_readers_only_read(guarded: Site) -> None:
    async with guarded.client() as client:
        for method in ("GET", "PUT"):
            assert (await client.request(method, "/v1/shape", params=UPDATES)).status_code == 401
    async with guarded.client(token(documents={"notes": "read"})) as client:
        shape = Shape(client)
        await shape.read()
        assert (await shape.put(typed("x"))).status_code == 403
        # Where this is refused a stock provider stops reading as well.
        assert (await Shape(client, "awareness").put(shown(9, 1))).status_code == 204
        assert (await shape.ask(**{"params[1]": "other"})).status_code == 403
    async with guarded.client() as client:
        assert (await client.get("/v1/shape", params={**UPDATES, "token": token()})).status_code == 200


async def test_presence_says_whose_it_is(guarded: Site) -> None:
    async with guarded.client(token("ann", name="Ann")) as client:
        reader = Shape(client, "awareness")
        await reader.put(shown(9, 1, '{"user":{"id":"ben","name":"Ben"}}'))
        await reader.read()
    assert json.loads(reader.present[9].state_json or "") == {"user": {"id": "ann", "name": "Ann"}}


@pytest.mark.parametrize("awareness", ["off", "write"])
async def test_presence_that_may_not_be_shown_is_dropped_and_nothing_else_stops(
    database_url: str, awareness: str
) -> None:
    async with (
        running_site(database_url, jwt_secret=SECRET, awareness=awareness) as site,
        site.client(token(documents={"notes": "read"})) as client,
    ):
        reader = Shape(client, "awareness")
        assert (await reader.put(shown(9, 1))).status_code == 204
        await reader.read()
    assert reader.present == {}


@pytest.mark.parametrize("way", [{"live": "true"}, {"live": "true", "live_sse": "true"}], ids=["long-poll", "events"])
async def test_whoever_waits_is_cut_off_when_their_access_is_taken_back(guarded: Site, way: dict[str, str]) -> None:
    async with guarded.client(token()) as client:
        shape = Shape(client)
        await shape.put(typed("a"))
        await shape.read()
        waiting = asyncio.create_task(shape.ask(**way))
        await has_reader(guarded)
        began_s = asyncio.get_running_loop().time()
        await insert_revocation(guarded.database, "default", "user", "ann", None, lifetime_s_max=86_400)
        answer = await waiting
        assert asyncio.get_running_loop().time() - began_s < 20, "5 s on a quiet machine"
        # A stock client stops at a 401, though its next request may bring a new token: that one is told.
        assert answer.status_code == 200
        assert b"insert" not in answer.content
        assert (await shape.ask(**way)).status_code == 401
        client.headers["Authorization"] = f"Bearer {token('ben')}"
        await shape.read()


@pytest.mark.parametrize("table", ["updates", "awareness"])
async def test_whoever_waits_is_answered_at_once_when_this_server_stops(site: Site, table: str) -> None:
    async with site.client() as client:
        shape = Shape(client, table)
        await shape.put(shown(9, 1) if table == "awareness" else typed("a"))
        await shape.read()
        polling = asyncio.create_task(shape.ask(live="true"))
        streaming = asyncio.create_task(shape.ask(live="true", live_sse="true"))
        await has_reader(site, 2)
        site.phase.draining()
        for answer in (await polling, await streaming):
            assert answer.status_code in (200, 503)
        assert (await polling).status_code == 503
        assert (await polling).headers["retry-after"] == "1"


async def test_a_page_of_an_allowed_origin_reads_the_headers_that_the_client_needs(guarded: Site) -> None:
    page = {"Origin": "https://app.example.com"}
    async with guarded.client(token()) as client:
        answer = await client.get("/v1/shape", params=UPDATES, headers=page)
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {name for name in answer.headers if name.startswith("electric-")} <= exposed
        assert "electric-cursor" in exposed
        asks = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
        assert (await client.options("/v1/shape", params=UPDATES, headers=asks)).status_code == 204
        assert (
            await client.get("/v1/shape", params=UPDATES, headers={"Origin": "https://evil.example.com"})
        ).status_code == 403
