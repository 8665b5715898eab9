"""Documents are listed as far as a token reaches, page by page, and imported many at once."""

from __future__ import annotations

import asyncio
import base64
import re
import tracemalloc
from typing import Any

import httpx
import orjson
import pytest
from pycrdt import Doc, Text

from tests.sites import running_site
from tests.tokens import SECRET, token
from ydoc_store.http import document_lists
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.yjs.merge import EMPTY_UPDATE

LIST = "/v1/documents"
BATCH = "/v1/documents:batch"


def update_of(text: str) -> str:
    document: Doc[Text] = Doc()
    document["text"] = Text(text)
    return base64.b64encode(document.get_update()).decode()


async def begin(client: httpx.AsyncClient, *names: str) -> None:
    answer = await client.post(BATCH, json=[{"name": name, "update": update_of(name)} for name in names])
    assert [item["status"] for item in answer.json()] == [201] * len(names)


async def pages(client: httpx.AsyncClient, **params: Any) -> list[list[str]]:
    """The names on each page, following the cursors."""
    found = []
    while True:
        answer = (await client.get(LIST, params=params)).json()
        found.append([document["name"] for document in answer["documents"]])
        if answer["next_cursor"] is None:
            return found
        params["cursor"] = answer["next_cursor"]


async def test_a_list_tells_sizes_and_times(client: httpx.AsyncClient) -> None:
    await begin(client, "notes")
    told = (await client.get(LIST)).json()
    (document,) = told["documents"]
    assert told["next_cursor"] is None
    assert document["etag"] == (await client.head("/v1/documents/notes")).headers["etag"]
    assert (document["name"], document["epoch"], document["seq"]) == ("notes", 1, 1)
    assert document["size_bytes"] > 0
    assert document["created_at"] <= document["changed_at"]
    assert document["deleted_at"] is None


async def test_a_list_comes_in_pages_in_the_order_of_the_names_bytes(client: httpx.AsyncClient) -> None:
    await begin(client, "b", "a/1", "ä", "Z", "a/2", "\U0010ffff", "\uffff")
    assert await pages(client, limit=3) == [["Z", "a/1", "a/2"], ["b", "ä", "\uffff"], ["\U0010ffff"]]
    assert await pages(client, prefix="a/", limit=1) == [["a/1"], ["a/2"], []]
    assert await pages(client, prefix="\U0010ffff") == [["\U0010ffff"]]
    assert await pages(client, prefix="\ud7ff") == [[]]
    assert await pages(client, prefix="c") == [[]]


async def test_deleted_documents_are_listed_when_asked_for(client: httpx.AsyncClient) -> None:
    await begin(client, "a", "b")
    await client.delete("/v1/documents/a")
    assert await pages(client) == [["b"]]
    assert await pages(client, deleted="true") == [["a", "b"]]


async def test_a_list_that_cannot_be_asked_for_is_refused(client: httpx.AsyncClient) -> None:
    limits = ["limit=0", "limit=1001", "limit=x", "limit=²"]
    cursors = [f"cursor={cursor}" for cursor in ("x", "99", "99-01234567", "9" * 30 + "-01234567", "9" * 5_000)]
    for query in (*limits, *cursors, "deleted=yes", "page=2"):
        refused = await client.get(f"{LIST}?{query}")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query


async def test_a_list_shows_what_its_token_reaches_and_no_cursor_holds_a_name(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_lists, "PAGE_MAX", 2)
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(documents={"*": "write"})) as client:
            await begin(client, *(f"team{team}/{number}" for team in range(3) for number in range(3)), "public", "zoo")
        async with site.client(token(documents={"team1/*": "read", "public": "write"})) as client:
            assert await pages(client, limit=2) == [["public", "team1/0"], ["team1/1", "team1/2"], []]
            assert await pages(client, prefix="team1/") == [["team1/0", "team1/1", "team1/2"]]
            assert await pages(client, prefix="zoo") == [[]]
            cursor = (await client.get(LIST, params={"limit": 1})).json()["next_cursor"]
            assert re.fullmatch("[0-9]+-[0-9a-f]{8}", cursor)
        async with site.client(token(documents={"team2/*": "admin"})) as client:
            assert await pages(client, prefix="team") == [["team2/0", "team2/1", "team2/2"]]
            assert await pages(client, prefix="team1") == [[]]
        monkeypatch.setattr(document_lists, "LOOKED_THROUGH_MAX", 4)
        async with site.client(token(documents={"public": "read", "zoo": "read"})) as client:
            assert await pages(client) == [["public"], [], ["zoo"]]
        async with site.client(token(documents={})) as client:
            assert (await client.get(LIST)).status_code == 403
        async with site.client() as client:
            assert (await client.get(LIST)).status_code == 401


