"""I19: the live list of documents, read as any JSON stream: what is there first, then what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from tests.integration.http.test_changes import asked_again, events, following, settled, write
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.errors import InvalidRequest
from ydoc_store.http import document_list
from ydoc_store.http.document_list import begun_or_not, read_offset, write_listing_offset
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.epochs import delete_document, recreate_document, undelete_document
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.pool import Database
from ydoc_store.storage.renaming import rename_document

LIST = "/v1/stream/documents"
WAIT_S = 60.0


class Reader:
    """Materializes the list as the State Protocol says, refusing what it does not allow."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.offset = "-1"
        self.documents: dict[str, dict[str, Any]] = {}
        self.operations: list[tuple[str, str]] = []

    def take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            operation = message["headers"]["operation"]
            assert message["type"] == "document"
            assert message["key"]
            self.operations.append((operation, message["key"]))
            if operation == "delete":
                assert "value" not in message
                self.documents.pop(message["key"], None)
            else:
                assert operation in ("insert", "update")
                assert message["value"]["name"] == message["key"]
                self.documents[message["key"]] = message["value"]

    async def get(self, parameters: dict[str, str]) -> httpx.Response:
        return await self.client.get(LIST, params=parameters, timeout=WAIT_S)

    async def ask(self, **parameters: str) -> httpx.Response:
        answer = await self.get({"offset": self.offset, **parameters})
        assert answer.status_code in (200, 204), answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.status_code == 200:
            self.take(answer.json())
        self.offset = answer.headers["stream-next-offset"]
        return answer

    async def catch_up(self) -> list[str]:
        """Read on until nothing more is there; the names in the list."""
        while "stream-up-to-date" not in (await self.ask()).headers:
            pass
        return sorted(self.documents)


async def test_the_list_begins_with_what_is_there_and_follows_what_becomes_of_it(
    site: Site, client: httpx.AsyncClient
) -> None:
    await write(site, "a", 2)
    await write(site, "gone")
    await delete_document(site.database, DEFAULT_TENANT, "gone")
    await settled(site)
    reader = Reader(client)
    assert await reader.catch_up() == ["a"]
    assert reader.operations == [("insert", "a")]
    assert reader.documents["a"].keys() == {"name", "epoch", "seq", "size_bytes", "created_at", "changed_at"}
    assert (reader.documents["a"]["seq"], reader.documents["a"]["epoch"]) == (2, 1)
    size = reader.documents["a"]["size_bytes"]

    await write(site, "b")
    await settled(site)
    assert await reader.catch_up() == ["a", "b"]
    await site_appends(site, "a", 3)
    assert await reader.catch_up() == ["a", "b"]
    assert reader.documents["a"]["seq"] == 5
    assert reader.documents["a"]["size_bytes"] > size
    await delete_document(site.database, DEFAULT_TENANT, "a")
    await settled(site)
    assert await reader.catch_up() == ["b"]
    await undelete_document(site.database, DEFAULT_TENANT, "a")
    await settled(site)
    assert await reader.catch_up() == ["a", "b"]
    await delete_document(site.database, DEFAULT_TENANT, "a")
    await recreate_document(site.database, DEFAULT_TENANT, "a")
    await settled(site)
    assert await reader.catch_up() == ["a", "b"]
    assert (reader.documents["a"]["epoch"], reader.documents["a"]["seq"]) == (2, 0)
    assert reader.operations[1:] == [
        ("insert", "b"),
        ("update", "a"),
        ("delete", "a"),
        ("insert", "a"),
        ("insert", "a"),
    ]


async def site_appends(site: Site, name: str, count: int) -> None:
    await write(site, name, count)
    await settled(site)


async def test_a_renamed_document_leaves_under_one_name_and_comes_under_the_other(
    site: Site, client: httpx.AsyncClient
) -> None:
    await write(site, "before")
    await settled(site)
    reader = Reader(client)
    await reader.catch_up()
    await rename_document(site.database, DEFAULT_TENANT, "before", "behind")
    await settled(site)
    assert await reader.catch_up() == ["behind"]


async def test_a_long_list_comes_in_pages_and_misses_nothing_that_happens_meanwhile(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_list, "DOCUMENTS_A_PAGE", 4)
    names = [f"doc {number:02}" for number in range(10)]
    for name in names:
        await write(site, name)
    await settled(site)
    reader = Reader(client)
    offsets = []
    answer = await reader.ask()
    assert "stream-up-to-date" not in answer.headers
    offsets.append(reader.offset)
    # Of a page that was read, of one that is to come, and a new one before both.
    await delete_document(site.database, DEFAULT_TENANT, names[1])
    await delete_document(site.database, DEFAULT_TENANT, names[8])
    await write(site, "doc 00a")
    await settled(site)
    while "stream-up-to-date" not in (await reader.ask()).headers:
        offsets.append(reader.offset)
    offsets.append(reader.offset)
    assert sorted(reader.documents) == sorted([*names, "doc 00a"][:1] + names[2:8] + names[9:] + ["doc 00a"])
    assert len(offsets) == 3
    assert offsets == sorted(offsets), "offsets sort as text"
    # Each of them is a place to come back to.
    for offset in offsets[:-1]:
        again = Reader(client)
        again.offset = offset
        await again.catch_up()
        assert again.offset == reader.offset


