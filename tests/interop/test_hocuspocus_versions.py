"""The same statements for each major of `@hocuspocus/provider` that is in use: 2, 3 and 4, as npm has them.

Two services serve them, one with identities and one without; each test has rooms of its own there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.editors import Editor, Editors, editing
from tests.interop.together import ANN, BEN, meet_and_type, part_and_merge
from tests.service import Service, serving
from tests.stored import connecting, names
from tests.tokens import SECRET, token

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERSIONS = [2, 3, 4]
GUARDED = {"YDOC_JWT_SECRET": SECRET}
QUICK = {"YDOC_KEEPALIVE_INTERVAL_S": "0.3"}
# The keep-alive of `kept 2`: its name, then an awareness message without entries; and the Ping of version 4.
KEPT_ALIVE = {"first": len("kept 2"), "length": 1 + len("kept 2") + 3}
PING = {"first": 9, "length": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    async with serving(folder, database_url=module_database_url, environment=QUICK) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    folder = tmp_path_factory.mktemp("guarded")
    async with serving(folder, database_url=module_database_url, environment=GUARDED) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def editors() -> AsyncIterator[Editors]:
    async with editing() as started:
        yield started


@pytest.fixture(params=VERSIONS, ids=lambda version: f"version {version}")
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


async def open_one(editors: Editors, service: Service, room: str, version: int, **options: Any) -> Editor:
    url = service.url.removesuffix("/yjs") + "/hocuspocus"
    return await editors.open_hocuspocus(url, room, version=version, **options)


async def test_it_edits_beside_y_websocket_sees_who_is_there_and_hears_what_is_saved(
    service: Service, editors: Editors, version: int
) -> None:
    room = f"team/edited {version}"
    ann = await open_one(editors, service, room, version)
    await ann.saved()
    ben = await editors.open_synced(service.url, room)
    await meet_and_type(ann, ben)
    await ann.saved()
    # Offline, then merged and saved.
    await part_and_merge(ann, ben)
    await ann.saved()
    assert await (await editors.open_synced(service.url, room)).text() == "zero one two three"


async def test_several_documents_share_its_socket_and_one_that_is_left_is_left_alone(
    service: Service, editors: Editors, module_database_url: str, version: int
) -> None:
    one, other = f"first {version}", f"second {version}"
    first = await open_one(editors, service, one, version, socket="shared")
    second = await open_one(editors, service, other, version, socket="shared")
    for editor in (first, second):
        await editor.saved()
    watching = await editors.open_synced(service.url, one)
    await first.ask("setPresence", presence=ANN)
    await watching.shows_others(ANN)
    await first.type("in the first")
    await first.saved()
    await first.ask("leaveDocument")
    await watching.shows_others()
    await second.type("goes on")
    await second.saved()
    again = await open_one(editors, service, one, version, socket="shared")
    await again.shows("in the first")
    await watching.type("!")
    await again.shows("in the first!")
    assert (await second.ask("closes"))["closes"] == []
    async with connecting(module_database_url) as connection:
        assert {one, other} <= await names(connection)


async def test_a_service_that_is_killed_is_found_again_with_what_was_typed_meanwhile(
    tmp_path: Path, module_database_url: str, editors: Editors, version: int
) -> None:
    room = f"killed {version}"
    async with serving(tmp_path, database_url=module_database_url) as service:
        ann = await open_one(editors, service, room, version)
        await ann.saved()
        await ann.type("before")
        await ann.saved()
        await service.kill()
        await ann.ask("untilCloses", count=1)
        for piece in (", ", "mean", "while"):
            await ann.type(piece)
        await service.restart()
        reader = await editors.open_synced(service.url, room)
        await reader.shows("before, meanwhile")
        await ann.saved()
        # It counts anew when it is back, and its count ends with everything, neither before nor below.
        assert (await ann.ask("unsynced"))["seen"][-2:] == [1, 0]
        assert min((await ann.ask("unsynced"))["seen"]) == 0
        await reader.type("!")
        await ann.shows("before, meanwhile!")


async def test_it_is_kept_alive_with_what_it_understands(service: Service, editors: Editors, version: int) -> None:
    """Version 4 answers a Ping; older ones would take it for a document's address."""
    ann = await open_one(editors, service, f"kept {version}", version)
    await ann.saved()
    wanted, other = (PING, KEPT_ALIVE) if version >= 4 else (KEPT_ALIVE, PING)
    await ann.ask("untilReceived", count=2, **wanted)
    received = (await ann.ask("received"))["received"]
    assert not [frame for frame in received if (frame[0], frame[2]) == (other["first"], other["length"])]
    await ann.type("still there")
    await ann.saved()
    assert (await ann.ask("closes"))["closes"] == []