async def test_a_cursor_of_another_tenant_is_none(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(tenant="one")) as client:
            await begin(client, "a", "b")
            cursor = (await client.get(LIST, params={"limit": 1})).json()["next_cursor"]
        async with site.client(token(tenant="two")) as client:
            assert (await client.get(LIST, params={"cursor": cursor})).status_code == 400


async def test_a_page_behind_a_document_that_was_renamed_leaves_nothing_out_unsaid(client: httpx.AsyncClient) -> None:
    await begin(client, "a", "b", "c")
    cursor = (await client.get(LIST, params={"limit": 1})).json()["next_cursor"]
    assert (await client.post("/v1/documents/a/rename", json={"name": "z"})).status_code == 200
    refused = await client.get(LIST, params={"limit": 1, "cursor": cursor})
    assert (refused.status_code, refused.json()["code"]) == (410, "cursor_expired")


async def test_a_document_whose_access_was_taken_back_is_not_listed(database_url: str) -> None:
    admin = token(documents={"*": "admin"}, iat=1_000_000_000)
    async with running_site(database_url, jwt_secret=SECRET) as site, site.client(admin) as client:
        await begin(client, "a", "b")
        await client.post("/v1/revocations", json={"document": "a", "before": 1_500_000_000})
        await site.service.authorizer.revocations.refresh(site.database, 10**9)
        assert await pages(client) == [["b"]]


# Import


async def test_many_documents_are_imported_in_one_call(client: httpx.AsyncClient) -> None:
    names = [f"imported/{number}" for number in range(200)]
    await begin(client, *names)
    assert [len(page) for page in await pages(client, prefix="imported/", limit=50)] == [50, 50, 50, 50, 0]
    text = await client.get("/v1/documents/imported%2F7/content?as=text&root=text")
    assert text.text == "imported/7"


async def test_each_item_of_an_import_has_its_own_answer(client: httpx.AsyncClient) -> None:
    await begin(client, "there", "gone")
    await client.delete("/v1/documents/gone")
    items: list[tuple[Any, int, str | None]] = [
        ({"name": "new", "update": update_of("x"), "if_absent": True}, 201, None),
        ({"name": "there", "update": update_of("x")}, 200, None),
        ({"name": "there", "update": update_of("x"), "if_absent": True}, 412, "condition_failed"),
        ({"name": "gone", "update": update_of("x")}, 410, "document_deleted"),
        ({"name": "a//b", "update": update_of("x")}, 400, "invalid_name"),
        ({"name": "other", "update": "AQ=="}, 400, "invalid_update"),
        ({"name": "other", "update": base64.b64encode(EMPTY_UPDATE).decode()}, 404, "no_such_document"),
        ({"name": "other", "update": "!"}, 400, "invalid_request"),
        ({"name": "other", "update": ""}, 400, "invalid_request"),
        ({"name": "other"}, 400, "invalid_request"),
        ({"name": "other", "update": update_of("x"), "more": 1}, 400, "invalid_request"),
        ({"name": "other", "update": update_of("x"), "if_absent": 1}, 400, "invalid_request"),
        ({"name": "other", "update": update_of("x"), "key": ""}, 400, "invalid_request"),
        (["other"], 400, "invalid_request"),
        (None, 400, "invalid_request"),
    ]
    told = (await client.post(BATCH, json=[item for item, _, _ in items])).json()
    assert [(one["status"], one.get("code")) for one in told] == [(status, code) for _, status, code in items]
    assert [one["name"] for one in told[:2]] == ["new", "there"]
    assert told[0]["etag"] == (await client.head("/v1/documents/new")).headers["etag"]
    assert (await client.get("/v1/documents/other")).status_code == 404


async def test_items_of_one_document_are_stored_in_their_order(client: httpx.AsyncClient) -> None:
    """Also where one of them is so large that it is looked through elsewhere while others pass by."""
    large = update_of("x" * 2 * INLINE_BYTES_MAX)
    updates = [large, *(update_of(str(number)) for number in range(40)), large]
    items = [{"name": name, "update": update} for update in updates for name in ("a", "b")]
    told = (await client.post(BATCH, json=items)).json()
    for name in ("a", "b"):
        assert [one["seq"] for one in told if one["name"] == name][:-1] == list(range(1, len(updates)))
    # What is in there already takes no seq of its own.
    assert [one["is_new"] for one in told[-2:]] == [False, False]


