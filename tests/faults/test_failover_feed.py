"""Row "failover to a lagging standby", for the change feed: whoever was told of nothing that is lost goes on.

Everybody else begins again, and hears so: what a follower has made of the changes is never left beside a database
that does not have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.faults.standby import DATABASE, Pair, followed
from tests.integration.http.test_changes import CHANGES, asked_again
from tests.integration.http.test_document_list import LIST, Reader
from tests.log_rows import Writer
from tests.postgres import Cluster
from tests.sites import Site, running_site
from tests.stored import connecting
from tests.waiting import until
from ydoc_store.errors import CursorExpired, ServerFault
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.beginnings import create_empty
from ydoc_store.storage.commits import note
from ydoc_store.storage.feed import find_newest, newest_cursor, read_changes
from ydoc_store.storage.feed_cursor import told_through
from ydoc_store.storage.pool import Database
from ydoc_store.storage.timelines import NOTE_TIMELINE


async def write(client: httpx.AsyncClient, name: str, update: bytes) -> None:
    """One update over HTTP, once the node that takes it has found the database that there is now."""
    headers = {"Content-Type": "application/octet-stream"}
    while True:
        answer = await client.post(f"/v1/documents/{name}", content=update, headers=headers)
        if answer.is_success:
            return
        assert answer.status_code in (409, 503), answer.text


async def changes(client: httpx.AsyncClient, after: str) -> list[dict[str, Any]]:
    answer = await asked_again(client, CHANGES, {"after": after})
    assert answer.status_code == 200, answer.text
    return [httpx.Response(200, content=line).json() for line in answer.text.splitlines()]


class PatientReader(Reader):
    """Comes back for as long as the node looks for its database."""

    async def get(self, parameters: dict[str, str]) -> httpx.Response:
        return await asked_again(self.client, LIST, parameters)


async def settled(site: Site) -> None:
    """Returns once all that was committed can be read, in whichever database there is."""

    async def is_settled() -> bool:
        with contextlib.suppress(ServerFault):
            return not (await find_newest(site.database, [DEFAULT_TENANT]))[DEFAULT_TENANT].is_held
        return False

    await until(is_settled)


def told(lines: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    return [(line["type"], line.get("seq")) for line in lines]


@contextlib.asynccontextmanager
async def opened(url: str, *, statement_timeout_s: float = 30) -> AsyncIterator[Database]:
    database = await Database.open(url, pool_size=2, statement_timeout_s=statement_timeout_s)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def site(pair: Pair) -> AsyncIterator[Site]:
    async with running_site(pair.switch.url, room_idle_s=0) as started:
        yield started


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as opened_client:
        yield opened_client


async def test_a_follower_who_was_told_of_nothing_that_is_lost_goes_on_behind_it(
    pair: Pair, site: Site, client: httpx.AsyncClient
) -> None:
    """I5 I11: the window is told to nobody again, and its seqs come with what took their place."""
    words = Writer().type_each("abcdef")
    for update in words[:2]:
        await write(client, "doc", update)
    await settled(site)
    *_, checkpoint = await changes(client, "")
    lister = PatientReader(client)
    await lister.catch_up()
    await pair.caught_up()
    pair.line.stall()
    await write(client, "doc", words[2])
    await settled(site)
    in_the_window = await changes(client, checkpoint["cursor"])
    assert told(in_the_window) == [("append", 3), ("checkpoint", None)]
    lister_in_the_window = PatientReader(client)
    await lister_in_the_window.catch_up()
    await pair.fall_over()
    for path, parameters in (
        (CHANGES, {"after": in_the_window[-1]["cursor"]}),
        (LIST, {"offset": lister_in_the_window.offset}),
    ):
        answer = await asked_again(client, path, parameters)
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    for update in words[2:4]:
        await write(client, "doc", update)
    await settled(site)
    lines = await changes(client, checkpoint["cursor"])
    assert told(lines) == [("taken_over", None), ("append", 3), ("append", 4), ("checkpoint", None)]
    # Told once.
    assert told(await changes(client, lines[0]["cursor"])) == [("append", 3), ("append", 4), ("checkpoint", None)]
    await lister.catch_up()
    assert lister.documents["doc"]["seq"] == 4


async def test_whoever_streams_is_told_on_its_stream_or_when_it_comes_back(
    pair: Pair, site: Site, client: httpx.AsyncClient
) -> None:
    words = Writer().type_each("abc")
    await write(client, "doc", words[0])
    await settled(site)
    seqs: list[int] = []
    types: list[str] = []
    cursor = ""

    async def listen(until_seq: int) -> None:
        nonlocal cursor
        while True:
            headers = {"Accept": "text/event-stream"}
            with contextlib.suppress(httpx.HTTPError):
                async with client.stream("GET", CHANGES, params={"after": cursor}, headers=headers) as answer:
                    assert answer.status_code in (200, 503)
                    async for line in answer.aiter_lines():
                        if answer.status_code == 200 and line.startswith("data: "):
                            event = httpx.Response(200, content=line.removeprefix("data: ")).json()
                            cursor = event["cursor"]
                            types.append(event["type"])
                            if event["type"] == "append":
                                seqs.append(event["seq"])
                            if seqs and seqs[-1] == until_seq and event["type"] == "checkpoint":
                                return

    await listen(1)
    await pair.caught_up()
    await pair.fall_over()
    for update in words[1:]:
        await write(client, "doc", update)
    await listen(3)
    assert seqs == [1, 2, 3]
    assert types.count("taken_over") == 1


async def test_what_was_committed_before_it_and_is_lost_takes_a_cursor_with_it_whose_own_row_is_there(
    pair: Pair,
) -> None:
    """The feed's order is not the WAL's: the last row that was told was replicated, and one before it was not."""
    async with opened(pair.primary.url(DATABASE)) as database:
        await create_empty(database, "t", "slow")
        slow_id = (await read_changes(database, "t", None)).changes[0].document_id
        start = (await read_changes(database, "t", None)).cursor
        async with database.transaction() as connection:
            await note(connection, "deleted", slow_id, seq=0)
            await create_empty(database, "t", "fast")
            assert (await find_newest(database, ["t"]))["t"].is_held
            await pair.caught_up()
            pair.line.stall()
        told = await read_changes(database, "t", start)
        assert [change.what for change in told.changes] == ["deleted", "created"]
    await pair.take_over()
    async with opened(pair.standby.url(DATABASE)) as database:
        left = (await read_changes(database, "t", None)).changes
        assert [change.name for change in left] == ["slow", "fast"], "the row of its place is there"
        with pytest.raises(CursorExpired, match="without all that was told"):
            await read_changes(database, "t", told.cursor)
        assert [change.name for change in (await read_changes(database, "t", start)).changes] == ["fast"]


async def test_a_list_that_showed_a_document_that_is_lost_is_read_anew(
    pair: Pair, site: Site, client: httpx.AsyncClient
) -> None:
    """What the list looks up is ahead of the feed: its offset speaks for that too."""
    await write(client, "kept", Writer().type("x"))
    await settled(site)
    before = PatientReader(client)
    await before.catch_up()
    async with connecting(pair.primary.url(DATABASE)) as somebody, somebody.transaction():
        # Holds the feed back, so that the cursor stays where it is.
        await somebody.fetchval("SELECT pg_current_xact_id()")
        await pair.caught_up()
        pair.line.stall()
        await write(client, "lost", Writer().type("y"))
        reader = PatientReader(client)
        assert await reader.catch_up() == ["kept", "lost"]
        assert reader.offset[:64] == before.offset[:64]
    await pair.fall_over()
    answer = await asked_again(client, LIST, {"offset": reader.offset})
    assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
    assert await before.catch_up() == ["kept"]


async def test_a_standby_of_who_took_over_is_on_the_same_timeline_before_its_own_checkpoint(pair: Pair) -> None:
    """Its control file names the old one for minutes, and readers are sent there."""
    async with opened(pair.primary.url(DATABASE)) as database:
        await create_empty(database, "t", "before")
        told = (await read_changes(database, "t", None)).cursor
    await pair.caught_up()
    async with followed(pair.standby) as (reader, _):
        await pair.take_over()
        async with opened(pair.standby.url(DATABASE)) as there, opened(reader.url(DATABASE)) as here:
            await create_empty(there, "t", "after")
            await newest_cursor(there, "t")

            async def has_replayed() -> bool:
                async with here.acquire() as connection:
                    rows = await connection.fetch("SELECT t.timeline FROM ydoc.timelines AS t ORDER BY t.timeline")
                names = [change.name for change in (await read_changes(here, "t", None)).changes]
                return ([row[0] for row in rows], names) == ([1, 2], ["before", "after"])

            await until(has_replayed)
            page = await read_changes(here, "t", told)
            assert ([change.name for change in page.changes], page.taken_over is not None) == (["after"], True)
            with pytest.raises(CursorExpired, match="without all that was told"):
                await read_changes(here, "t", told_through(told, 2**62))
            for database in (here, there):
                assert (await read_changes(database, "t", page.cursor)).taken_over is None


@pytest.mark.parametrize("is_noted", [True, False])
async def test_where_a_server_took_over_is_known_after_its_restart_if_a_node_has_seen_it(
    pair: Pair, is_noted: bool
) -> None:
    async with opened(pair.primary.url(DATABASE)) as database:
        await create_empty(database, "t", "a")
        cursor = await newest_cursor(database, "t")
        if is_noted:
            await pair.caught_up()
            cursor = await read_by_the_standby(pair, cursor)
    await pair.caught_up()
    await pair.take_over()
    if is_noted:
        async with running_site(pair.standby.url(DATABASE)) as seer:
            await seer.service.rooms.watch.poll()
    pair.standby.stop()
    pair.standby.start()
    async with opened(pair.standby.url(DATABASE)) as database:
        if is_noted:
            page = await read_changes(database, "t", cursor)
            assert (page.changes, page.taken_over is not None) == ([], True)
        else:
            with pytest.raises(CursorExpired, match="another one took over"):
                await read_changes(database, "t", cursor)


async def read_by_the_standby(pair: Pair, cursor: str) -> str:
    """The cursor that it hands out for all that there is, once it has replayed what the primary's is behind."""
    async with opened(pair.standby.url(DATABASE)) as database:

        async def has_replayed() -> bool:
            with contextlib.suppress(CursorExpired):
                return not (await read_changes(database, "t", cursor)).changes
            return False

        await until(has_replayed)
        return (await read_changes(database, "t", None)).changes[-1].cursor


