"""Stock clients over a repair, a deletion and a new beginning: nobody's old copy comes back (I10, I12)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.oracle import Scene, verify
from tests.interop.editors import Editor, Editors
from tests.service import STORE, Service, run, serving

pytestmark = pytest.mark.least_rights

FOLDER = Path(__file__).parent


@pytest.fixture
async def nodes(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Service, Service]]:
    async with (
        serving(tmp_path, database_url=database_url) as one,
        serving(tmp_path, database_url=database_url) as two,
    ):
        yield one, two


async def store(database_url: str, *arguments: str) -> None:
    ended = await run(*STORE, *arguments, "--database-url", database_url)
    assert ended.exit_code == 0, ended.messages


async def written(editors: Editors, service: Service) -> Editor:
    """An editor that has typed `good` and then ` bad`, an update each; both are stored."""
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("good")
    await ben.shows("good")
    await ann.type(" bad")
    await ben.shows("good bad")
    await ben.destroy()
    return ann


async def is_sent_away(editor: Editor) -> None:
    stopped = await editor.ask("untilStopped")
    assert stopped["code"] == 4409
    assert "reload" in stopped["reason"]


async def shows_alone(editors: Editors, database_url: str, service: Service, text: str) -> None:
    """A fresh tab shows this, can write, and what is stored is what it shows."""
    fresh = await editors.open_synced(service.url, "notes")
    assert await fresh.text() == text
    await fresh.type("!")
    other = await editors.open_synced(service.url, "notes")
    await other.shows(f"{text}!")
    await verify(Scene(database_url, clients={"notes": [fresh, other]}))


async def test_a_tab_left_open_over_a_repair_does_not_bring_the_old_text_back(
    nodes: tuple[Service, Service], editors: Editors, database_url: str
) -> None:
    """I10: on either node, and not by connecting again either."""
    ann = await written(editors, nodes[0])
    ben = await editors.open_synced(nodes[1].url, "notes")
    await store(database_url, "repair", "notes", "--to-seq", "1")
    for tab in (ann, ben):
        await is_sent_away(tab)
    for tab, node in ((ann, nodes[1]), (ben, nodes[0])):
        await tab.type(" still here")
        await tab.ask("moveTo", url=node.url)
        await tab.connect()
        await tab.ask("untilCloses", count=2)
    await shows_alone(editors, database_url, nodes[0], "good")


async def test_a_client_that_was_offline_over_a_repair_is_sent_away_with_what_it_typed(
    service: Service, editors: Editors, database_url: str
) -> None:
    """I10: a day later, with its document kept and edits of its own."""
    ann = await written(editors, service)
    await ann.disconnect()
    await ann.type(" and offline")
    await store(database_url, "repair", "notes", "--to-seq", "1")
    await ann.connect()
    await is_sent_away(ann)
    await shows_alone(editors, database_url, service, "good")


@pytest.mark.parametrize("network_first", [False, True], ids=["the store first", "the network first"])
async def test_what_indexeddb_kept_over_a_repair_does_not_come_back(
    service: Service, editors: Editors, database_url: str, *, network_first: bool
) -> None:
    """I10: a tab that was closed, and is opened again a day later with y-indexeddb."""
    ann = await written(editors, service)
    await ann.ask("persist")
    await ann.ask("closeTab")
    await store(database_url, "repair", "notes", "--to-seq", "1")
    again = await editors.open(service.url, "notes", connect=network_first)
    if network_first:
        await again.synced()
    await again.ask("persist")
    assert await again.text() == "good bad"
    await again.connect()
    await is_sent_away(again)
    await shows_alone(editors, database_url, service, "good")


async def test_who_has_typed_before_the_first_sync_opens_a_repaired_document_all_the_same(
    service: Service, editors: Editors, database_url: str
) -> None:
    """I10: without a marker it is a new editor, and welcome."""
    ann = await written(editors, service)
    await store(database_url, "repair", "notes", "--to-seq", "1")
    await is_sent_away(ann)
    titled = await editors.open(service.url, "notes", connect=False)
    await titled.type("Title: ")
    await titled.connect()
    await titled.synced()
    other = await editors.open_synced(service.url, "notes")
    await editors.show_the_same(titled, other)
    assert sorted(await other.text()) == sorted("Title: good")


async def test_tiptap_opens_a_repaired_document_with_its_title(
    service: Service, editors: Editors, database_url: str
) -> None:
    """I10: the real editor, whose title is in its document before the first sync."""
    first = await tiptap(service, "First title")
    assert first["closed"] is None, first
    assert first["typedBefore"] == "First title"
    await store(database_url, "repair", "page", "--to-seq", "1")
    second = await tiptap(service, "Second title")
    assert second["closed"] is None, second
    for title in ("First title", "Second title"):
        assert str(second["other"]).count(title) == 1
        assert str(second["page"]).count(title) == 1


async def tiptap(service: Service, title: str) -> dict[str, object]:
    ended = await run("node", "tiptap.mjs", service.url, "page", title, cwd=FOLDER)
    assert ended.exit_code == 0, ended.messages
    told: dict[str, object] = json.loads(ended.output)
    return told


async def test_a_deleted_document_closes_its_tabs_and_its_successor_knows_nothing_of_it(
    nodes: tuple[Service, Service], editors: Editors, database_url: str
) -> None:
    """I12."""
    ann = await written(editors, nodes[0])
    ben = await editors.open_synced(nodes[1].url, "notes")
    await store(database_url, "documents", "delete", "notes")
    for tab in (ann, ben):
        assert (await tab.ask("untilStopped"))["code"] == 4404
    await store(database_url, "documents", "recreate", "notes")
    await ann.connect()
    await ann.ask("untilCloses", count=2)
    closes = (await ann.ask("closes"))["closes"]
    assert [close["code"] for close in closes] == [4404, 4409]
    await shows_alone(editors, database_url, nodes[1], "")