async def test_the_first_item_of_a_document_may_begin_it_for_the_next(client: httpx.AsyncClient) -> None:
    begun: dict[str, Any] = {"name": "a", "update": update_of("x"), "if_absent": True}
    items = [begun, {"name": "a", "update": update_of("y")}, begun]
    told = (await client.post(BATCH, json=items)).json()
    assert [one["status"] for one in told] == [201, 200, 412]


async def test_an_item_for_an_absent_document_does_not_fill_one_that_was_begun_empty(client: httpx.AsyncClient) -> None:
    """Nothing was ever accepted for it, and yet it is there: as a PUT is told."""
    assert (await client.put("/v1/yjs/default/docs/empty")).status_code == 201
    item = {"name": "empty", "update": update_of("x"), "if_absent": True}
    (told,) = (await client.post(BATCH, json=[item])).json()
    assert (told["status"], told["code"]) == (412, "condition_failed")
    assert (await client.get("/v1/documents/empty/statistics")).json()["seq"] == 0


def test_lines_that_hold_nothing_take_no_memory() -> None:
    body = b"\n" * 8 * 2**20
    tracemalloc.start()
    assert document_lists.items_of(body, is_lines=True) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


async def test_an_import_may_come_as_lines(client: httpx.AsyncClient) -> None:
    items = [{"name": name, "update": update_of(name)} for name in ("a", "b")]
    body = b"\n".join(orjson.dumps(item) for item in items) + b"\n\n"
    answer = await client.post(BATCH, content=body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [orjson.loads(line)["status"] for line in answer.text.splitlines()] == [201, 201]


async def test_an_import_that_is_repeated_with_its_keys_is_stored_once(client: httpx.AsyncClient) -> None:
    items = [{"name": "a", "update": update_of("x"), "key": str(number)} for number in range(3)]
    first = await client.post(BATCH, json=items)
    second = await client.post(BATCH, json=items)
    assert first.content == second.content
    assert (await client.get("/v1/documents/a/statistics")).json()["seq"] == 3


async def test_an_import_takes_no_key_for_all_of_its_items(client: httpx.AsyncClient) -> None:
    items = [{"name": "a", "update": update_of("x")}]
    refused = await client.post(BATCH, json=items, headers={"Idempotency-Key": "1"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert await pages(client) == [[]]


async def test_an_import_that_is_none_is_refused_as_a_whole(client: httpx.AsyncClient) -> None:
    for body, content_type, status in (
        (b"{}", "application/json", 400),
        (b"[", "application/json", 400),
        (b'{"name":\n', "application/x-ndjson", 400),
        (b"[" + b",".join([b"1"] * 1_001) + b"]", "application/json", 413),
        (b"1\n" * 1_001, "application/x-ndjson", 413),
        (b"[]", "text/plain", 415),
    ):
        refused = await client.post(BATCH, content=body, headers={"Content-Type": content_type})
        assert refused.status_code == status, body[:20]


async def test_an_import_may_do_what_its_token_may(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as guarded:
        items = [{"name": name, "update": update_of("x")} for name in ("mine", "seen", "other")]
        async with guarded.client(token(documents={"mine": "write", "seen": "read"})) as client:
            told = (await client.post(BATCH, json=items)).json()
        assert [one["status"] for one in told] == [201, 403, 403]
        async with guarded.client() as client:
            assert (await client.post(BATCH, json=items)).status_code == 401


async def test_an_import_counts_once_against_its_addresss_limits(database_url: str) -> None:
    limits = {"address_bytes_per_s": 100_000, "limit_burst_s": 1, "trusted_proxies": "127.0.0.1"}
    async with running_site(database_url, jwt_secret=SECRET, **limits) as site, site.client(token()) as client:
        items = [{"name": str(number), "update": update_of("x" * 500)} for number in range(100)]
        # Counted with each item, this would wait for more than a minute.
        async with asyncio.timeout(30):
            told = (await client.post(BATCH, json=items, headers={"X-Forwarded-For": "192.0.2.1"})).json()
    assert {one["status"] for one in told} == {201}
