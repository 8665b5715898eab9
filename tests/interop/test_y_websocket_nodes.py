"""Two `serve` on one database: stock `y-websocket` clients of either node share every document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.editors import Editor, Editors
from tests.service import Service, serving, verify
from tests.stored import broken_seqs, connecting

ENVIRONMENT = {"YDOC_AWARENESS_TIMEOUT_S": "16"}


@pytest.fixture
async def nodes(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Service, Service]]:
    async with (
        serving(tmp_path, database_url=database_url, environment=ENVIRONMENT) as one,
        serving(tmp_path, database_url=database_url, environment=ENVIRONMENT) as two,
    ):
        yield one, two


async def test_editors_of_two_nodes_see_each_others_edits(nodes: tuple[Service, Service], editors: Editors) -> None:
    ann = await editors.open_synced(nodes[0].url, "notes")
    ben = await editors.open_synced(nodes[1].url, "notes")
    await ann.type("Hello")
    await ben.shows("Hello")
    await ben.type(", Ann")
    await ann.shows("Hello, Ann")
    late = await editors.open_synced(nodes[0].url, "notes")
    assert await late.text() == "Hello, Ann"


async def test_presence_crosses_nodes(nodes: tuple[Service, Service], editors: Editors) -> None:
    ann = await editors.open_synced(nodes[0].url, "notes")
    await ann.ask("setPresence", presence={"user": "Ann"})
    ben = await editors.open_synced(nodes[1].url, "notes")
    await ben.ask("setPresence", presence={"user": "Ben"})
    await ben.shows_others({"user": "Ann"})
    await ann.shows_others({"user": "Ben"})
    await ben.destroy()
    await ann.shows_others()


async def test_presence_goes_when_its_node_is_killed(nodes: tuple[Service, Service], editors: Editors) -> None:
    ann = await editors.open_synced(nodes[0].url, "notes")
    ben = await editors.open_synced(nodes[1].url, "notes")
    await ann.ask("setPresence", presence={"user": "Ann"})
    await ben.shows_others({"user": "Ann"})
    await nodes[0].kill()
    await ben.shows_others()


async def test_large_updates_cross_nodes(nodes: tuple[Service, Service], editors: Editors) -> None:
    # Far over what a NOTIFY carries: the hint comes without the bytes, and they are read from the log.
    ann = await editors.open_synced(nodes[0].url, "notes")
    ben = await editors.open_synced(nodes[1].url, "notes")
    await ann.ask("paste", seed=1, bytes=3_000_000, pieceBytes=300_000)
    await editors.show_the_same(ann, ben)
    await ben.ask("everyKind")
    await editors.show_the_same(ann, ben)


async def test_six_people_on_two_nodes_type_into_one_document(
    nodes: tuple[Service, Service], editors: Editors, database_url: str
) -> None:
    people: list[Editor] = [await editors.open_synced(nodes[number % 2].url, "busy") for number in range(6)]
    names = [person.name for person in people]
    await editors.ask("converse", names=names, seconds=5, seed=3)
    await editors.show_the_same(*people)
    late = [await editors.open_synced(node.url, "busy") for node in nodes]
    await editors.show_the_same(*people, *late)
    async with connecting(database_url) as connection:
        assert await broken_seqs(connection) == []
    verified = await verify(database_url)
    assert verified.exit_code == 0, verified


async def test_editors_of_a_killed_node_go_on_at_the_other(nodes: tuple[Service, Service], editors: Editors) -> None:
    ann = await editors.open_synced(nodes[0].url, "notes")
    ben = await editors.open_synced(nodes[1].url, "notes")
    await ann.type("seen")
    await ben.shows("seen")
    await nodes[0].kill()
    await ann.ask("untilDisconnected")
    await ann.type(", unseen")
    await ann.ask("moveTo", url=nodes[1].url)
    await ben.shows("seen, unseen")
