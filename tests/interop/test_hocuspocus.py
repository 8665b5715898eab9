"""Stock `@hocuspocus/provider` clients on a running service: many documents a socket, and what "saved" means."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.editors import Editor, Editors
from tests.interop.together import ANN, meet_and_type
from tests.postgres import Cluster
from tests.service import Service, serving
from tests.stored import connecting, names
from ydoc_store.embedded.liveness import processes_of

if TYPE_CHECKING:
    from tests.stored import Connection

pytestmark = pytest.mark.least_rights


@pytest.fixture
async def stored(database_url: str) -> AsyncIterator[Connection]:
    async with connecting(database_url) as connection:
        yield connection


def hocuspocus(service: Service) -> str:
    return service.url.removesuffix("/yjs") + "/hocuspocus"


def signal_all(cluster: Cluster, number: signal.Signals) -> None:
    for process_id in processes_of(cluster.folder / "data"):
        os.kill(process_id, number)


async def open_saved(editors: Editors, service: Service, room: str, **options: object) -> Editor:
    editor = await editors.open_hocuspocus(hocuspocus(service), room, **options)
    await editor.saved()
    return editor


async def test_two_editors_see_each_others_edits_and_hear_that_they_are_saved(
    service: Service, editors: Editors
) -> None:
    ann = await open_saved(editors, service, "notes")
    ben = await open_saved(editors, service, "notes")
    await ann.type("Hello")
    await ben.shows("Hello")
    await ben.type(", Ann")
    await ann.shows("Hello, Ann")
    await ann.saved()
    await ben.saved()


async def test_hocuspocus_and_y_websocket_editors_edit_one_document_with_each_others_presence(
    service: Service, editors: Editors
) -> None:
    ann = await open_saved(editors, service, "team/notes")
    ben = await editors.open_synced(service.url, "team/notes")
    await meet_and_type(ann, ben)
    await ann.saved()
    await ben.destroy()
    await ann.shows_others()


async def test_many_documents_share_a_socket(service: Service, editors: Editors, stored: Connection) -> None:
    first = await open_saved(editors, service, "first", socket="shared")
    second = await open_saved(editors, service, "second", socket="shared")
    await first.type("in the first")
    await second.type("in the second")
    await first.saved()
    await second.saved()
    assert await names(stored) == {"first", "second"}
    assert await (await editors.open_synced(service.url, "first")).text() == "in the first"
    assert await (await editors.open_synced(service.url, "second")).text() == "in the second"


async def test_two_editors_of_one_document_on_one_socket_are_told_apart(service: Service, editors: Editors) -> None:
    left = await open_saved(editors, service, "notes", socket="shared", sessionAwareness=True)
    right = await open_saved(editors, service, "notes", socket="shared", sessionAwareness=True)
    await left.type("from the left")
    await right.shows("from the left")
    await right.type("!")
    await left.shows("from the left!")
    await left.saved()


async def test_a_document_that_is_left_is_left_alone_and_its_socket_serves_the_others(
    service: Service, editors: Editors
) -> None:
    first = await open_saved(editors, service, "first", socket="shared")
    second = await open_saved(editors, service, "second", socket="shared")
    watching = await editors.open_synced(service.url, "first")
    await first.ask("setPresence", presence=ANN)
    await watching.shows_others(ANN)
    await first.ask("detach")
    await watching.shows_others()
    await second.type("goes on")
    await second.saved()
    await first.ask("attach")
    await watching.type("meanwhile")
    await first.shows("meanwhile")


async def test_a_forced_sync_ends_as_saved(service: Service, editors: Editors) -> None:
    ann = await open_saved(editors, service, "notes")
    await ann.type("typed")
    await ann.saved()
    await ann.ask("forceSync")
    await ann.saved()


async def test_edits_made_offline_are_merged_and_saved(service: Service, editors: Editors) -> None:
    ann = await open_saved(editors, service, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("middle")
    await ben.shows("middle")
    await ann.disconnect()
    await ann.type("before ", at=0)
    await ben.type(" after")
    await ann.connect()
    await ben.shows("before middle after")
    await ann.shows("before middle after")
    await ann.saved()


async def test_a_name_that_no_document_may_have_is_denied_and_the_socket_stays(
    service: Service, editors: Editors
) -> None:
    wrong = await editors.open_hocuspocus(hocuspocus(service), "a//b", socket="shared")
    assert "segment" in (await wrong.ask("untilRefused"))["reason"]
    right = await open_saved(editors, service, "right", socket="shared")
    await right.type("served")
    await right.saved()


async def test_saved_is_told_after_the_commit_and_not_before(
    tmp_path: Path, start_cluster: Callable[..., Cluster], editors: Editors
) -> None:
    """I1: while Postgres is frozen nothing is saved; what is saved outlives `kill -9` of everything."""
    cluster = start_cluster(durable=True)
    cluster.create_template()
    url = cluster.url(cluster.create_database())
    async with serving(tmp_path, database_url=url, environment={"YDOC_APPEND_TIMEOUT_S": "60"}) as service:
        ann = await open_saved(editors, service, "notes")
        await ann.type("first")
        await ann.saved()
        signal_all(cluster, signal.SIGSTOP)
        await ann.type(", second")
        with pytest.raises(AssertionError, match="did not happen"):
            await ann.saved(timeout_s=2)
        signal_all(cluster, signal.SIGCONT)
        await ann.saved()
        await service.kill()
        cluster.kill()
    cluster.start()
    async with serving(tmp_path, database_url=url) as service:
        assert await (await editors.open_synced(service.url, "notes")).text() == "first, second"
