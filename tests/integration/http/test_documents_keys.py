"""Writes with an Idempotency-Key: a repeat is done once and answered as the first time, another request is refused."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
from pycrdt import Doc, Text

from tests.sites import running_site
from tests.tokens import SECRET, token

DOC = "/v1/documents/notes"
BATCH = "/v1/documents:batch"
OCTETS = {"Content-Type": "application/octet-stream"}
KEY = {"Idempotency-Key": "7e3c"}


def typed(text: str) -> bytes:
    """An update that says this in the root type `text`."""
    document: Doc[Text] = Doc()
    document["text"] = Text(text)
    return document.get_update()


def appending(value: Any) -> dict[str, Any]:
    return {"edits": [{"op": "append", "path": ["list"], "value": value}]}


async def put(client: httpx.AsyncClient, name: str = "notes", text: str = "hello") -> None:
    answer = await client.put(f"/v1/documents/{name}", content=typed(text), headers=OCTETS)
    assert answer.status_code == 201, answer.text


async def text_of(client: httpx.AsyncClient, name: str = "notes") -> str:
    answer = await client.get(f"/v1/documents/{name}/content?as=text&root=text")
    found: str = answer.text if answer.status_code == 200 else answer.json()["code"]
    return found


def is_reused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (422, "key_reused")


def are_alike(*answers: httpx.Response) -> bool:
    """Whether these are one answer, as far as programs look at it."""
    headers = ("etag", "location", "content-type")
    told = [(one.status_code, one.content, [one.headers.get(name) for name in headers]) for one in answers]
    return all(one == told[0] for one in told)


async def test_a_write_that_is_repeated_with_its_key_is_stored_once_and_answered_alike(
    client: httpx.AsyncClient,
) -> None:
    headers = {"Idempotency-Key": "7e3c"}
    edit = {"edits": [{"op": "append", "path": ["list"], "value": 1}]}
    first = await client.patch(DOC, json=edit, headers=headers)
    await client.patch(DOC, json={"edits": [{"op": "append", "path": ["list"], "value": 2}]})
    second = await client.patch(DOC, json=edit, headers=headers)
    assert (first.status_code, first.content) == (second.status_code, second.content) == (200, first.content)
    read = await client.get(DOC + "/content", params={"root": "list", "as": "json"})
    assert read.json() == [1, 2]


async def test_an_edit_that_would_not_fit_any_more_is_answered_as_the_first_time(client: httpx.AsyncClient) -> None:
    await put(client)
    headers = {"Idempotency-Key": "delete-it"}
    edit = {"edits": [{"op": "delete", "path": ["text", 0], "count": 5}]}
    first = await client.patch(DOC, json=edit, headers=headers)
    second = await client.patch(DOC, json=edit, headers=headers)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content


async def test_an_edit_that_is_repeated_while_the_first_is_under_way_is_answered_alike(
    client: httpx.AsyncClient,
) -> None:
    for number in range(5):
        name = f"/v1/documents/{number}"
        assert (await client.post(name, content=typed("hello"), headers=OCTETS)).status_code == 201
        edit = {"edits": [{"op": "delete", "path": ["text", 0], "count": 5}]}
        headers = {"Idempotency-Key": "delete-it"}
        answers = await asyncio.gather(*(client.patch(name, json=edit, headers=headers) for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert len({answer.content for answer in answers}) == 1


async def test_a_creation_that_is_repeated_with_its_key_is_answered_as_the_first_time(
    client: httpx.AsyncClient,
) -> None:
    headers = {"Idempotency-Key": "once", "If-None-Match": "*"}
    for path, content in (
        (DOC, typed("x")),
        ("/v1/documents/other", b""),
        ("/v1/documents/third/content?as=text", b"x"),
    ):
        kind = {"Content-Type": "text/plain"} if "content" in path else OCTETS
        first = await client.put(path, content=content, headers=headers | kind)
        await client.post(path.partition("/content")[0], content=typed("more"))
        second = await client.put(path, content=content, headers=headers | kind)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.content == second.content
        assert first.headers["etag"] == second.headers["etag"]
        other = await client.put(path, content=content, headers=headers | kind | {"Idempotency-Key": "another"})
        assert other.status_code == 412


async def test_a_key_belongs_to_who_sends_it(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        for actor in ("ann", "bob"):
            async with site.client(token(actor)) as client:
                edit = {"edits": [{"op": "append", "path": ["list"], "value": actor}]}
                for _ in range(2):
                    await client.patch(DOC, json=edit, headers={"Idempotency-Key": "1"})
                read = await client.get(DOC + "/content", params={"root": "list", "as": "json"})
        assert read.json() == ["ann", "bob"]


async def test_a_key_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    for key in (b"", b"x" * 256, b'""', b'a"b', b"\xfc"):
        refused = await client.post(DOC, content=typed("x"), headers={"Idempotency-Key": key})
        assert refused.status_code == 400
    update = typed("x")
    quoted = [await client.post(DOC, content=update, headers={"Idempotency-Key": key}) for key in ("a", '"a"')]
    assert quoted[0].content == quoted[1].content


# Another request under a key that was used


async def test_another_request_under_a_used_key_is_refused_and_stores_nothing(client: httpx.AsyncClient) -> None:
    update = typed("x")
    assert (await client.patch(DOC, json=appending(1), headers=KEY)).status_code == 200
    for send in (
        client.patch(DOC, json=appending(2), headers=KEY),
        client.post(DOC, content=update, headers=KEY | OCTETS),
        client.put(DOC, content=update, headers=KEY | OCTETS),
        client.put(DOC + "/content?as=text", content="x", headers=KEY | {"Content-Type": "text/plain"}),
        client.delete(DOC, headers=KEY),
        client.post(DOC + "/rename", json={"name": "new"}, headers=KEY),
        client.post(DOC + "/undelete", headers=KEY),
    ):
        assert is_reused(await send)
    assert (await client.get(DOC + "/statistics")).json()["seq"] == 1
    assert (await client.get("/v1/documents/new")).status_code == 404
    # The first one is what it was, and nobody else's documents are concerned.
    assert (await client.patch(DOC, json=appending(1), headers=KEY)).status_code == 200
    assert (await client.patch("/v1/documents/other", json=appending(2), headers=KEY)).status_code == 200


async def test_of_two_requests_at_once_under_one_key_one_is_done_and_the_other_refused(
    client: httpx.AsyncClient,
) -> None:
    for number in range(5):
        name = f"/v1/documents/{number}"
        answers = await asyncio.gather(
            *(client.post(name, content=typed(str(writer)), headers=KEY | OCTETS) for writer in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [422] * 7
        winner = [answer.status_code for answer in answers].index(200)
        assert await text_of(client, str(number)) == str(winner)


async def test_a_creation_in_another_form_is_another_request(client: httpx.AsyncClient) -> None:
    kind = KEY | {"Content-Type": "text/plain"}
    assert (await client.put(DOC + "/content?as=text&root=a", content="x", headers=kind)).status_code == 201
    assert is_reused(await client.put(DOC + "/content?as=text&root=b", content="x", headers=kind))
    assert (await client.put(DOC + "/content?as=text&root=a", content="x", headers=kind)).status_code == 201


async def test_conditions_are_no_part_of_the_request(client: httpx.AsyncClient) -> None:
    await put(client)
    etag = (await client.head(DOC)).headers["etag"]
    first = await client.patch(DOC, json=appending(1), headers=KEY | {"If-Match": etag})
    again = await client.patch(DOC, json=appending(1), headers=KEY | {"If-Match": etag})
    seen_anew = (await client.head(DOC)).headers["etag"]
    third = await client.patch(DOC, json=appending(1), headers=KEY | {"If-Match": seen_anew})
    assert are_alike(first, again, third)


async def test_a_request_that_was_refused_has_not_used_its_key(client: httpx.AsyncClient) -> None:
    await put(client)
    headers = KEY | {"If-Match": '"1-9-0123456789ab"'}
    assert (await client.patch(DOC, json=appending(1), headers=headers)).status_code == 412
    assert (await client.patch(DOC, json=appending(2), headers=KEY)).status_code == 200


async def test_an_item_of_an_import_is_the_post_or_the_put_of_its_update(client: httpx.AsyncClient) -> None:
    update, other = typed("x"), typed("y")
    posted = await client.post(DOC, content=update, headers=KEY | OCTETS)
    begun = await client.put("/v1/documents/begun", content=update, headers=KEY | OCTETS)
    assert (posted.status_code, begun.status_code) == (200, 201)

    def item(name: str, update: bytes, **more: Any) -> dict[str, Any]:
        return {"name": name, "update": base64.b64encode(update).decode(), "key": "7e3c"} | more

    items = [item("notes", update), item("notes", other), item("begun", update, if_absent=True), item("begun", update)]
    told = (await client.post(BATCH, json=items)).json()
    assert [(one["status"], one.get("code")) for one in told] == [
        (200, None),
        (422, "key_reused"),
        (200, None),
        (422, "key_reused"),
    ]
    assert (await client.get(DOC + "/statistics")).json()["seq"] == 1


async def test_a_write_to_a_document_that_was_deleted_since_is_answered_as_the_first_time(
    client: httpx.AsyncClient,
) -> None:
    update = typed("x")
    first = await client.put(DOC, content=update, headers=KEY | OCTETS)
    await client.delete(DOC)
    assert are_alike(first, await client.put(DOC, content=update, headers=KEY | OCTETS))
    item = {"name": "notes", "update": base64.b64encode(update).decode(), "key": "7e3c", "if_absent": True}
    told = (await client.post(BATCH, json=[item, item | {"if_absent": False}])).json()
    assert [one["status"] for one in told] == [200, 422]
    assert is_reused(await client.put(DOC, content=typed("y"), headers=KEY | OCTETS))
    assert (await client.put(DOC, content=update, headers=OCTETS)).status_code == 410
    assert await text_of(client) == "document_deleted"


# What appends nothing takes a key too


async def test_a_delete_that_is_repeated_with_its_key_deletes_nothing_anew(client: httpx.AsyncClient) -> None:
    await put(client)
    etag = (await client.head(DOC)).headers["etag"]
    first = await client.delete(DOC, headers=KEY | {"If-Match": etag})
    assert first.status_code == 204
    assert (await client.delete(DOC, headers=KEY | {"If-Match": etag})).status_code == 204
    await client.post(DOC + "/undelete")
    assert (await client.delete(DOC, headers=KEY | {"If-Match": etag})).status_code == 204
    assert await text_of(client) == "hello"
    assert is_reused(await client.post(DOC + "/undelete", headers=KEY))
    assert (await client.delete(DOC)).status_code == 204


async def test_a_delete_with_a_key_of_what_is_deleted_already_is_done_too(client: httpx.AsyncClient) -> None:
    await put(client)
    await client.delete(DOC)
    assert (await client.delete(DOC, headers=KEY)).status_code == 204
    await client.post(DOC + "/undelete")
    assert (await client.delete(DOC, headers=KEY)).status_code == 204
    assert await text_of(client) == "hello"


async def test_an_undelete_that_is_repeated_with_its_key_is_answered_as_the_first_time(
    client: httpx.AsyncClient,
) -> None:
    await put(client)
    await client.delete(DOC)
    first = await client.post(DOC + "/undelete", headers=KEY)
    await client.patch(DOC, json=appending(1))
    again = await client.post(DOC + "/undelete", headers=KEY)
    assert (first.status_code, first.json()) == (200, {"name": "notes", "epoch": 1})
    assert are_alike(first, again)
    await client.delete(DOC)
    assert are_alike(first, await client.post(DOC + "/undelete", headers=KEY))
    assert await text_of(client) == "document_deleted"


async def test_a_rename_that_is_repeated_with_its_key_is_answered_as_the_first_time(client: httpx.AsyncClient) -> None:
    await put(client)

    async def rename(name: str = "notes", new_name: str = "new") -> httpx.Response:
        return await client.post(f"/v1/documents/{name}/rename", json={"name": new_name}, headers=KEY)

    first = await rename()
    assert (first.status_code, first.json()) == (200, {"name": "new", "epoch": 1})
    assert first.headers["location"] == "/v1/documents/new"
    await client.patch("/v1/documents/new", json=appending(1))
    assert are_alike(first, await rename())
    # Another document under the old name is left alone, and one that would take the name is refused.
    await put(client, text="another")
    assert are_alike(first, await rename())
    await put(client, "third")
    assert is_reused(await rename("third"))
    assert [await text_of(client, name) for name in ("notes", "new", "third")] == ["another", "hello", "hello"]


async def test_a_rename_that_was_taken_back_is_not_done_again(client: httpx.AsyncClient) -> None:
    await put(client)
    first = await client.post(DOC + "/rename", json={"name": "new"}, headers=KEY)
    await client.post("/v1/documents/new/rename", json={"name": "notes"})
    assert are_alike(first, await client.post(DOC + "/rename", json={"name": "new"}, headers=KEY))
    assert (await text_of(client), await text_of(client, "new")) == ("hello", "no_such_document")
    assert is_reused(await client.post(DOC + "/rename", json={"name": "other"}, headers=KEY))


async def test_a_copy_of_another_document_is_another_request(client: httpx.AsyncClient) -> None:
    await put(client, "a", "first")
    await put(client, "b", "second")
    first = await client.post("/v1/documents/a/copy", json={"name": "copy"}, headers=KEY)
    assert is_reused(await client.post("/v1/documents/b/copy", json={"name": "copy"}, headers=KEY))
    assert are_alike(first, await client.post("/v1/documents/a/copy", json={"name": "copy"}, headers=KEY))
    assert await text_of(client, "copy") == "first"


async def test_changes_at_once_under_one_key_are_done_once(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await put(client, str(number))
        path = f"/v1/documents/{number}"
        answers = await asyncio.gather(
            *(client.post(path + "/rename", json={"name": f"new {number}"}, headers=KEY) for _ in range(6))
        )
        assert are_alike(*answers)
        assert answers[0].status_code == 200


async def test_on_two_nodes_at_once_a_key_is_one_request_too(database_url: str) -> None:
    async with (
        running_site(database_url) as here,
        running_site(database_url) as there,
        here.client() as one,
        there.client() as other,
    ):
        await put(one)
        bodies = [appending(value) for value in (1, 1, 2)]
        sent = [client.patch(DOC, json=body, headers=KEY) for client in (one, other) for body in bodies]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200, 422}
        read = await one.get(DOC + "/content", params={"root": "list", "as": "json"})
        assert len(read.json()) == 1
        for method, path, body in (
            ("POST", DOC + "/rename", {"name": "new"}),
            ("DELETE", "/v1/documents/new", None),
            ("POST", "/v1/documents/new/undelete", None),
        ):
            headers = {"Idempotency-Key": path}
            sent = [client.request(method, path, json=body, headers=headers) for client in (one, other, one, other)]
            answers = await asyncio.gather(*sent)
            assert are_alike(*answers)
            assert answers[0].is_success
        assert await text_of(other, "new") == "hello"
