"""`/v1/shape` as its answers are: rows, words, headers, and which status ends or repeats a stock client's reading.

The stock provider itself is in tests/interop/test_electric.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pycrdt import Doc, Text
from starlette.types import Message

from tests.integration.relay.test_contribution import typed
from tests.nodes import Editor, count_stored, new_doc, replace_log_by_snapshot
from tests.sites import Site, running_site
from tests.stored import LOSE_LAST_ROW
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.errors import RoomDiscarded
from ydoc_store.http import shape_tables
from ydoc_store.storage import epochs
from ydoc_store.storage.epochs import delete_document, recreate_document, replace_content
from ydoc_store.storage.incarnation import BUMP, bump_incarnation
from ydoc_store.storage.pool import Database
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import frame, frames

NAMED = {"where": "document = $1", "params[1]": "notes"}
UPDATES = {"table": "updates", **NAMED}
AWARENESS = {"table": "awareness", **NAMED}
QUICK = {"long_poll_timeout_s": 0.3}


class Shape:
    """What a client of one table keeps between its requests, and what it makes of the rows."""

    def __init__(self, client: httpx.AsyncClient, table: str = "updates") -> None:
        self.client = client
        self.asks = {"table": table, **NAMED}
        self.handle: str | None = None
        self.offset = "-1" if table == "updates" else "now"
        self.doc: Doc[Any] = new_doc()
        self.present: dict[int, AwarenessEntry] = {}
        self.rows: list[dict[str, Any]] = []

    async def ask(self, **more: str) -> httpx.Response:
        held = {} if self.handle is None else {"handle": self.handle}
        return await self.client.get("/v1/shape", params={**self.asks, "offset": self.offset, **held, **more})

    async def read(self, **more: str) -> httpx.Response:
        answer = await self.ask(**more)
        assert answer.status_code == 200, answer.text
        *self.rows, last = answer.json()
        assert last["headers"]["control"] == "up-to-date"
        assert f"{last['headers']['global_last_seen_lsn']}_0" == answer.headers["electric-offset"]
        self.take(self.rows)
        self.handle, self.offset = answer.headers["electric-handle"], answer.headers["electric-offset"]
        return answer

    async def live(self, **more: str) -> httpx.Response:
        return await self.read(live="true", **more)

    def take(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            assert row["headers"]["operation"] != "delete"
            (payload,) = frames(bytes.fromhex(row["value"]["op"].removeprefix("\\x")))
            if self.asks["table"] == "updates":
                self.doc.apply_update(payload)
            else:
                (entry,) = decode_awareness(payload, entries_max=1, bytes_max=20_000, json_depth_max=64)
                self.present[entry.client_id] = entry

    @property
    def text(self) -> str:
        return str(self.doc.get("text", type=Text))

    async def put(self, payload: bytes, **more: str) -> httpx.Response:
        return await self.client.put("/v1/shape", params={**self.asks, **more}, content=frame(payload))


@pytest.fixture
def shape(client: httpx.AsyncClient) -> Shape:
    return Shape(client)


@pytest.fixture
async def quick(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url, **QUICK) as site:
        yield site


def shown(client_id: int, clock: int, state: str | None = "{}") -> bytes:
    return encode_awareness_entries([AwarenessEntry(client_id, clock, state)])


@contextlib.asynccontextmanager
async def events(client: httpx.AsyncClient, shape: Shape) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The messages of a stream, as they come."""
    asks = {**shape.asks, "offset": shape.offset, "handle": shape.handle or "", "live": "true", "live_sse": "true"}
    async with client.stream("GET", "/v1/shape", params=asks) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["electric-handle"]
        assert answer.headers["electric-cursor"]

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

        yield messages()


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


# Whose history it is


async def test_another_epoch_is_gone_for_good_for_who_reads_and_who_writes(site: Site, shape: Shape) -> None:
    """I10: a 409 would have the client read the new epoch into the old one's document."""
    await shape.put(typed("old"))
    await shape.read()
    waiting = asyncio.create_task(shape.ask(live="true"))
    await replace_content(site.database, "default", "notes", None, epoch=1)
    assert (await waiting).status_code == 410
    for answer in (
        await shape.ask(),
        await shape.ask(live="true"),
        await shape.ask(live="true", live_sse="true"),
        await shape.ask(offset="-1"),
        await shape.put(typed("from the old tab"), handle=shape.handle or ""),
    ):
        assert (answer.status_code, answer.json()["code"]) == (410, "epoch_changed")
        assert answer.headers["content-type"] == "application/problem+json"
    fresh = Shape(shape.client)
    await fresh.read()
    assert fresh.text == ""
    assert (await fresh.put(typed("new"), handle=fresh.handle or "")).status_code == 204
    untold = await fresh.put(typed("from a tab that does not say"))
    assert (untold.status_code, untold.json()["code"]) == (410, "epoch_changed")
    assert "handle" in untold.json()["detail"]
    await fresh.read()
    assert fresh.text == "new"


async def test_a_deleted_document_is_gone_and_a_recreated_one_is_another(site: Site, shape: Shape) -> None:
    await shape.put(typed("old"))
    await shape.read()
    await delete_document(site.database, "default", "notes")
    await site.service.rooms.watch.poll()
    for answer in (await shape.ask(), await shape.put(typed("x"), handle=shape.handle or "")):
        assert (answer.status_code, answer.json()["code"]) == (410, "document_deleted")
    await recreate_document(site.database, "default", "notes")
    assert (await shape.ask()).json()["code"] == "epoch_changed"


