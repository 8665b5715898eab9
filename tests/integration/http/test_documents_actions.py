"""A document is copied, renamed, deleted, undeleted and, in the end, gone for good."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import httpx
import pytest

from compactor.farewell import Farewell
from tests.nodes import Editor
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.http import document_writing

DOC = "/v1/documents/notes"


async def begin(client: httpx.AsyncClient, name: str = "notes", text: str = "hello") -> httpx.Response:
    answer = await client.put(
        f"/v1/documents/{name}/content?as=text&root=text", content=text, headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 201
    return answer


async def text_of(client: httpx.AsyncClient, name: str = "notes") -> str:
    answer = await client.get(f"/v1/documents/{name}/content?as=text&root=text")
    return answer.text if answer.status_code == 200 else answer.json()["code"]


# Copy


async def test_a_copy_begins_with_the_content_and_goes_its_own_way(client: httpx.AsyncClient) -> None:
    await begin(client)
    copied = await client.post(DOC + "/copy", json={"name": "a/b"})
    assert (copied.status_code, copied.json()) == (201, {"name": "a/b", "epoch": 1, "seq": 1})
    assert copied.headers["location"] == "/v1/documents/a%2Fb"
    assert (await client.get("/v1/documents/a%2Fb")).headers["etag"] == copied.headers["etag"]
    await client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": "!"}]})
    assert (await text_of(client), await text_of(client, "a%2Fb")) == ("hello!", "hello")


async def test_a_copy_is_another_history(site: Site, client: httpx.AsyncClient) -> None:
    await begin(client)
    await client.post(DOC + "/copy", json={"name": "copy"})
    editor = await Editor.open_synced(site.url("notes"))
    await editor.leave()
    stranger = await Editor.open(site.url("copy"), editor.doc)
    assert (await stranger.closed())[0] == 4409


async def test_a_copy_is_made_exactly_once(client: httpx.AsyncClient) -> None:
    await begin(client)
    await begin(client, "taken", "other")
    refused = await client.post(DOC + "/copy", json={"name": "taken"})
    assert (refused.status_code, refused.json()["code"]) == (412, "condition_failed")
    headers = {"Idempotency-Key": "copy-it"}
    first = await client.post(DOC + "/copy", json={"name": "copy"}, headers=headers)
    await client.patch("/v1/documents/copy", json={"edits": [{"op": "append", "path": ["text"], "text": "!"}]})
    second = await client.post(DOC + "/copy", json={"name": "copy"}, headers=headers)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert await text_of(client, "copy") == "hello!"


async def test_a_copy_that_is_repeated_with_its_key_needs_its_source_no_more(client: httpx.AsyncClient) -> None:
    await begin(client)
    headers = {"Idempotency-Key": "copy-it"}
    first = await client.post(DOC + "/copy", json={"name": "copy"}, headers=headers)
    await client.delete(DOC)
    second = await client.post(DOC + "/copy", json={"name": "copy"}, headers=headers)
    assert (first.status_code, first.content) == (second.status_code, second.content) == (201, first.content)
    other = await client.post(DOC + "/copy", json={"name": "another"}, headers=headers)
    assert other.json()["code"] == "document_deleted"


async def test_a_document_of_more_than_one_update_may_bring_is_copied(database_url: str) -> None:
    async with running_site(database_url, update_structs_max=100) as site, site.client() as client:
        for _ in range(3):
            edits = [{"op": "insert", "path": ["text", 0], "text": "ab", "attributes": {"b": n}} for n in range(30)]
            assert (await client.patch(DOC, json={"edits": edits})).status_code in (200, 201)
        copied = await client.post(DOC + "/copy", json={"name": "copy"})
        assert copied.status_code == 201
        assert await text_of(client, "copy") == "ab" * 90
        assert (await client.post(DOC + "/copy", json={"name": "copy"})).status_code == 412

        async def copied() -> httpx.Response:
            headers = {"Idempotency-Key": "copy-it"}
            return await client.post(DOC + "/copy", json={"name": "keyed"}, headers=headers)

        answers = [*await asyncio.gather(*(copied() for _ in range(5))), await copied()]
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1


# Rename


async def test_a_renamed_document_keeps_its_epoch_and_history(site: Site, client: httpx.AsyncClient) -> None:
    begun = await begin(client)
    renamed = await client.post(DOC + "/rename", json={"name": "a/b"})
    assert (renamed.status_code, renamed.json()) == (200, {"name": "a/b", "epoch": 1, "seq": 1})
    assert renamed.headers["location"] == "/v1/documents/a%2Fb"
    assert renamed.headers["etag"] == begun.headers["etag"]
    assert (await text_of(client), await text_of(client, "a%2Fb")) == ("no_such_document", "hello")
    editor = await Editor.open_synced(site.url("a/b"))
    assert editor.text == "hello"
    await editor.leave()
    # The old name is free again, and what is begun there is another document.
    await begin(client, text="new")
    assert (await text_of(client), await text_of(client, "a%2Fb")) == ("new", "hello")


async def test_editors_of_a_renamed_document_learn_it_and_bring_nothing_to_the_old_name(
    site: Site, client: httpx.AsyncClient
) -> None:
    await begin(client)
    editor = await Editor.open_synced(site.url("notes"))
    await client.post(DOC + "/rename", json={"name": "new"})
    assert await editor.closed() == (4404, "this document has another name now: open it under that")
    again = await Editor.open(site.url("notes"), editor.doc)
    assert (await again.closed())[0] == 4409
    assert await text_of(client) == "no_such_document"
    there = await Editor.open_synced(site.url("new"), editor.doc)
    await there.type("!")
    other = await Editor.open_synced(site.url("new"))
    await other.shows("hello!")
    await there.leave()
    await other.leave()


async def test_editors_on_another_node_learn_that_it_was_renamed(database_url: str) -> None:
    async with running_site(database_url) as here, running_site(database_url) as there, here.client() as client:
        await begin(client)
        editor = await Editor.open_synced(there.url("notes"))
        await client.post(DOC + "/rename", json={"name": "new"})
        assert (await editor.closed())[0] == 4404


async def test_only_a_free_name_is_taken(client: httpx.AsyncClient) -> None:
    await begin(client)
    await begin(client, "taken")
    await begin(client, "deleted")
    await client.delete("/v1/documents/deleted")
    for name in ("taken", "deleted", "notes"):
        refused = await client.post(DOC + "/rename", json={"name": name})
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state"), name
    assert (await client.post("/v1/documents/deleted/rename", json={"name": "new"})).status_code == 410
    assert (await client.post("/v1/documents/none/rename", json={"name": "new"})).status_code == 404
    for body in ({}, {"name": 1}, {"name": "x", "more": 1}, []):
        assert (await client.post(DOC + "/rename", json=body)).status_code == 400
    assert (await client.post(DOC + "/rename", json={"name": "a//b"})).json()["code"] == "invalid_name"


async def test_two_renames_to_one_name_have_one_winner(client: httpx.AsyncClient) -> None:
    for name in "abcd":
        await begin(client, name, name)
    answers = await asyncio.gather(
        *(client.post(f"/v1/documents/{name}/rename", json={"name": "new"}) for name in "abcd")
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    winner = "abcd"[[answer.status_code for answer in answers].index(200)]
    assert await text_of(client, "new") == winner


async def test_what_is_written_while_a_document_is_renamed_is_lost_in_neither_name(
    site: Site, client: httpx.AsyncClient
) -> None:
    await begin(client, text="")
    stored: set[str] = set()
    unknown: set[str] = set()

    async def write(number: int) -> None:
        piece = f"[{number}]"
        for name in ("notes", "new"):
            edits = [{"op": "append", "path": ["text"], "text": piece}]
            answer = await client.patch(f"/v1/documents/{name}", json={"edits": edits}, headers={"If-Match": "*"})
            if answer.status_code in (404, 412):
                assert answer.json()["code"] in ("document_renamed", "condition_failed")
                continue
            # Where it was renamed while this was in flight, nobody says that it was not stored.
            (stored if answer.status_code == 200 else unknown).add(piece)
            assert answer.status_code == 200 or answer.json()["code"] in ("commit_unknown", "room_discarded")
            return

    await asyncio.gather(*(write(number) for number in range(30)), client.post(DOC + "/rename", json={"name": "new"}))
    text = await text_of(client, "new")
    pieces = text.replace("][", "] [").split()
    assert len(pieces) == len(set(pieces))
    assert stored <= set(pieces) <= stored | unknown


async def test_an_edit_of_a_document_that_is_renamed_under_it_begins_none_of_the_old_name(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(client)
    store = document_writing._Wanted.store

    async def store_late(*wanted: Any) -> Any:
        monkeypatch.undo()
        assert (await client.post(DOC + "/rename", json={"name": "renamed"})).status_code == 200
        return await store(*wanted)

    monkeypatch.setattr(document_writing._Wanted, "store", store_late)
    edit = {"edits": [{"op": "append", "path": ["text"], "text": "!"}]}
    refused = await client.patch(DOC, json=edit)
    assert (refused.status_code, refused.json()["code"]) == (409, "epoch_changed")
    assert (await text_of(client), await text_of(client, "renamed")) == ("no_such_document", "hello")
    assert (await client.patch("/v1/documents/renamed", json=edit)).status_code == 200


async def test_access_that_was_taken_back_stays_so_under_the_new_name(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(documents={"*": "admin"})) as client:
            await begin(client)
            # From an hour ago on, so that tokens of now are as good as ever.
            before = time.time() - 3_600
            await client.post("/v1/revocations", json={"document": "notes", "before": before})
            assert (await client.post(DOC + "/rename", json={"name": "new"})).status_code == 200
        await site.service.authorizer.revocations.refresh(site.database, 86_400)
        async with site.client(token("eve", iat=before - 60)) as client:
            assert (await client.get("/v1/documents/new")).status_code == 401
        async with site.client(token("ann")) as client:
            assert (await client.get("/v1/documents/new")).status_code == 200


async def test_renaming_needs_write_access_to_the_new_name(database_url: str) -> None:
    admin = token(documents={"notes": "admin", "seen": "read"})
    async with running_site(database_url, jwt_secret=SECRET) as site, site.client(admin) as client:
        await begin(client)
        for name in ("seen", "other"):
            refused = await client.post(DOC + "/rename", json={"name": name})
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_condition_that_nobody_would_look_at_is_refused(client: httpx.AsyncClient) -> None:
    etag = (await begin(client)).headers["etag"]
    for action in ("copy", "rename", "undelete"):
        for headers in ({"If-Match": etag}, {"If-Match": "*"}, {"If-None-Match": etag}):
            refused = await client.post(f"{DOC}/{action}", json={"name": "new"}, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), (action, headers)
    only_new = {"If-None-Match": "*"}
    assert (await client.post(DOC + "/copy", json={"name": "copy"}, headers=only_new)).status_code == 201
    assert (await client.post(DOC + "/rename", json={"name": "new"}, headers=only_new)).status_code == 200
    assert (await client.post(DOC + "/undelete", headers=only_new)).status_code == 400


# Delete and undelete


async def test_a_deleted_document_is_gone_until_it_is_undeleted(site: Site, client: httpx.AsyncClient) -> None:
    begun = await begin(client)
    editor = await Editor.open_synced(site.url("notes"))
    assert (await client.delete(DOC)).status_code == 204
    assert (await editor.closed())[0] == 4404
    for send in (
        client.get(DOC),
        client.head(DOC),
        client.get(DOC + "/content"),
        client.put(DOC, content=b""),
        client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": "x"}]}),
        client.post(DOC + "/copy", json={"name": "copy"}),
    ):
        assert (await send).status_code == 410
    assert (await client.delete(DOC)).status_code == 204
    assert (await client.get(DOC + "/statistics")).json()["deleted_at"] is not None
    back = await client.post(DOC + "/undelete")
    assert (back.status_code, back.json()) == (200, {"name": "notes", "epoch": 1, "seq": 1})
    assert back.headers["etag"] == begun.headers["etag"]
    assert await text_of(client) == "hello"
    again = await client.post(DOC + "/undelete")
    assert (again.status_code, again.json()["code"]) == (409, "wrong_state")


async def test_a_document_that_is_not_there_is_neither_deleted_nor_undeleted(client: httpx.AsyncClient) -> None:
    assert (await client.delete(DOC)).status_code == 404
    assert (await client.post(DOC + "/undelete")).status_code == 404
    assert (await client.delete(DOC, headers={"If-Match": "*"})).status_code == 412


async def test_a_document_is_deleted_at_the_version_that_was_seen(client: httpx.AsyncClient) -> None:
    etag = (await begin(client)).headers["etag"]
    await client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": "!"}]})
    assert (await client.delete(DOC, headers={"If-Match": etag})).status_code == 412
    assert (await client.delete(DOC, headers={"If-Match": f'{etag}, "x"'})).status_code == 412
    assert (await client.delete(DOC, headers={"If-None-Match": "*"})).status_code == 400
    etag = (await client.head(DOC)).headers["etag"]
    assert (await client.delete(DOC, headers={"If-Match": etag})).status_code == 204


async def days_pass(url: str, days: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"UPDATE ydoc.documents SET deleted_at = deleted_at - make_interval(days => {days})")
    await connection.close()


async def test_a_document_that_was_deleted_for_long_enough_is_gone_for_good(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    for name in ("old", "kept", "back"):
        await begin(client, name)
    await client.delete("/v1/documents/old")
    await client.delete("/v1/documents/back")
    await days_pass(database_url, 31)
    await client.delete("/v1/documents/kept")
    await client.post("/v1/documents/back/undelete")
    farewell = Farewell(site.database, kept_days=30)
    assert await farewell.purge_some() == 1
    assert await farewell.purge_some() == 0
    refused = await client.post("/v1/documents/old/undelete")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert (await client.get("/v1/documents/old/statistics")).json()["purged_at"] is not None
    assert (await client.post("/v1/documents/kept/undelete")).status_code == 200
    assert await text_of(client, "kept") == await text_of(client, "back") == "hello"


async def test_statistics_tell_sizes_and_times(client: httpx.AsyncClient) -> None:
    await begin(client)
    told = (await client.get(DOC + "/statistics")).json()
    assert (told["name"], told["epoch"], told["seq"], told["tail_rows"]) == ("notes", 1, 1, 1)
    assert told["size_bytes"] == told["tail_bytes"] > 0
    assert not told.keys() & {"marker", "id", "tenant"}