async def test_a_server_that_replayed_its_own_log_behind_a_crash_was_no_standby(mortal_cluster: Cluster) -> None:
    async with opened(mortal_cluster.url(DATABASE)) as database:
        await create_empty(database, "t", "a")
        cursor = await newest_cursor(database, "t")
    mortal_cluster.kill()
    mortal_cluster.start()
    async with opened(mortal_cluster.url(DATABASE)) as database:
        # A crash loses nothing, and expires nothing.
        assert (await read_changes(database, "t", cursor)).taken_over is None
        async with database.acquire() as connection:
            assert await connection.fetchval("SELECT pg_last_wal_replay_lsn()") is not None
            # Of another number than the server's own nothing is noted.
            for timeline in (1, 2):
                await connection.execute(NOTE_TIMELINE, 7, timeline)
            noted = await connection.fetch("SELECT timeline, began_at FROM ydoc.timelines WHERE system_identifier = 7")
            assert [tuple(row) for row in noted] == [(1, None)]


async def test_a_server_whose_standby_is_away_holds_up_nobody_who_reads_the_feed(mortal_cluster: Cluster) -> None:
    """It may have taken over a moment ago: its timeline is noted all the same, before the feed can be read."""
    url = mortal_cluster.url(DATABASE)
    async with connecting(url) as operator, opened(url, statement_timeout_s=600) as database:
        await operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await operator.execute("SELECT pg_reload_conf()")

        async def write_until_held() -> None:
            for number in itertools.count():
                await create_empty(database, "t", str(number))

        held = asyncio.create_task(write_until_held())

        async def is_held() -> bool:
            return bool(await operator.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))

        await until(is_held)
        async with asyncio.timeout(60):
            await newest_cursor(database, "t")
        assert await operator.fetchval("SELECT count(*) FROM ydoc.timelines") == 1
        assert not held.done()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