async def test_the_same_epoch_in_a_database_that_was_restored_is_read_again(site: Site, shape: Shape) -> None:
    await shape.put(typed("kept "))
    await shape.read()
    stale = shape.handle
    await restored(site)
    answer = await shape.ask()
    assert answer.status_code == 409
    assert answer.json() == [{"headers": {"control": "must-refetch"}}]
    shape.handle, shape.offset = answer.headers["electric-handle"], "-1"
    assert shape.handle != stale
    await shape.read(expired_handle=stale or "")
    assert shape.text == "kept "


async def test_who_holds_more_than_the_restored_database_has_reads_it_again_too(site: Site, shape: Shape) -> None:
    """It is the same history, and what was lost comes back from whoever holds it."""
    await shape.put(typed("kept "))
    await shape.read()
    shape.offset = "5_0"
    assert (await shape.ask()).json()["code"] == "epoch_changed", "no node can have told it so"
    await restored(site)
    for way in ({}, {"live": "true"}, {"live": "true", "live_sse": "true"}):
        answer = await shape.ask(**way)
        assert answer.status_code == 409
    shape.handle, shape.offset = answer.headers["electric-handle"], "-1"
    await shape.read()
    assert (shape.text, shape.offset) == ("kept ", "1_0")


@pytest.mark.parametrize("is_lost", [False, True], ids=["unnoticed", "connection lost"])
async def test_nobody_is_sent_away_before_a_failover_is_noticed(database_url: str, *, is_lost: bool) -> None:
    """I11: a node may hear of the other database only with its next poll, or with a connection that it lost."""
    async with running_site(database_url, poll_interval_s=3_600) as site, site.client() as client:
        shape = Shape(client)
        await shape.put(typed("kept "))
        await shape.put(typed("lost "))
        await shape.read()
        await site.service.rooms.watch.poll()
        async with site.database.acquire() as connection:
            assert await connection.execute(LOSE_LAST_ROW, "notes") == "UPDATE 1"
            await connection.execute(BUMP)
        if is_lost:
            site.service.rooms.discard_all(RoomDiscarded("the connection was lost"))
        else:
            site.service.rooms.close(site.room("notes"))
            answer = await shape.ask()
            assert (answer.status_code, answer.json()["code"]) == (503, "room_discarded")
        answer = await shape.ask()
        assert answer.status_code == 409
        shape.handle, shape.offset = answer.headers["electric-handle"], "-1"
        await shape.read()
        assert shape.offset == "1_0"


async def test_an_offset_with_the_handle_of_nothing_is_refused(shape: Shape) -> None:
    await shape.read()
    shape.offset = "1_0"
    await shape.put(typed("x"))
    answer = await shape.ask()
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_who_wrote_to_an_epoch_that_it_was_never_told_of_is_not_let_into_the_next(
    site: Site, shape: Shape
) -> None:
    await shape.read()
    nothing = shape.handle or ""
    assert (await shape.put(typed("old"), handle=nothing)).status_code == 204
    assert (await shape.put(typed("older"), handle=nothing)).status_code == 204, "it is the first epoch still"
    await replace_content(site.database, "default", "notes", None, epoch=1)
    assert (await shape.put(typed("late"), handle=nothing)).json()["code"] == "epoch_changed"
    assert (await shape.ask()).json()["code"] == "epoch_changed"


async def test_a_node_that_has_not_heard_of_a_new_epoch_sends_nobody_of_it_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10: the database is asked before anybody is told to throw away what they hold."""

    async def unheard(_connection: object, _document_id: int) -> None:
        """As a hint that was lost."""

    monkeypatch.setattr(epochs, "tell_changed", unheard)
    async with running_site(database_url, poll_interval_s=3_600) as behind, behind.client() as client:
        shape = Shape(client)
        await shape.put(typed("old"))
        await shape.read()
        waiting = asyncio.create_task(shape.ask(live="true"))
        await has_reader(behind)
        await replace_content(behind.database, "default", "notes", None, epoch=1)
        async with running_site(database_url) as ahead, ahead.client() as there:
            newcomer = Shape(there)
            await newcomer.read()
        newcomer.client = client
        for again in (newcomer.put(typed("new"), handle=newcomer.handle or ""), newcomer.ask()):
            answer = await again
            assert answer.status_code in (503, 200)
        assert (await waiting).status_code == 410
        assert (await newcomer.put(typed("new"), handle=newcomer.handle or "")).status_code == 204
        await newcomer.read()
    assert newcomer.text == "new"


async def restored(site: Site) -> None:
    """As the runbook of a restore has it; returns when the node has noticed."""
    room = site.room("notes")
    # Not over the site's own pool, which it drops when it hears of this.
    database = await Database.open(site.database.url)
    await bump_incarnation(database)
    await database.close()
    await site.room_closed(room)


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


async def has_reader(site: Site, count: int = 1) -> None:
    rooms = site.service.rooms.rooms
    await until(lambda: sum(len(room.wakers) for room in rooms.values()) >= count)


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