async def test_now_is_behind_the_list(site: Site, client: httpx.AsyncClient) -> None:
    await write(site, "a")
    await settled(site)
    reader = Reader(client)
    reader.offset = "now"
    assert await reader.catch_up() == []
    head = await client.head(LIST)
    assert (head.status_code, head.headers["stream-next-offset"]) == (200, reader.offset)
    await write(site, "b")
    await settled(site)
    assert await reader.catch_up() == ["b"]


async def test_a_poll_waits_for_news_and_ends_without_any(database_url: str) -> None:
    async with running_site(database_url, long_poll_timeout_s=0.2) as site, site.client() as client:
        reader = Reader(client)
        await reader.catch_up()
        answer = await reader.ask(live="long-poll")
        assert answer.status_code == 204
        assert answer.headers["stream-up-to-date"] == "true"
        assert answer.headers["stream-cursor"]
    async with running_site(database_url) as site, site.client() as client:
        reader = Reader(client)
        await reader.catch_up()
        poll = asyncio.create_task(reader.ask(live="long-poll"))
        await following(site, 1)
        await write(site, "a")
        assert (await poll).status_code == 200
        assert sorted(reader.documents) == ["a"]


async def test_events_bring_the_list_and_its_news_each_with_where_to_go_on(
    site: Site, client: httpx.AsyncClient
) -> None:
    await write(site, "a")
    await settled(site)
    reader = Reader(client)
    async with client.stream("GET", LIST, params={"offset": "-1", "live": "sse"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer)
        data, control = await anext(stream), await anext(stream)
        assert (data["event"], control["event"]) == ("data", "control")
        reader.take(orjson.loads(data["data"]))
        assert orjson.loads(control["data"])["upToDate"]
        await write(site, "b")
        while "b" not in reader.documents:
            event = await anext(stream)
            if event["event"] == "data":
                reader.take(orjson.loads(event["data"]))
    reader.offset = orjson.loads(control["data"])["streamNextOffset"]
    await settled(site)
    assert await reader.catch_up() == ["a", "b"]


async def test_a_drain_ends_those_who_wait(site: Site, client: httpx.AsyncClient) -> None:
    reader = Reader(client)
    await reader.catch_up()
    poll = asyncio.create_task(reader.ask(live="long-poll"))
    await following(site, 1)
    site.phase.draining()
    assert (await poll).status_code == 204


async def test_a_token_lists_what_it_may_read_of_its_own_tenant(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        for tenant in ("one", "two"):
            await write(site, f"team/{tenant}", tenant=tenant)
            await write(site, "secret", tenant=tenant)
            await settled(site, tenant)
        async with site.client(token(documents={"team/*": "read"}, tenant="one")) as client:
            reader = Reader(client)
            assert await reader.catch_up() == ["team/one"]
            for name in ("team/later", "secret"):
                await write(site, name, tenant="one")
            await settled(site, "one")
            assert await reader.catch_up() == ["team/later", "team/one"]
        async with site.client(token(tenant="two")) as client:
            assert (await client.get(LIST, params={"offset": reader.offset})).status_code == 410
        async with site.client() as client:
            assert (await client.get(LIST)).status_code == 401


async def test_nobody_writes_to_it(client: httpx.AsyncClient) -> None:
    for path in (LIST, LIST.replace("documents", "%64ocuments")):
        taken = await client.put(path, headers={"Content-Type": "application/json"})
        assert (taken.status_code, taken.json()["code"]) == (409, "name_reserved")
    for method in ("POST", "DELETE", "PATCH"):
        answer = await client.request(method, LIST, content=b"{}", headers={"Content-Type": "application/json"})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert (await client.options(LIST)).status_code == 204


async def test_after_a_restore_the_list_is_read_anew(site: Site, client: httpx.AsyncClient, database: Database) -> None:
    await write(site, "a")
    reader = Reader(client)
    await reader.catch_up()
    # Not over the site's own pool, which it drops when it hears of this.
    await bump_incarnation(database)
    answer = await asked_again(client, LIST, {"offset": reader.offset})
    assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")


@pytest.mark.parametrize(
    "parameters",
    [
        {"offset": "x"},
        {"offset": "1x"},
        {"offset": "0" + "0" * 77},
        {"offset": "0" + "0" * 77 + "_!"},
        {"offset": "0" + "0" * 77 + "_vv"},
        {"offset": "snapshot"},
        {"live": "sse"},
        {"offset": "-1", "live": "loud"},
        {"offset": "-1", "cursor": "x"},
        [("offset", "-1"), ("offset", "-1")],
    ],
)
async def test_what_makes_no_sense_is_refused(client: httpx.AsyncClient, parameters: Any) -> None:
    answer = await client.get(LIST, params=parameters)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize("name", ["a", "ab", "é", "a/b c", "x" * 512, "\U0010ffff"])
def test_an_offset_of_the_list_holds_any_name(name: str) -> None:
    assert read_offset(write_listing_offset("c", name)) == ("c", name)


@pytest.mark.parametrize("name", ["", "\0", "a/../b", "a\nb"])
def test_an_offset_of_the_list_that_holds_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        read_offset(write_listing_offset("c", name))


def test_offsets_of_the_list_sort_as_the_names_do() -> None:
    names = sorted(["a", "aa", "ab", "b", "é", "a/b", "Z", "~"], key=str.encode)
    assert [write_listing_offset("c", name) for name in names] == sorted(
        write_listing_offset("c", name) for name in names
    )


def test_a_page_without_changes_is_about_nothing() -> None:
    assert begun_or_not([]) == {}
