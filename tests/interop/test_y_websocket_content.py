"""What a stock `y-websocket` client may call a room, and every kind of content in it, on one running service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.interop.editors import Editors, editing
from tests.service import Service, serving
from tests.stored import connecting, names

if TYPE_CHECKING:
    from tests.stored import Connection

# Each test has rooms of its own; starting a service for each would take most of the time.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with serving(tmp_path_factory.mktemp("service"), database_url=module_database_url) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def editors() -> AsyncIterator[Editors]:
    async with editing() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def stored(module_database_url: str) -> AsyncIterator[Connection]:
    async with connecting(module_database_url) as connection:
        yield connection


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("team/2024/minutes", "team/2024/minutes"),
        ("with spaces in it", "with spaces in it"),
        ("naïve/日本語 😀", "naïve/日本語 😀"),
        ("100%", "100%"),
        ("50%25", "50%"),
        ("a+b&c=d;e", "a+b&c=d;e"),
        ("%E6%97%A5", "日"),
    ],
)
async def test_a_room_is_named_as_a_stock_client_names_it(
    service: Service, editors: Editors, stored: Connection, room: str, name: str
) -> None:
    ann = await editors.open_synced(service.url, room, params={"token": "a b&c"})
    ben = await editors.open_synced(service.url, room)
    before = await names(stored)
    await ann.type("here")
    await ben.shows("here")
    assert await names(stored) - before == {name}


@pytest.mark.parametrize("room", ["a//b", "x" * 513, "a/..%2fb", "%00", "%ff"])
async def test_a_name_outside_the_rule_stops_the_client_with_a_reason(
    service: Service, editors: Editors, stored: Connection, room: str
) -> None:
    before = await names(stored)
    ann = await editors.open(service.url, room)
    stopped = await ann.ask("untilStopped")
    assert stopped["code"] == 4400
    assert "name" in stopped["reason"]
    assert await names(stored) == before


async def test_every_kind_of_content_travels(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "kinds travel")
    ben = await editors.open_synced(service.url, "kinds travel")
    await ann.ask("everyKind")
    await editors.show_the_same(ann, ben)
    late = await editors.open_synced(service.url, "kinds travel")
    await editors.show_the_same(ann, ben, late)
    content = (await late.ask("content"))["content"]
    assert content["map"]["entries"]["subdocument"] == {"meta": {"title": "ä"}, "subdocument": "the-guid"}
    assert content["map"]["entries"]["bytes"] == {"binary": "AAEC/v8="}
    assert content["map"]["entries"]["big"] == {"bigint": "9007199254740993"}


async def test_every_kind_of_content_reaches_an_editor_that_comes_back(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "kinds come back")
    ben = await editors.open_synced(service.url, "kinds come back")
    await ann.type("here since before")
    await editors.show_the_same(ann, ben)
    await ann.disconnect()
    await ben.ask("everyKind")
    await editors.show_the_same(await editors.open(service.url, "kinds come back"), ben)
    await ann.connect()
    await editors.show_the_same(ann, ben)


@pytest.mark.parametrize("seed", range(100, 112))
async def test_random_histories_of_several_people_travel(service: Service, editors: Editors, seed: int) -> None:
    ann = await editors.open_synced(service.url, f"history {seed}")
    ben = await editors.open_synced(service.url, f"history {seed}")
    await ann.ask("applyHistory", seed=seed)
    await editors.show_the_same(ann, ben)
    late = await editors.open_synced(service.url, f"history {seed}")
    await editors.show_the_same(ann, ben, late)