async def test_a_denied_document_leaves_the_others_alone_and_is_allowed_later_and_a_reader_changes_nothing(
    guarded: Service, editors: Editors, version: int
) -> None:
    mine = token(documents={f"mine {version}": "write"})
    writer = await open_one(editors, guarded, f"mine {version}", version, socket="shared", tokens=[mine])
    await writer.saved()
    other = await open_one(editors, guarded, f"other {version}", version, socket="shared", tokens=[mine, token()])
    assert "grants nothing" in (await other.ask("untilRefused"))["reason"]
    await writer.type("goes on")
    await writer.saved()
    await other.ask("sendToken")
    assert (await other.ask("untilScopes", count=1))["scopes"] == ["read-write"]
    if version > 2:
        await other.ask("forceSync")
    await other.type("allowed")
    reader = await open_one(editors, guarded, f"other {version}", version, tokens=[token("eve", {"*": "read"})])
    await reader.shows("allowed")
    assert (await reader.ask("untilScopes", count=1))["scopes"] == ["readonly"]
    await reader.saved()
    await reader.erase(0, 5)
    await other.type("!")
    await reader.shows("ed!")
    assert await other.text() == "allowed!"
    assert (await reader.ask("unsynced"))["number"] == 1
    assert (await writer.ask("closes"))["closes"] == []
    late = await open_one(editors, guarded, f"other {version}", version, tokens=[token("ben")])
    await late.shows("allowed!")


async def test_a_token_that_ends_is_followed_by_the_next_one(guarded: Service, editors: Editors, version: int) -> None:
    """I18. Version 2 does not know the question for a new token: it is sent to come back with one."""
    tokens = [token("ann", exp=time.time() + 4), token("ann")]
    ann = await open_one(editors, guarded, f"renewed {version}", version, tokens=tokens)
    await ann.saved()
    assert (await ann.ask("untilScopes", count=2))["scopes"] == ["read-write"] * 2
    await ann.saved()
    await ann.type("goes on")
    await ann.saved()
    closes = (await ann.ask("closes"))["closes"]
    assert [close["code"] for close in closes] == ([1012] if version == 2 else [])


async def test_version_2_without_any_token_is_let_in_where_nobody_needs_one(service: Service, editors: Editors) -> None:
    """It then says nothing of a token at all."""
    ann = await open_one(editors, service, "tokenless", 2, tokens=None)
    await ann.saved()
    await ann.type("typed")
    await ann.saved()
    assert await (await editors.open_synced(service.url, "tokenless")).text() == "typed"


async def test_the_presence_of_two_sessions_on_one_socket_is_told_apart(service: Service, editors: Editors) -> None:
    """Both of version 4, in one document, with a third beside them that speaks y-websocket."""
    left = await open_one(editors, service, "two sessions", 4, socket="shared", sessionAwareness=True)
    right = await open_one(editors, service, "two sessions", 4, socket="shared", sessionAwareness=True)
    third = await editors.open_synced(service.url, "two sessions")
    for editor, presence in ((left, ANN), (right, BEN)):
        await editor.saved()
        await editor.ask("setPresence", presence=presence)
    await third.shows_others(ANN, BEN)
    await left.shows_others(BEN)
    await right.shows_others(ANN)
    await left.ask("leaveDocument")
    await third.shows_others(BEN)
    await right.shows_others()
    await right.type("still here")
    await third.shows("still here")
