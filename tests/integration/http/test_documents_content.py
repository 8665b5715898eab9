"""The content of a root type over HTTP: put in, it begins a document; read, it is what came in."""

from __future__ import annotations

from typing import Any

import httpx

CONTENT = "/v1/documents/notes/content"
PROSEMIRROR = {
    "type": "doc",
    "content": [
        {"type": "heading", "attrs": {"level": 1}, "content": [{"type": "text", "text": "Nötes 😀"}]},
        {
            "type": "paragraph",
            "content": [
                {"type": "text", "text": "bold", "marks": [{"type": "bold", "attrs": {}}]},
                {"type": "text", "text": " and plain"},
            ],
        },
    ],
}


async def put(client: httpx.AsyncClient, as_: str, body: str, content_type: str, **params: str) -> httpx.Response:
    return await client.put(
        CONTENT, params={"as": as_, **params}, content=body.encode(), headers={"Content-Type": content_type}
    )


async def test_prosemirror_content_begins_a_document_and_is_read_in_every_form(client: httpx.AsyncClient) -> None:
    begun = await client.put(CONTENT, json=PROSEMIRROR, headers={"If-None-Match": "*"})
    assert (begun.status_code, begun.json()) == (201, {"name": "notes", "epoch": 1, "seq": 1})
    assert begun.headers["location"] == "/v1/documents/notes"
    read = await client.get(CONTENT)
    assert read.json() == PROSEMIRROR
    assert read.headers["content-type"] == "application/json"
    assert read.headers["etag"] == begun.headers["etag"]
    text = await client.get(CONTENT, params={"as": "text"})
    assert (text.text, text.headers["content-type"]) == ("Nötes 😀\nbold and plain", "text/plain; charset=utf-8")
    xml = await client.get(CONTENT, params={"as": "xml"})
    assert xml.headers["content-type"] == "application/xml; charset=utf-8"
    assert xml.text == '<heading level="1">Nötes 😀</heading><paragraph>bold and plain</paragraph>'
    asked = await client.get(CONTENT, params={"as": "xml"}, headers={"Accept": "text/xml"})
    assert asked.headers["content-type"] == "text/xml; charset=utf-8"


PUT_IN = [
    ("text", "Hello, wörld 😀\n", "text/plain; charset=utf-8"),
    ("json", '{"a":[1,2.5,null,{"b":"c"}],"d":true}', "application/json"),
    ("json", '[[],{},"x"]', "application/json; charset=UTF-8"),
    (
        "delta",
        '[{"insert":"a"},{"insert":"b😀","attributes":{"bold":true}},{"insert":{"image":"x"}}]',
        "application/json",
    ),
    ("xml", '<p class="x">a &amp; b<br></br></p>tail', "application/xml"),
    ("xml", "<p></p>", "text/xml"),
]


async def test_content_is_read_as_it_was_put_in(client: httpx.AsyncClient) -> None:
    for number, (as_, body, content_type) in enumerate(PUT_IN):
        path = f"/v1/documents/{number}/content"
        params = {"as": as_, "root": "any root ☃"}
        put_in = await client.put(path, params=params, content=body.encode(), headers={"Content-Type": content_type})
        assert put_in.status_code == 201
        assert (await client.get(path, params=params)).text == body


NONE = [
    ("prosemirror", "{}", "application/json", 400, "no ProseMirror document"),
    ("prosemirror", '{"type":"doc","content":[{"type":1}]}', "application/json", 400, '"content[0]" is no node'),
    ("json", '"text"', "application/json", 400, "a JSON object"),
    ("json", "[" * 2_000 + "]" * 2_000, "application/json", 400, "no JSON"),
    ("json", "[" * 100 + "]" * 100, "application/json", 400, "nests more than 64 deep"),
    ("json", '{"a":1e999}', "application/json", 400, "no JSON"),
    ("json", '["\\ud800"]', "application/json", 400, "no JSON"),
    ("xml", "<p>", "application/xml", 400, "not XML"),
    ("xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "application/xml", 400, "not XML"),
    ("text", "x", "text/plain; charset=latin-1", 415, "UTF-8"),
    ("text", "x", "application/json", 415, "text/plain"),
    ("xml", "<p></p>", "text/html", 415, "application/xml or text/xml"),
]


async def test_content_that_is_none_is_refused_and_nothing_is_begun(client: httpx.AsyncClient) -> None:
    for as_, body, content_type, status, told in NONE:
        refused = await put(client, as_, body, content_type)
        assert refused.status_code == status, refused.text
        assert told in refused.json()["detail"]
        assert (await client.get(CONTENT)).status_code == 404


async def test_bytes_that_are_no_text_are_refused(client: httpx.AsyncClient) -> None:
    refused = await client.put(
        CONTENT, params={"as": "text"}, content=b"ab\xff", headers={"Content-Type": "text/plain"}
    )
    assert refused.json()["detail"] == "the body is no UTF-8, from byte 2 on"


async def test_content_begins_a_document_and_replaces_none(client: httpx.AsyncClient) -> None:
    assert (await client.put(CONTENT, json=PROSEMIRROR)).status_code == 201
    again = await client.put(CONTENT, json=PROSEMIRROR)
    assert (again.status_code, again.json()["code"]) == (412, "condition_failed")
    for headers in ({"If-Match": "*"}, {"If-None-Match": '"1-1-000000000000"'}):
        refused = await client.put("/v1/documents/other/content", json=PROSEMIRROR, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


async def test_a_root_of_another_kind_is_no_such_content(client: httpx.AsyncClient) -> None:
    held: list[tuple[str, Any]] = [("text", {"a": 1}), ("xml", [1]), ("prosemirror", {"a": 1}), ("prosemirror", ["x"])]
    for number, (as_, content) in enumerate(held):
        path = f"/v1/documents/{number}/content"
        assert (await client.put(path, params={"as": "json"}, json=content)).status_code == 201
        refused = await client.get(path, params={"as": as_})
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")


async def test_a_form_that_the_reader_does_not_take_is_told(client: httpx.AsyncClient) -> None:
    await client.put(CONTENT, json=PROSEMIRROR)
    refused = await client.get(CONTENT, params={"as": "text"}, headers={"Accept": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


async def test_what_more_than_one_update_may_bring_is_refused(client: httpx.AsyncClient) -> None:
    nodes = [{"type": "p"}] * 100_001
    refused = await client.put(CONTENT, json={"type": "doc", "content": nodes})
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
