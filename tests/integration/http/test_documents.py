"""One document over HTTP: begun, read in every form, written, edited, under conditions and with keys."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pycrdt import Doc, Text

from tests.nodes import Editor
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.auth.access import Access, Asked, Granted
from ydoc_store.http import document_reading
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX, Heavy
from ydoc_store.yjs.merge import EMPTY_UPDATE, state_vector_of
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

DOC = "/v1/documents/notes"
OCTETS = {"Content-Type": "application/octet-stream"}


def typed(text: str) -> bytes:
    """An update that says this in the root type `text`."""
    document: Doc[Text] = Doc()
    document["text"] = Text(text)
    return document.get_update()


def says(update: bytes, root: str = "text") -> str:
    document: Doc[Text] = Doc()
    document.apply_update(update)
    return str(document.get(root, type=Text))


async def put(client: httpx.AsyncClient, name: str = "notes", text: str = "hello") -> httpx.Response:
    answer = await client.put(f"/v1/documents/{name}", content=typed(text), headers=OCTETS)
    assert answer.status_code == 201, answer.text
    return answer


async def test_a_document_is_begun_and_read_again(client: httpx.AsyncClient) -> None:
    begun = await put(client)
    assert begun.headers["location"] == DOC
    assert begun.json() == {"name": "notes", "epoch": 1, "seq": 1}
    read = await client.get(DOC)
    assert (read.status_code, read.headers["content-type"]) == (200, "application/octet-stream")
    assert read.headers["etag"] == begun.headers["etag"]
    assert says(read.content) == "hello"
    assert int(read.headers["content-length"]) == len(read.content)


async def test_a_name_is_one_segment(site: Site, client: httpx.AsyncClient) -> None:
    begun = await put(client, "team%2Fn%C3%B6tes%3F%20%23%25")
    assert begun.json()["name"] == "team/nötes? #%"
    assert begun.headers["location"] == "/v1/documents/team%2Fn%C3%B6tes%3F%20%23%25"
    assert ("default", "team/nötes? #%") in site.service.rooms.rooms
    wrong = await client.get("/v1/documents/team/notes")
    assert (wrong.status_code, wrong.json()["code"]) == (404, "unknown_path")
    for name in ("", "%2F", "a%2F%2Fb", "..%2Fa", "a%00b", "a%0Ab", "%FF", "a%2F."):
        refused = await client.get(f"/v1/documents/{name}")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_name"), name


async def test_an_empty_document_is_begun_once(client: httpx.AsyncClient) -> None:
    assert (await client.put(DOC)).status_code == 201
    again = await client.put(DOC, headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["code"]) == (412, "condition_failed")
    read = await client.get(DOC, headers={"Accept": "application/json"})
    assert read.json() == {"name": "notes", "epoch": 1, "seq": 1, "roots": {}}


async def test_a_document_is_read_in_the_form_that_is_asked_for(client: httpx.AsyncClient) -> None:
    await put(client)
    edits = [
        {"op": "set", "path": ["meta", "title"], "value": "Notes"},
        {"op": "append", "path": ["list"], "values": [1, {"a": None}]},
    ]
    assert (await client.patch(DOC, json={"edits": edits})).status_code == 200
    everything = {"list": [1, {"a": None}], "meta": {"title": "Notes"}, "text": "hello"}
    read = await client.get(DOC, headers={"Accept": "application/json"})
    assert read.json() == {"name": "notes", "epoch": 1, "seq": 2, "roots": everything}
    some = await client.get(DOC, params={"root": ["list", "none"]}, headers={"Accept": "application/json"})
    assert some.json()["roots"] == {"list": [1, {"a": None}], "none": None}
    text = await client.get(DOC, params={"root": "text"}, headers={"Accept": "text/plain;q=0.9, image/png"})
    assert (text.text, text.headers["content-type"]) == ("hello", "text/plain; charset=utf-8")
    assert text.headers["vary"] == "Accept"
    preferred = await client.get(DOC, headers={"Accept": "application/octet-stream;q=0.1, application/json"})
    assert preferred.headers["content-type"] == "application/json"
    refused = await client.get(DOC, headers={"Accept": "image/png, application/json;q=0"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


async def test_a_reader_with_a_state_vector_is_given_what_it_lacks(client: httpx.AsyncClient) -> None:
    await put(client)
    before = (await client.get(DOC)).content
    vector = (await client.get(DOC + "/state-vector")).content
    await client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": " world"}]})
    for encoded in (base64.urlsafe_b64encode(vector).rstrip(b"="), base64.b64encode(vector)):
        lacking = (await client.get(DOC, params={"sv": encoded.decode()})).content
        assert len(lacking) < len(before)
        document: Doc[Text] = Doc()
        document.apply_update(before)
        document.apply_update(lacking)
        assert str(document.get("text", type=Text)) == "hello world"
    up_to_date = (await client.get(DOC + "/state-vector")).content
    nothing = await client.get(DOC, params={"sv": base64.b64encode(up_to_date).decode()})
    assert nothing.content == EMPTY_UPDATE


async def test_a_state_vector_of_another_history_is_refused(client: httpx.AsyncClient) -> None:
    await put(client)
    await put(client, "other")
    vector = base64.b64encode((await client.get("/v1/documents/other/state-vector")).content).decode()
    refused = await client.get(DOC, params={"sv": vector})
    assert (refused.status_code, refused.json()["code"]) == (409, "epoch_changed")
    for wrong in ("!", "AAAA", "_"):
        assert (await client.get(DOC, params={"sv": wrong})).status_code == 400


async def test_a_read_document_carries_its_epoch(client: httpx.AsyncClient) -> None:
    await put(client)
    clients = {client for client, _, _ in walk((await client.get(DOC)).content).structs}
    assert max(clients) >= RESERVED_CLIENT_ID_MIN


async def test_what_was_read_begins_another_document_and_is_merged_into_none(client: httpx.AsyncClient) -> None:
    await put(client)
    read = (await client.get(DOC)).content
    assert (await client.put("/v1/documents/again", content=read)).status_code == 201
    item = {"name": "imported", "update": base64.b64encode(read).decode(), "if_absent": True}
    assert (await client.post("/v1/documents:batch", json=[item])).json()[0]["status"] == 201
    for name in ("again", "imported"):
        assert says((await client.get(f"/v1/documents/{name}")).content) == "hello"
    refused = await client.post("/v1/documents/again", content=read)
    assert (refused.status_code, refused.json()["code"]) == (409, "epoch_changed")


async def test_what_was_never_written_is_not_there(client: httpx.AsyncClient) -> None:
    for path in ("", "/content", "/state-vector", "/statistics"):
        missing = await client.get(DOC + path)
        assert (missing.status_code, missing.json()["code"]) == (404, "no_such_document"), path
    assert (await client.head(DOC)).status_code == 404
    assert (await client.get(DOC, headers={"If-None-Match": '"1-1-000000000000"'})).status_code == 404


async def test_head_tells_the_version_without_a_body(client: httpx.AsyncClient) -> None:
    begun = await put(client)
    head = await client.head(DOC)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == begun.headers["etag"]


async def test_an_update_begins_a_document_and_then_adds_to_it(client: httpx.AsyncClient) -> None:
    first = await client.post(DOC, content=typed("hello"), headers=OCTETS)
    assert (first.status_code, first.headers["location"]) == (201, DOC)
    assert first.json() == {"name": "notes", "epoch": 1, "seq": 1, "is_new": True}
    second = await client.post(DOC, content=typed("again"))
    assert (second.status_code, second.json()["seq"]) == (200, 2)
    same = await client.post(DOC, content=(await client.get(DOC)).content)
    assert same.json() == {"name": "notes", "epoch": 1, "seq": 2, "is_new": False}


async def test_a_bad_update_is_refused_and_nothing_is_stored(client: httpx.AsyncClient) -> None:
    for body, code in ((b"", "invalid_request"), (b"\x01", "invalid_update"), (EMPTY_UPDATE, "no_such_document")):
        refused = await client.post(DOC, content=body)
        assert refused.json()["code"] == code
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await client.post(DOC, json={})).status_code == 415
    assert (await client.post(DOC, content=typed("x"), headers={"Content-Encoding": "gzip"})).status_code == 415
    assert (await client.get(DOC)).status_code == 404


async def test_a_body_over_its_limit_is_refused(database_url: str) -> None:
    async with running_site(database_url, update_bytes_max=1_000) as site, site.client() as client:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(100)

        for content in (bytes(1_001), pieces()):
            refused = await client.post(DOC, content=content)
            assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


async def test_edits_are_seen_by_open_editors_at_once_and_theirs_by_edits(
    site: Site, client: httpx.AsyncClient
) -> None:
    editor = await Editor.open_synced(site.url("notes"))
    other = await Editor.open_synced(site.url("notes"))
    await editor.type("hello")
    await other.shows("hello")
    answer = await client.patch(DOC, json={"edits": [{"op": "insert", "path": ["text", 5], "text": " world"}]})
    assert answer.status_code == 200
    await editor.shows("hello world")
    await editor.leave()
    await other.leave()


async def test_who_wrote_on_one_node_reads_and_edits_it_on_another(database_url: str) -> None:
    async with (
        running_site(database_url) as here,
        running_site(database_url) as there,
        here.client() as one,
        there.client() as other,
    ):
        await put(one)
        for number in range(10):
            edit = {"op": "insert", "path": ["text", 5 + number], "text": str(number)}
            assert (await one.patch(DOC, json={"edits": [edit]})).status_code == 200
            read = await other.get(DOC + "/content", params={"root": "text", "as": "text"})
            assert read.text == "hello" + "0123456789"[: number + 1]
            one, other = other, one


async def test_an_edit_is_logged_under_the_name_of_who_sent_it(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site, site.client(token("bob")) as client:
        await client.patch(DOC, json={"edits": [{"op": "set", "path": ["meta", "a"], "value": 1}]})
        async with site.database.acquire() as connection:
            assert await connection.fetchval("SELECT actor FROM ydoc.updates") == "bob"


async def test_edits_are_all_made_or_none(client: httpx.AsyncClient) -> None:
    await put(client)
    edits = [{"op": "append", "path": ["text"], "text": "!"}, {"op": "delete", "path": ["text", 9]}]
    refused = await client.patch(DOC, json={"edits": edits})
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert refused.json()["detail"].startswith('"edits[1]": 9 is past its end')
    wrong = await client.patch(DOC, json={"edits": [{"op": "set", "path": []}]})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_request")
    assert '"edits[0].path"' in wrong.json()["detail"]
    broken = await client.patch(DOC, content=b'{"edits": [', headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_request")
    assert says((await client.get(DOC)).content) == "hello"


async def test_a_large_document_is_read_and_edited_in_the_worker(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = site.service.rooms.heavy.aside
    sizes: list[int] = []

    async def noting(size_bytes: int, work: Callable[..., Any], *args: Any) -> Any:
        sizes.append(size_bytes)
        return await Heavy.run(heavy, size_bytes, work, *args)

    paragraph = {"type": "paragraph", "content": [{"type": "text", "text": "x" * 100}]}
    content = {"type": "doc", "content": [paragraph] * 2_000}
    monkeypatch.setattr(heavy, "run", noting)
    made = await client.put(DOC + "/content", json=content)
    assert made.status_code == 201
    edit = {"op": "insert", "path": ["default", 1_000], "prosemirror": {"type": "rule"}}
    assert (await client.patch(DOC, json={"edits": [edit]})).status_code == 200
    read = (await client.get(DOC + "/content")).json()
    assert read == {"type": "doc", "content": [paragraph] * 1_000 + [{"type": "rule"}] + [paragraph] * 1_000}
    await client.get(DOC, headers={"Accept": "application/json"})
    # All of them but for the edit's own walk, which is small.
    assert len([size for size in sizes if size > INLINE_BYTES_MAX]) >= 4


async def test_a_document_too_large_for_a_tree_is_read_as_an_update(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(client)
    monkeypatch.setattr(document_reading, "TREE_BYTES_MAX", 10)
    for send in (
        client.get(DOC, headers={"Accept": "application/json"}),
        client.get(DOC + "/content"),
        client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": "x"}]}),
    ):
        refused = await send
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert says((await client.get(DOC)).content) == "hello"


# Conditions


async def test_a_reader_that_has_this_version_is_sent_nothing(client: httpx.AsyncClient) -> None:
    etag = (await put(client)).headers["etag"]
    for path in ("", "/content?as=json&root=text", "/state-vector"):
        for condition in (etag, "W/" + etag, f'"x", {etag}', "*"):
            same = await client.get(DOC + path, headers={"If-None-Match": condition})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert (await client.get(DOC + path, headers={"If-None-Match": '"1-9-abc"'})).status_code == 200
        assert (await client.get(DOC + path, headers={"If-Match": etag})).status_code == 200
        refused = await client.get(DOC + path, headers={"If-Match": '"another"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "condition_failed")
    assert (await client.head(DOC, headers={"If-None-Match": etag})).status_code == 304
    for nonsense in ("x", '"a" "b"', '"a', ""):
        assert (await client.get(DOC, headers={"If-Match": nonsense})).status_code == 400


async def test_a_write_under_a_version_is_stored_at_that_version_alone(client: httpx.AsyncClient) -> None:
    etag = (await put(client)).headers["etag"]
    edit = {"edits": [{"op": "append", "path": ["text"], "text": "!"}]}
    assert (await client.patch(DOC, json=edit, headers={"If-Match": etag})).status_code == 200
    for send in (
        client.patch(DOC, json=edit, headers={"If-Match": etag}),
        client.post(DOC, content=typed("x"), headers={"If-Match": etag}),
        client.post(DOC, content=typed("x"), headers={"If-Match": '"another"'}),
        client.post(DOC, content=typed("x"), headers={"If-Match": etag.replace('"1-', '"2-')}),
        client.post(DOC, content=typed("x"), headers={"If-None-Match": "*"}),
        client.delete(DOC, headers={"If-Match": etag}),
    ):
        refused = await send
        assert (refused.status_code, refused.json()["code"]) == (412, "condition_failed")
    assert says((await client.get(DOC)).content) == "hello!"
    assert (await client.post(DOC, content=typed("x"), headers={"If-Match": "*"})).status_code == 200
    assert (await client.post("/v1/documents/none", content=typed("x"), headers={"If-Match": "*"})).status_code == 412


async def test_a_document_is_begun_exactly_once_however_many_try(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.put(DOC, content=typed(str(number)), headers={"If-None-Match": "*"}) for number in range(20))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [412] * 19
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 201)
    assert says((await client.get(DOC)).content) == str(winner)


# Keys


def with_a_template(_asked: Asked) -> Granted:
    """An application that has something for empty documents."""
    return Granted(DEFAULT_TENANT, "ann", Access.WRITE, initial_update=typed("template"))


async def test_who_begins_a_document_brings_what_it_begins_with(database_url: str) -> None:
    application = f"{__name__}:with_a_template"
    async with running_site(database_url, authorize=application) as site, site.client("ann") as client:
        await put(client, "begun", "mine")
        assert says((await client.get("/v1/documents/begun")).content) == "mine"
        absent = await client.post(
            "/v1/documents/added", content=typed("mine"), headers=OCTETS | {"If-None-Match": "*"}
        )
        assert absent.status_code == 201
        assert (await client.post("/v1/documents/begun/copy", json={"name": "copied"})).status_code == 201
        assert says((await client.get("/v1/documents/copied")).content) == "mine"
        edit = {"edits": [{"op": "append", "path": ["text"], "text": "!"}]}
        await client.patch("/v1/documents/edited", json=edit)
        assert says((await client.get("/v1/documents/edited")).content) == "template!"


# Who may


async def test_each_path_needs_its_access(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(documents={"*": "admin"})) as client:
            await put(client)
        reads = (
            ("GET", ""),
            ("HEAD", ""),
            ("GET", "/content?as=json"),
            ("GET", "/state-vector"),
            ("GET", "/statistics"),
        )
        writes = (("POST", ""), ("PATCH", ""), ("PUT", ""), ("PUT", "/content"))
        admins = (("DELETE", ""), ("POST", "/rename"), ("POST", "/undelete"))
        async with site.client() as client:
            for method, path in (*reads, *writes, *admins, ("POST", "/copy")):
                assert (await client.request(method, DOC + path)).status_code == 401, (method, path)
        async with site.client(token(documents={"notes": "read"})) as client:
            for method, path in reads:
                assert (await client.request(method, DOC + path)).status_code == 200, (method, path)
            for method, path in (*writes, *admins):
                assert (await client.request(method, DOC + path)).status_code == 403, (method, path)
            refused = await client.post(DOC + "/copy", json={"name": "copy"})
            assert refused.status_code == 403
        async with site.client(token(documents={"notes": "write"})) as client:
            for method, path in admins:
                assert (await client.request(method, DOC + path)).status_code == 403, (method, path)
            assert (await client.get("/v1/documents/other")).status_code == 403


async def test_a_tenant_sees_its_own_documents_alone(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(tenant="one")) as client:
            await put(client)
        async with site.client(token(tenant="two")) as client:
            assert (await client.get(DOC)).status_code == 404
            assert (await client.get("/v1/documents")).json()["documents"] == []


# What is no request


async def test_a_wrong_method_is_told_the_right_ones(client: httpx.AsyncClient) -> None:
    for path, allowed in (
        ("/v1/documents", "GET, HEAD"),
        ("/v1/documents:batch", "POST"),
        (DOC, "GET, HEAD, POST, PATCH, PUT, DELETE"),
        (DOC + "/content", "GET, PUT, HEAD"),
        (DOC + "/copy", "POST"),
    ):
        refused = await client.request("TRACE" if path != DOC else "OPTIONS", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert refused.json()["code"] == "method_not_allowed"


async def test_what_can_be_read_can_be_asked_for_its_headers_alone(client: httpx.AsyncClient) -> None:
    await put(client)
    for path in (DOC + "/content?as=text&root=text", DOC + "/state-vector", DOC + "/statistics", "/v1/documents"):
        whole, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-type", "content-length"):
            assert head.headers.get(name) == whole.headers.get(name), (path, name)
    assert (await client.head("/v1/documents/none/content")).status_code == 404


async def test_what_somebody_wrote_runs_in_nobodys_browser(client: httpx.AsyncClient) -> None:
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></html>'
    begun = await client.put(DOC + "/content?as=xml", content=page, headers={"Content-Type": "application/xml"})
    assert begun.status_code == 201
    for path in ("", "/content?as=xml", "/content?as=text", "/content?as=json"):
        read = await client.get(DOC + path)
        assert read.status_code == 200
        assert read.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert read.headers["x-content-type-options"] == "nosniff"


async def test_a_write_that_must_not_meet_a_version_meets_no_document_either(client: httpx.AsyncClient) -> None:
    """What is not there is not at that version."""
    headers = OCTETS | {"If-None-Match": '"1-1-000000000000"'}
    assert (await client.post(DOC, content=typed("x"), headers=headers)).status_code == 201
    etag = (await client.head(DOC)).headers["etag"]
    refused = await client.post(DOC, content=typed("y"), headers=OCTETS | {"If-None-Match": etag})
    assert (refused.status_code, refused.json()["code"]) == (412, "condition_failed")


async def test_a_parameter_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    await put(client)
    for query in (
        "?rot=text",
        "?sv=AA&root=x",
        "/content?as=html",
        "/content?root=a&root=b",
        "/state-vector?sv=AA",
        "?sv=AA&sv=AA",
    ):
        refused = await client.get(DOC + query)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query


async def test_a_read_only_server_reads_and_stores_nothing(database_url: str) -> None:
    async with running_site(database_url) as site, site.client() as client:
        await put(client)
    async with running_site(database_url, read_only=True) as site, site.client() as client:
        assert (await client.get(DOC)).status_code == 200
        for send in (
            client.post(DOC, content=typed("x")),
            client.patch(DOC, json={"edits": [{"op": "append", "path": ["text"], "text": "x"}]}),
            client.put("/v1/documents/other"),
            client.delete(DOC),
            client.post(DOC + "/rename", json={"name": "other"}),
            client.post(DOC + "/copy", json={"name": "other"}),
        ):
            refused = await send
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")


async def test_the_vector_is_that_of_the_update(client: httpx.AsyncClient) -> None:
    await put(client)
    whole, vector = (await client.get(DOC)).content, (await client.get(DOC + "/state-vector")).content
    assert Doc().get_state() != vector
    assert sorted(state_vector_of(whole)) == sorted(vector)
