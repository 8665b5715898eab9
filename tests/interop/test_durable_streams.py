"""Stock `@durable-streams/y-durable-streams` providers on a running service, among themselves and beside the others.

The provider sends no state vector: what is typed while it is not connected stays with it, and it numbers its appends
anew whenever it connects. What that means for a document is told here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.editors import Editor, Editors
from tests.interop.together import ANN, BEN, meet_and_type
from tests.service import BUSIEST_COMPACTION, Service, serving, verify
from tests.stored import connecting, is_compacted
from tests.waiting import until

pytestmark = pytest.mark.least_rights


def streams(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}/v1/yjs/default"


def hocuspocus(service: Service) -> str:
    return service.url.removesuffix("/yjs") + "/hocuspocus"


async def errors_of(editor: Editor) -> list[str]:
    found: list[str] = (await editor.ask("errors"))["errors"]
    return found


async def test_two_providers_see_each_others_edits_and_presence_by_events_and_by_polls(
    service: Service, editors: Editors
) -> None:
    ann = await editors.open_durable(streams(service), "team/notes")
    ben = await editors.open_durable(streams(service), "team/notes", liveMode="long-poll")
    await meet_and_type(ann, ben)
    # `synced` comes back when its own update does.
    await ann.synced()
    await ben.synced()
    await ann.ask("everyKind")
    await editors.show_the_same(ann, ben)
    await ben.disconnect()
    await ann.shows_others()
    assert await errors_of(ann) == await errors_of(ben) == []


async def test_one_document_is_edited_through_every_provider_at_once(service: Service, editors: Editors) -> None:
    stream = await editors.open_durable(streams(service), "notes")
    socket = await editors.open_synced(service.url, "notes")
    hocus = await editors.open_hocuspocus(hocuspocus(service), "notes")
    await hocus.saved()
    await meet_and_type(stream, socket)
    await hocus.shows("one two")
    await hocus.ask("setPresence", presence={"user": {"name": "Hal"}})
    await stream.shows_others(BEN, {"user": {"name": "Hal"}})
    await hocus.shows_others(ANN, BEN)
    for editor in (stream, socket, hocus):
        await editor.ask("keepTyping", everyMs=5)
    await stream.ask("untilLength", length=400)
    for editor in (stream, socket, hocus):
        await editor.stop_typing()
    await hocus.saved()
    await stream.ask("flush")
    await editors.show_the_same(stream, socket, hocus)
    late = await editors.open_durable(streams(service), "notes")
    await editors.show_the_same(stream, late)


async def test_readers_go_on_through_compactions_and_late_ones_begin_at_the_snapshot(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    async with serving(tmp_path, database_url=database_url, environment=BUSIEST_COMPACTION) as service:
        ann = await editors.open_durable(streams(service), "notes")
        ben = await editors.open_durable(streams(service), "notes", liveMode="long-poll")
        away = await editors.open_durable(streams(service), "notes")
        await ann.type("first ")
        await away.shows("first ")
        await away.disconnect()
        async with connecting(database_url) as connection:
            for _ in range(3):
                await ann.ask("everyKind")
                await ann.ask("keepTyping", everyMs=2)
                await ann.ask("untilLength", length=len(await ann.text()) + 100)
                await ann.stop_typing()
                await ann.synced()
                await until(lambda: is_compacted(connection, 1))
        await away.connect()
        late = await editors.open_durable(streams(service), "notes")
        await editors.show_the_same(ann, ben, away, late)
        for editor in (ann, ben, away, late):
            assert await errors_of(editor) == []


async def test_edits_made_offline_stay_with_their_author_and_what_follows_waits_for_them(
    service: Service, editors: Editors, database_url: str
) -> None:
    ann = await editors.open_durable(streams(service), "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("one ")
    await ben.shows("one ")
    await ann.disconnect()
    await ann.type("two ")
    await ben.type("ben ", at=0)
    await ann.connect()
    await ann.shows("ben one two ")
    # Behind what nobody has: stored, and seen once its predecessor comes.
    await ann.type("three")
    await ann.ask("flush")
    await ann.synced()
    await ann.type("zero ", at=0)
    await ann.ask("flush")
    assert (await ben.text()) == "ben one "
    told = await verify(database_url)
    assert (told.exit_code, "some of it waits for what has not come" in told.output) == (0, True), told
    # Another provider of the same copy, such as y-websocket's, brings it.
    assert await errors_of(ann) == []
    await ben.apply(await ann.state())
    await editors.show_the_same(ann, ben)
    assert (await ben.text()).startswith("zero ben one two three")
    assert "waits" not in (await verify(database_url)).output


async def test_a_provider_comes_back_to_a_service_that_was_killed(service: Service, editors: Editors) -> None:
    ann = await editors.open_durable(streams(service), "notes")
    ben = await editors.open_durable(streams(service), "notes", liveMode="long-poll")
    await ann.type("before ")
    await ben.shows("before ")
    await service.kill()
    await service.restart()
    # Readers try again by themselves; so does who writes, once it is told to connect.
    await ann.type("after")
    await ann.synced()
    await ben.shows("before after")


async def test_a_document_that_is_deleted_stops_its_providers_and_a_new_one_begins_anew(
    service: Service, editors: Editors
) -> None:
    """I10."""
    ann = await editors.open_durable(streams(service), "notes")
    await ann.type("old")
    await ann.synced()
    deleted = await editors.ask("fetch", url=f"{streams(service)}/docs/notes", method="DELETE")
    assert deleted["status"] == 204
    await ann.ask("untilDisconnected")
    assert "404" in (await ann.ask("untilErrors", count=1))["errors"][0]
    ben = await editors.open_durable(streams(service), "notes")
    assert await ben.text() == ""
    await ben.type("new")
    await ben.synced()
    # What it holds is another history: nothing of that comes into this one.
    await ann.connect()
    await ann.synced()
    await ann.type(" older", at=0)
    assert "404" in (await ann.ask("untilErrors", count=2))["errors"][1]
    late = await editors.open_durable(streams(service), "notes")
    await late.shows("new")
