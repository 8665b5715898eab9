"""I19: the change feed over HTTP, as lines, as a long poll and as events; each reader is told what it may read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from tests.appending import Owner, numbered
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.auth.access import Access, Asked, Granted
from ydoc_store.errors import CursorExpired, Forbidden
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.rooms import feed
from ydoc_store.storage.epochs import delete_document
from ydoc_store.storage.feed import FeedPage, read_changes
from ydoc_store.storage.feed_cursor import told_through
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.pool import Database

CHANGES = "/v1/changes"
WAIT_S = 60.0


async def write(
    site: Site, name: str, count: int = 1, *, tenant: str = DEFAULT_TENANT, actor: str | None = None
) -> None:
    """So many commits to a document, each of one update."""
    owner = Owner(site.service.appender, name, tenant)
    for number, update in enumerate(numbered(count), 1):
        owner.put(update, actor=actor)
        await owner.heard_of(number)


async def read(client: httpx.AsyncClient, **parameters: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The changes of one answer, and its checkpoint."""
    answer = await client.get(CHANGES, params=parameters, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    *changes, checkpoint = [orjson.loads(line) for line in answer.text.splitlines()]
    assert checkpoint["type"] == "checkpoint"
    return changes, checkpoint


async def read_all(client: httpx.AsyncClient, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        changes, checkpoint = await read(client, **parameters)
        found += changes
        if checkpoint["at_end"]:
            return found
        parameters["after"] = checkpoint["cursor"]


def placed(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The changes, without how much of the WAL each answer's cursors speak for."""
    return [change | {"cursor": change["cursor"][:64]} for change in changes]


def told(changes: list[dict[str, Any]]) -> list[tuple[str, str, int | None]]:
    return [(change["type"], change["document"], change["seq"]) for change in changes]


async def settled(site: Site, tenant: str = DEFAULT_TENANT) -> None:
    """Returns once nothing committed waits for a transaction of somebody else's."""
    while (await feed.find_newest(site.database, [tenant]))[tenant].is_held:
        pass


async def test_each_line_says_what_happened_and_carries_a_cursor(site: Site, client: httpx.AsyncClient) -> None:
    await write(site, "notes", 2, actor="ann")
    await delete_document(site.database, DEFAULT_TENANT, "notes")
    await settled(site)
    changes, checkpoint = await read(client)
    assert told(changes) == [
        ("created", "notes", None),
        ("append", "notes", 1),
        ("append", "notes", 2),
        ("deleted", "notes", 2),
    ]
    assert changes[2].keys() == {"cursor", "type", "document", "id", "epoch", "seq", "count", "actor", "at"}
    assert (changes[2]["epoch"], changes[2]["count"], changes[2]["actor"]) == (1, 1, "ann")
    assert checkpoint == {"cursor": changes[-1]["cursor"], "type": "checkpoint", "at_end": True}
    for place, change in enumerate(changes):
        assert placed((await read(client, after=change["cursor"]))[0]) == placed(changes[place + 1 :])


async def test_a_limit_ends_an_answer_and_the_next_goes_on(site: Site, client: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await write(site, name, 70)
    await settled(site)
    whole = await read_all(client)
    assert len(whole) == 142
    for limit in (1, 7, 142, 1_000):
        first, checkpoint = await read(client, limit=limit)
        assert placed(first) == placed(whole[:limit])
        assert placed(await read_all(client, limit=60, after=checkpoint["cursor"])) == placed(whole[limit:])


async def test_a_prefix_leaves_out_the_others_and_the_checkpoint_is_behind_them(
    site: Site, client: httpx.AsyncClient
) -> None:
    await write(site, "team/a", 2)
    await write(site, "other", 3)
    await settled(site)
    changes, checkpoint = await read(client, prefix="team/")
    assert told(changes) == [("created", "team/a", None), ("append", "team/a", 1), ("append", "team/a", 2)]
    assert (await read(client, after=checkpoint["cursor"]))[0] == []


async def test_after_now_is_behind_everything(site: Site, client: httpx.AsyncClient) -> None:
    empty = (await read(client, after="now"))[1]["cursor"]
    await write(site, "a")
    await settled(site)
    changes, checkpoint = await read(client, after="now")
    assert changes == []
    assert told((await read(client, after=empty))[0]) == [("created", "a", None), ("append", "a", 1)]
    await write(site, "a")
    await settled(site)
    assert told((await read(client, after=checkpoint["cursor"]))[0]) == [("append", "a", 2)]


async def test_streams_are_not_told(site: Site, client: httpx.AsyncClient) -> None:
    lines = {"Content-Type": "text/plain"}
    assert (await client.put("/v1/stream/log", headers=lines)).status_code == 201
    assert (await client.post("/v1/stream/log", content=b"line", headers=lines)).status_code == 204
    await write(site, "a")
    await settled(site)
    assert told((await read(client))[0]) == [("created", "a", None), ("append", "a", 1)]


# Waiting


async def test_a_poll_is_answered_by_what_is_committed_here(site: Site, client: httpx.AsyncClient) -> None:
    await write(site, "a")
    await settled(site)
    _, checkpoint = await read(client)
    followed = following(site, 1)
    poll = asyncio.create_task(read(client, after=checkpoint["cursor"], wait_s=30))
    await followed
    await write(site, "a")
    changes, _ = await poll
    assert told(changes) == [("append", "a", 2)]
    assert site.service.rooms.feeds.followers == 0


async def following(site: Site, count: int) -> None:
    """Returns once so many follow here, and the feed was looked at since."""
    feeds = site.service.rooms.feeds
    looked = asyncio.Event()
    feeds.looked = looked.set
    async with asyncio.timeout(WAIT_S):
        while feeds.followers < count:
            looked.clear()
            await looked.wait()
        looked.clear()
        await looked.wait()


async def test_a_poll_is_answered_by_what_is_committed_on_another_node(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    _, checkpoint = await read(client, after="now")
    async with running_site(database_url) as other:
        poll = asyncio.create_task(read(client, after=checkpoint["cursor"], wait_s=30))
        await following(site, 1)
        await write(other, "a")
        changes, _ = await poll
    # The document's beginning may be told alone, by a look between the two commits.
    assert told(changes)[0] == ("created", "a", None)


async def test_a_poll_for_one_document_sleeps_through_the_others(site: Site, client: httpx.AsyncClient) -> None:
    poll = asyncio.create_task(read(client, after="now", wait_s=30, prefix="mine"))
    await following(site, 1)
    await write(site, "theirs", 3)
    await settled(site)
    await write(site, "mine")
    assert told((await poll)[0])[0] == ("created", "mine", None)


async def test_a_poll_for_which_nothing_comes_ends_with_its_checkpoint(database_url: str) -> None:
    async with running_site(database_url, long_poll_timeout_s=0.2) as site, site.client() as client:
        changes, checkpoint = await read(client, after="now", wait_s=1_000)
        assert changes == []
        assert checkpoint["at_end"]
        assert (await read(client, after=checkpoint["cursor"]))[0] == []


async def test_a_drain_ends_the_polls_and_the_streams(site: Site, client: httpx.AsyncClient) -> None:
    polls = [asyncio.create_task(read(client, after="now", wait_s=30)) for _ in range(3)]
    async with client.stream("GET", CHANGES, headers={"Accept": "text/event-stream"}, timeout=WAIT_S) as stream:
        await following(site, 4)
        site.phase.draining()
        for poll in polls:
            assert (await poll)[1]["type"] == "checkpoint"
        async for _ in stream.aiter_bytes():
            pass


async def test_a_hundred_that_wait_cost_one_query_an_interval(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"look": 0, "read": 0}
    find_newest = feed.find_newest

    async def look(*arguments: Any) -> Any:
        asked["look"] += 1
        return await find_newest(*arguments)

    async def read_on(*arguments: Any) -> Any:
        asked["read"] += 1
        return await read_changes(*arguments)

    monkeypatch.setattr(feed, "find_newest", look)
    monkeypatch.setattr(feed, "read_changes", read_on)
    crowd = httpx.Limits(max_connections=None)
    async with (
        running_site(database_url, poll_interval_s=0.2) as site,
        httpx.AsyncClient(base_url=site.http_url, limits=crowd) as client,
    ):
        await write(site, "a")
        await settled(site)
        cursor = (await read(client))[1]["cursor"]
        polls = [asyncio.create_task(read(client, after=cursor, wait_s=30)) for _ in range(100)]
        await following(site, 100)
        # Each read once when it came, and those that the first look woke read once more.
        before, looks = dict(asked), 0
        finished = asyncio.Event()

        def looked() -> None:
            nonlocal looks
            looks += 1
            if looks == 5:
                finished.set()

        site.service.rooms.feeds.looked = looked
        await finished.wait()
        assert asked == {"look": before["look"] + 5, "read": before["read"]}
        await write(site, "a")
        assert {told(changes)[0] for changes, _ in await asyncio.gather(*polls)} == {("append", "a", 2)}
        # And what they were woken for was read for all of them at once.
        assert asked["read"] - before["read"] <= 3


# Events


async def test_whoever_stands_at_one_place_is_read_for_once_and_judged_by_what_each_was_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cursors of one place are hardly ever one text: whatever is written in the database moves what they say."""
    await write(site, "doc")
    await settled(site)
    feeds = site.service.rooms.feeds
    cursors = []
    for _ in range(5):
        cursors.append(await feeds.newest_cursor(DEFAULT_TENANT))
        async with site.database.acquire() as connection:
            await connection.execute("SELECT pg_logical_emit_message(true, 'a', 'commit')")
    assert (len(set(cursors)), len({cursor[:64] for cursor in cursors})) == (5, 1)
    reads = 0

    async def counting(*arguments: Any) -> FeedPage:
        nonlocal reads
        reads += 1
        return await read_changes(*arguments)

    monkeypatch.setattr(feed, "read_changes", counting)
    async with contextlib.AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(feeds.follow(DEFAULT_TENANT)) for _ in cursors]
        reading = [follower.read(cursor, 500) for follower, cursor in zip(followers, cursors, strict=True)]
        pages = await asyncio.gather(*reading)
        assert reads == 1
        assert [page.cursor for page in pages] == cursors
        # One of them was told what this database does not have.
        lost = told_through(cursors[0], 2**62)
        for places in ([lost, *cursors], [*cursors, lost]):
            asked = [followers[0].read(cursor, 500) for cursor in places]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [
                CursorExpired if cursor is lost else FeedPage for cursor in places
            ]


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Each event's fields, as a browser's EventSource reads them."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            if "data" in fields:
                yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


async def test_events_bring_what_is_there_and_what_comes_and_go_on_where_they_were_cut(
    site: Site, client: httpx.AsyncClient
) -> None:
    await write(site, "a", 3)
    await settled(site)
    headers = {"Accept": "text/event-stream"}
    async with client.stream("GET", CHANGES, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer)
        found = [await anext(stream) for _ in range(5)]
        assert [event.get("event") for event in found] == [None] * 4 + ["checkpoint"]
        assert [orjson.loads(event["data"])["seq"] for event in found[:4]] == [None, 1, 2, 3]
        assert all(event["id"] == orjson.loads(event["data"])["cursor"] for event in found)
        await write(site, "a")
        assert orjson.loads((await anext(stream))["data"])["seq"] == 4
    async with client.stream("GET", CHANGES, headers=headers | {"Last-Event-ID": found[1]["id"]}) as answer:
        stream = events(answer)
        assert [orjson.loads((await anext(stream))["data"])["seq"] for _ in range(3)] == [2, 3, 4]


async def test_a_stream_of_events_ends_now_and_then(database_url: str) -> None:
    async with (
        running_site(database_url, sse_close_s=0.3, keepalive_interval_s=0.1) as site,
        site.client() as client,
        client.stream("GET", CHANGES, headers={"Accept": "text/event-stream"}) as answer,
    ):
        text = "".join([piece async for piece in answer.aiter_text()])
    assert text.count("event: checkpoint") >= 1
    assert ": \n\n" in text


# Who may


async def test_a_token_is_told_of_the_documents_that_it_may_read_and_of_no_other_tenants(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        for tenant in ("one", "two"):
            for name in ("team/a", "secret"):
                await write(site, name, tenant=tenant)
        await settled(site, "one")
        await settled(site, "two")
        async with site.client(token(tenant="one")) as client:
            assert {change["document"] for change in await read_all(client)} == {"team/a", "secret"}
            ids = {change["id"] for change in await read_all(client)}
            cursor = (await read(client))[1]["cursor"]
        async with site.client(token(documents={"team/*": "read"}, tenant="one")) as client:
            assert {change["document"] for change in await read_all(client)} == {"team/a"}
        async with site.client(token(documents={}, tenant="one")) as client:
            assert (await client.get(CHANGES)).status_code == 403
        async with site.client(token(tenant="two")) as client:
            assert ids.isdisjoint(change["id"] for change in await read_all(client))
            assert (await client.get(CHANGES, params={"after": cursor})).status_code == 410
        async with site.client() as client:
            assert (await client.get(CHANGES)).status_code == 401


def decide(asked: Asked) -> Granted:
    """The application: a token is a team's name, whose documents it lists."""
    assert asked.document == "*"
    if asked.token != "team":
        raise Forbidden("no")
    return Granted(DEFAULT_TENANT, asked.token, Access.NONE, documents={"team/*": Access.READ, "one": Access.WRITE})


async def test_an_application_says_what_a_follower_is_told_of(database_url: str) -> None:
    async with running_site(database_url, authorize=f"{__name__}:decide") as site:
        for name in ("team/a", "one", "other"):
            await write(site, name)
        await settled(site)
        async with site.client("team") as client:
            assert {change["document"] for change in await read_all(client)} == {"team/a", "one"}
            listed = (await client.get("/v1/stream/documents")).json()
            assert [message["key"] for message in listed if message["headers"]["operation"] == "insert"] == [
                "one",
                "team/a",
            ]
            found = (await client.get("/v1/documents")).json()["documents"]
            assert [document["name"] for document in found] == ["one", "team/a"]
            # Not all that there is.
            assert (await client.get("/v1/revocations")).status_code == 403
        async with site.client("nobody") as client:
            assert (await client.get(CHANGES)).status_code == 403


async def test_what_was_taken_back_for_one_document_is_not_told(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        for name in ("a", "b"):
            await write(site, name, tenant="default")
        await settled(site)
        async with site.client(token(documents={"*": "admin"}, iat=1)) as client:
            assert {change["document"] for change in await read_all(client)} == {"a", "b"}
            assert (await client.post("/v1/revocations", json={"document": "a"})).status_code == 201
            await site.service._refresh_revocations()
            assert {change["document"] for change in await read_all(client)} == {"b"}


# What is refused


@pytest.mark.parametrize(
    "parameters",
    [
        {"after": "x"},
        {"limit": "0"},
        {"limit": "10001"},
        {"limit": "1.5"},
        {"limit": "many"},
        {"wait_s": "-1"},
        {"wait_s": "nan"},
        {"prefix": "\0"},
        [("limit", "1"), ("limit", "2")],
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_reason(client: httpx.AsyncClient, parameters: Any) -> None:
    answer = await client.get(CHANGES, params=parameters)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


async def asked_again(
    client: httpx.AsyncClient, path: str, parameters: dict[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    """The answer once the node has cut what it had open to the database before the restore."""
    while True:
        answer = await client.get(path, params=parameters, headers=headers)
        if answer.status_code != 503:
            return answer


async def test_a_restore_expires_every_cursor(site: Site, client: httpx.AsyncClient, database: Database) -> None:
    await write(site, "a")
    _, checkpoint = await read(client)
    # Not over the site's own pool, which it drops when it hears of this.
    await bump_incarnation(database)
    for headers in ({}, {"Accept": "text/event-stream"}):
        answer = await asked_again(client, CHANGES, {"after": checkpoint["cursor"]}, headers)
        assert answer.status_code == 410
        assert answer.json()["code"] == "cursor_expired"
        assert "after=now" in answer.json()["detail"]
