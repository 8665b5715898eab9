"""`/v1/shape` as its answers are: rows, words, headers, and what is stored of a write.

The stock provider itself is in tests/interop/test_electric.py.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import httpx
import pytest
from starlette.types import Message

from tests.integration.http.shape_reader import AWARENESS, UPDATES, Shape, events
from tests.integration.relay.test_contribution import typed
from tests.nodes import Editor, count_stored, replace_log_by_snapshot
from tests.sites import Site, running_site
from ydoc_store.http import shape_tables
from ydoc_store.yjs.lib0 import frame

# Reading


async def test_a_document_that_nobody_has_written_to_is_empty_and_up_to_date(shape: Shape) -> None:
    answer = await shape.read()
    assert shape.rows == []
    assert shape.offset == "0_0"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["electric-up-to-date"] == "true"
    assert json.loads(answer.headers["electric-schema"])["op"]["type"] == "bytea"
    assert "electric-cursor" not in answer.headers, "a client would take what comes later for a cached answer"


async def test_what_editors_type_comes_as_rows_and_only_once(site: Site, shape: Shape) -> None:
    ann = await Editor.open_synced(site.url("notes"))
    ben = await Editor.open_synced(site.url("notes"))
    for number in range(3):
        await ann.type(f"{number} ")
        await ben.shows(ann.text)
    await shape.read()
    assert shape.text == ann.text
    await shape.read()
    assert shape.rows == []
    assert shape.offset == "3_0"


async def test_behind_the_snapshot_one_row_is_the_snapshot_and_the_tail_follows(site: Site, shape: Shape) -> None:
    await shape.put(typed("first "))
    await shape.read()
    behind = shape.offset, shape.handle
    for number in range(5):
        await shape.put(typed(f"{number} "))
    await replace_log_by_snapshot(site, site.room("notes"))
    await shape.put(typed("tail "))
    site.room("notes").cache.clear()
    await shape.read()
    assert shape.offset == "7_0"
    assert {row["headers"]["operation"] for row in shape.rows} == {"insert"}
    assert len({row["key"] for row in shape.rows}) == len(shape.rows) <= 3, "a marker, the snapshot, the tail"
    assert sorted(shape.text.split()) == ["0", "1", "2", "3", "4", "first", "tail"]
    assert behind != (shape.offset, shape.handle)
    newcomer = Shape(shape.client)
    await newcomer.read()
    assert newcomer.text == shape.text


async def test_many_updates_are_joined_into_one_row(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_tables, "ROWS_MAX", 5)
    for number in range(10):
        await shape.put(typed(f"{number} "))
    await shape.read()
    assert len(shape.rows) == 1
    assert len(shape.text.split()) == 10
    assert shape.offset == "10_0"


async def test_a_live_read_waits_for_news_and_says_so_when_there_are_none(quick: Site) -> None:
    async with quick.client() as client:
        shape = Shape(client)
        await shape.put(typed("a "))
        await shape.read()
        answer = await shape.live(cursor="")
        assert shape.rows == []
        assert answer.headers["electric-cursor"].isdecimal()
        waiting = asyncio.create_task(shape.live(cursor=answer.headers["electric-cursor"]))
        await shape.put(typed("b "))
        await waiting
        assert sorted(shape.text.split()) == ["a", "b"]
        assert len(shape.rows) == 1, "the marker came at first, and not again"
        assert (await shape.live()).headers["electric-offset"] == "2_0"


async def test_whoever_waits_is_told_when_the_document_is_begun(site: Site, shape: Shape) -> None:
    await shape.read()
    nothing = shape.handle
    waiting = asyncio.create_task(shape.live())
    ann = await Editor.open_synced(site.url("notes"))
    await ann.type("begun")
    await waiting
    assert shape.text == "begun"
    assert shape.handle != nothing
    assert (await shape.ask()).status_code == 200
    shape.handle, shape.offset = nothing, "0_0"
    await shape.read()
    assert shape.text == "begun"


async def test_another_node_goes_on_where_this_one_stopped(site: Site, shape: Shape, database_url: str) -> None:
    await shape.put(typed("one "))
    await shape.read()
    async with running_site(database_url) as other, other.client() as there:
        shape.client = there
        waiting = asyncio.create_task(shape.live())
        ann = await Editor.open_synced(site.url("notes"))
        await ann.type("two ")
        await waiting
    assert sorted(shape.text.split()) == ["one", "two"]


# Events


async def test_events_bring_each_commit_with_the_position_behind_it(shape: Shape) -> None:
    await shape.put(typed("a "))
    await shape.read()
    async with events(shape.client, shape) as messages:
        for number in range(2, 5):
            await shape.put(typed(f"{number} "))
            rows = []
            async for message in messages:
                if "control" in message["headers"]:
                    assert message["headers"] == {"control": "up-to-date", "global_last_seen_lsn": str(number)}
                    break
                rows.append(message)
            shape.take(rows)
    assert sorted(shape.text.split()) == ["2", "3", "4", "a"]


async def test_events_end_when_the_document_is_begun_so_that_its_handle_can_be_told(shape: Shape) -> None:
    await shape.read()
    async with events(shape.client, shape) as messages:
        await shape.put(typed("a "))
        assert [message async for message in messages] == []
    async with events(shape.client, shape) as messages:
        shape.take([await anext(messages), await anext(messages)])
    assert shape.text == "a "


async def test_a_document_that_is_begun_while_the_head_of_events_is_sent_has_its_handle_told(
    site: Site, shape: Shape
) -> None:
    """The head says that nothing is there: rows behind it would leave the reader with an offset of no handle."""
    await shape.read()
    query = {**shape.asks, "offset": shape.offset, "handle": shape.handle or "", "live": "true", "live_sse": "true"}
    sent = []

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.start":
            assert (await shape.put(typed("begun"))).status_code == 204

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {
        "type": "http", "method": "GET", "path": "/v1/shape", "query_string": urlencode(query).encode(),
        "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", site.port),
        "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    await site.app(scope, receive, send)
    assert dict(sent[0]["headers"])[b"electric-handle"].decode() == shape.handle
    assert b"data" not in b"".join(message["body"] for message in sent[1:])
    shape.take((await shape.ask()).json()[:-1])
    assert shape.text == "begun"


async def test_events_end_now_and_then(database_url: str) -> None:
    async with running_site(database_url, sse_close_s=0.3, keepalive_interval_s=0.1) as site, site.client() as client:
        shape = Shape(client)
        await shape.put(typed("a "))
        await shape.read()
        async with events(client, shape) as messages:
            assert [message async for message in messages] == []
        assert not site.room("notes").wakers


# Writing


async def test_what_is_put_is_stored_and_shown_to_every_editor(site: Site, shape: Shape) -> None:
    ann = await Editor.open_synced(site.url("notes"))
    answer = await shape.put(typed("hello"))
    assert (answer.status_code, answer.content) == (204, b"")
    await ann.shows("hello")
    assert await count_stored(site.database, "notes") == 1
    assert site.count('ydoc_updates_total{dialect="electric",result="accepted"}') == 1


async def test_whatever_is_no_frame_is_refused_and_nothing_is_stored(site: Site, client: httpx.AsyncClient) -> None:
    bodies = {
        "nothing": b"",
        "cut": b"\x05abc",
        "no frame": typed("x"),
        "more behind": frame(typed("x")) + b"\0",
        "empty": frame(b""),
        "no update": frame(b"\xff" * 9),
        "no length": b"\xff" * 12,
    }
    for table in (UPDATES, AWARENESS):
        for what, body in bodies.items():
            answer = await client.put("/v1/shape", params=table, content=body)
            assert answer.status_code == 400, (table, what, answer.text)
            assert answer.json()["code"] in ("invalid_request", "invalid_update", "invalid_frame")
    async with site.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 0


async def test_what_is_too_large_is_refused(database_url: str) -> None:
    caps = {"update_bytes_max": 10_000, "awareness_bytes_max": 1_000}
    async with running_site(database_url, **caps) as site, site.client() as client:
        assert (await Shape(client).put(typed("x" * 20_000))).status_code == 413
        assert (await Shape(client, "awareness").put(bytes(2_000))).status_code == 413


async def test_a_request_that_is_none_is_told_what_is_wrong(client: httpx.AsyncClient) -> None:
    for params in ({}, {**UPDATES, "table": "documents"}, {**UPDATES, "where": "true"}, {**UPDATES, "handle": "1-2"}):
        for method in ("GET", "PUT"):
            answer = await client.request(method, "/v1/shape", params=params, content=frame(typed("x")))
            assert answer.status_code == 400, (params, method)
            assert answer.json()["code"] == "invalid_request"
    assert (await client.post("/v1/shape", params=UPDATES)).status_code == 405
