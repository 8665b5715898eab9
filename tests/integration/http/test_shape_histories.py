"""Whose history a reader or a writer of `/v1/shape` holds: which status ends, repeats or begins anew what it reads."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.http.shape_reader import Shape, has_reader
from tests.integration.relay.test_contribution import typed
from tests.sites import Site, running_site
from tests.stored import LOSE_LAST_ROW
from ydoc_store.errors import RoomDiscarded
from ydoc_store.storage import epochs
from ydoc_store.storage.epochs import delete_document, recreate_document, replace_content
from ydoc_store.storage.incarnation import BUMP, bump_incarnation
from ydoc_store.storage.pool import Database


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


@pytest.mark.parametrize("hears", ["that its connection is lost", "nothing"])
async def test_nobody_is_sent_away_before_another_database_is_noticed(database_url: str, hears: str) -> None:
    """I11: the next poll would tell."""
    async with running_site(database_url, poll_interval_s=3_600) as site, site.client() as client:
        shape = Shape(client)
        await shape.put(typed("kept "))
        await shape.put(typed("lost "))
        await shape.read()
        await site.service.rooms.watch.poll()
        async with site.database.acquire() as connection:
            assert await connection.execute(LOSE_LAST_ROW, "notes") == "UPDATE 1"
            await connection.execute(BUMP)
        if hears == "nothing":
            site.room("notes").discard(RoomDiscarded("it is loaded anew"))
            assert (await shape.ask()).json()["code"] == "room_discarded"
        else:
            site.service.rooms.discard_all(RoomDiscarded("the connection was lost"))
        answer = await shape.ask()
        assert answer.status_code == 409
        shape.handle, shape.offset = answer.headers["electric-handle"], "-1"
        await shape.read()
        assert shape.offset == "1_0"


async def test_a_node_that_has_not_heard_of_another_database_sends_nobody_back_to_the_one_before(
    database_url: str,
) -> None:
    """A client takes a handle that it was once told to drop for a cache's answer, and gives up on it in the end."""
    async with running_site(database_url, poll_interval_s=3_600) as behind, behind.client() as client:
        shape = Shape(client)
        await shape.put(typed("kept "))
        await shape.read()
        await behind.service.rooms.watch.poll()
        async with behind.database.acquire() as connection:
            await connection.execute(BUMP)
        async with running_site(database_url) as ahead, ahead.client() as there:
            shape.client = there
            answer = await shape.ask()
            assert answer.status_code == 409
            shape.handle, shape.offset = answer.headers["electric-handle"], "-1"
            shape.client = client
            answer = await shape.ask()
            assert (answer.status_code, answer.json()["code"]) == (503, "room_discarded")
            told = shape.handle
            await shape.read()
            assert shape.handle == told


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
