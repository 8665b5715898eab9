"""Stock `y-websocket` clients on a running service: what two people see of each other, and what is stored for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.interop.editors import Editors, editing
from tests.service import Service, free_port
from tests.stored import connecting, head_of, names

if TYPE_CHECKING:
    from tests.stored import Connection

ACCEPTED = 'ydoc_updates_total{dialect="y-websocket",result="accepted"}'
NOTHING_NEW = 'ydoc_updates_total{dialect="y-websocket",result="nothing_new"}'
CONNECTIONS = 'ydoc_connections{dialect="y-websocket"}'
ANN = {"user": {"name": "Ann", "color": "#30bced"}, "cursor": {"anchor": 3}}
BEN = {"user": {"name": "Bén 😀"}}


@pytest.fixture
async def stored(database_url: str) -> AsyncIterator[Connection]:
    async with connecting(database_url) as connection:
        yield connection


async def test_two_editors_see_each_others_edits(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("Hello")
    await ben.shows("Hello")
    await ben.type(", Ann")
    await ann.shows("Hello, Ann")
    await ann.erase(0, 5)
    await ben.shows(", Ann")


@pytest.mark.least_rights
async def test_a_document_is_there_for_whoever_comes_when_all_have_left(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("kept")
    await ben.shows("kept")
    await ann.destroy()
    await ben.destroy()
    late = await editors.open_synced(service.url, "notes")
    assert await late.text() == "kept"


async def test_every_newcomer_sees_the_whole_of_a_document_that_was_never_compacted(
    service: Service, editors: Editors
) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    text = ""
    for word in ("one ", "two ", "three ", "four ", "five "):
        text += word
        await ann.type(word)
        await ben.shows(text)
    for _ in range(4):
        assert await (await editors.open_synced(service.url, "notes")).text() == text
        await ann.type("+")
        text += "+"
        await ben.shows(text)


@pytest.mark.least_rights
async def test_edits_made_offline_on_both_sides_are_merged(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("middle")
    await ben.shows("middle")
    await ann.disconnect()
    await ben.disconnect()
    await ann.type("before ", at=0)
    await ben.type(" after")
    await ben.erase(0, 3)
    await ben.connect()
    await ben.synced()
    await ann.connect()
    await ann.shows("before dle after")
    await ben.shows("before dle after")


async def test_what_was_written_before_the_first_connection_arrives(service: Service, editors: Editors) -> None:
    ann = await editors.open(service.url, "notes", connect=False)
    await ann.type("from a train")
    ben = await editors.open_synced(service.url, "notes")
    await ann.connect()
    await ben.shows("from a train")


@pytest.mark.least_rights
async def test_a_reconnect_stores_nothing_new(service: Service, editors: Editors, stored: Connection) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("typed and erased")
    await ann.erase(0, 10)
    await ben.shows("erased")
    before, counted = await head_of(stored, "notes"), await service.metrics()
    for _ in range(3):
        await ann.disconnect()
        await ann.connect()
        await ann.synced()
    # One connection's messages are worked on in order: with this edit, its second sync step has been judged.
    await ann.type("!")
    await ben.shows("erased!")
    after, counted_after = await head_of(stored, "notes"), await service.metrics()
    assert (after.seq, after.rows) == (before.seq + 1, before.rows + 1)
    assert counted_after[ACCEPTED] == counted[ACCEPTED] + 1
    # A second step that holds no structs and the whole delete set, for every reconnect.
    assert counted_after[NOTHING_NEW] >= counted[NOTHING_NEW] + 3


@pytest.mark.least_rights
async def test_opening_a_document_stores_nothing(service: Service, editors: Editors, stored: Connection) -> None:
    ann = await editors.open_synced(service.url, "looked at")
    ben = await editors.open_synced(service.url, "written to")
    await ben.type("x")
    await (await editors.open_synced(service.url, "written to")).shows("x")
    assert await names(stored) == {"written to"}
    # The editor that was there before the document existed is no stranger to it.
    await ann.type("y")
    await (await editors.open_synced(service.url, "looked at")).shows("y")


async def test_presence_appears_and_goes_with_its_editor(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.ask("setPresence", presence=ANN)
    await ben.ask("setPresence", presence=BEN)
    await ann.shows_others(BEN)
    await ben.shows_others(ANN)
    late = await editors.open(service.url, "notes")
    await late.shows_others(ANN, BEN)
    await ann.disconnect()
    await ben.shows_others()
    await late.shows_others(BEN)
    await ann.connect()
    await ben.shows_others(ANN)
    await late.shows_others(ANN, BEN)


@pytest.mark.least_rights
async def test_presence_goes_when_an_editors_process_is_killed(service: Service, editors: Editors) -> None:
    ben = await editors.open_synced(service.url, "notes")
    async with editing() as others:
        ann = await others.open_synced(service.url, "notes")
        await ann.ask("setPresence", presence=ANN)
        await ben.shows_others(ANN)
        await others.kill()
        await ben.shows_others()
    assert (await service.metrics())[CONNECTIONS] == 1


async def test_another_path_stops_the_client_and_names_the_right_one(service: Service, editors: Editors) -> None:
    ann = await editors.open(f"ws://127.0.0.1:{service.port}/elsewhere", "notes")
    stopped = await ann.ask("untilStopped")
    assert stopped["code"] == 4404
    assert f"ws://127.0.0.1:{service.port}/yjs/NAME" in stopped["reason"]
    closes = (await ann.ask("closes"))["closes"]
    assert [close["code"] for close in closes] == [4404]


@pytest.mark.least_rights
async def test_an_editor_that_finds_no_server_connects_when_one_is_there(editors: Editors, service: Service) -> None:
    nowhere = free_port()
    ann = await editors.open(f"ws://127.0.0.1:{nowhere}/yjs", "notes")
    await ann.ask("untilCloses", count=2)
    ben = await editors.open_synced(service.url, "notes")
    assert await ben.text() == ""
