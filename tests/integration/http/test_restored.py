"""After a restore the same names, ids and seqs may mean something else: nothing of before is handed out (I11).

It is told on a pool of its own: those who hear of it cut every connection of theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from tests.integration.http.stream_copies import created, path_of, typed
from tests.sites import Site
from tests.waiting import until
from ydoc_store.http.tokens import SnapshotAt, Token
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.pool import Database


async def test_what_was_kept_of_the_database_before_is_handed_out_to_nobody(
    site: Site, client: httpx.AsyncClient, database: Database, compacted: Callable[..., Awaitable[int]]
) -> None:
    await created(client, typed("before"))
    snapshot = str(SnapshotAt(Token(1, await compacted())))
    etags = {}
    for offset in (snapshot, "-1"):
        before = await client.get(path_of(), params={"offset": offset})
        assert b"before" in before.content
        etags[offset] = before.headers["etag"]
    async with database.acquire() as connection:
        # The same bytes otherwise: its ranges, which are stored beside it, stay true.
        await connection.execute(
            "UPDATE ydoc.snapshots SET bytes = overlay(bytes PLACING 'behind' FROM position('before'::bytea IN bytes))"
        )
    room = site.room("notes")
    await bump_incarnation(database)
    await until(lambda: room.closed_by is not None)
    for offset, etag in etags.items():
        for headers in ({}, {"If-None-Match": etag}):
            after = await client.get(path_of(), params={"offset": offset}, headers=headers)
            assert (after.status_code, b"behind" in after.content, b"before" in after.content) == (200, True, False)


async def test_nor_is_a_page_of_a_stream_that_a_browser_keeps_called_the_same(
    site: Site, client: httpx.AsyncClient, database: Database
) -> None:
    plain = {"Content-Type": "text/plain"}
    assert (await client.put("/v1/stream/log", content=b"before", headers=plain)).status_code == 201
    before = await client.get("/v1/stream/log")
    asked = {"If-None-Match": before.headers["etag"]}
    assert (await client.get("/v1/stream/log", headers=asked)).status_code == 304
    stream = await site.service.rooms.streams.find("default", "log")
    async with database.acquire() as connection:
        await connection.execute("UPDATE ydoc.updates SET frames = overlay(frames PLACING 'behind' FROM 2)")
    await bump_incarnation(database)
    await until(lambda: stream.gone is not None)
    after = await client.get("/v1/stream/log", headers=asked)
    assert (after.status_code, after.content) == (200, b"behind")


async def test_nor_is_what_was_read_of_the_change_feed(
    site: Site, client: httpx.AsyncClient, database: Database
) -> None:
    await created(client, typed("before"))
    room = site.room("notes")
    feeds = site.service.rooms.feeds
    async with feeds.follow("default") as follower:
        cursor = await feeds.newest_cursor("default")
        # A look at the feed may come between, which forgets pages too.
        while not follower._followed.pages:
            await follower.read(cursor, 10)
        await bump_incarnation(database)
        await until(lambda: room.closed_by is not None)
        assert not follower._followed.pages
