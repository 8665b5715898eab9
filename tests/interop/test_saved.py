"""What a stock Hocuspocus provider calls saved is stored; what is refused or lost on the way is never called that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.interop.editors import Editor, Editors
from tests.service import STORE, Service, run, serving
from tests.stored import connecting
from tests.tokens import SECRET, token
from tests.waiting import until

STORED = "SELECT count(*) FROM ydoc.updates AS u WHERE position($1::bytea IN u.frames) > 0"


async def open_saved(editors: Editors, service: Service, room: str, **options: object) -> Editor:
    editor = await editors.open_hocuspocus(service.url.removesuffix("/yjs") + "/hocuspocus", room, **options)
    await editor.saved()
    return editor


async def is_not_saved(editor: Editor) -> None:
    assert (await editor.ask("unsynced"))["number"] > 0


async def store(database_url: str, *arguments: str) -> None:
    ended = await run(*STORE, *arguments, "--database-url", database_url)
    assert ended.exit_code == 0, ended.messages


async def test_what_a_full_document_does_not_take_is_told_and_never_called_saved(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    """I1. The socket's other documents go on."""
    environment = {"YDOC_DOCUMENT_BYTES_MAX": "10000", "YDOC_UPDATE_BYTES_MAX": "10000"}
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        full = await open_saved(editors, service, "full", socket="shared")
        other = await open_saved(editors, service, "other", socket="shared")
        await full.type("small")
        await full.saved()
        await full.ask("paste", seed="x", bytes=9_980, pieceBytes=9_980)
        assert "reached its size" in (await full.ask("untilRefused"))["reason"]
        await is_not_saved(full)
        await other.type("goes on")
        await other.saved()
        await is_not_saved(full)
        assert (await other.ask("closes"))["closes"] == []
        assert await (await editors.open_synced(service.url, "full")).text() == "small"


async def test_a_commit_whose_answer_is_lost_is_saved_once_and_called_so_after_the_resync(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    """I1, I4."""
    async with (
        Proxy(database_url) as proxy,
        serving(tmp_path, database_url=proxy.url, environment={"YDOC_APPEND_TIMEOUT_S": "1"}) as service,
        connecting(database_url) as connection,
    ):
        ann = await open_saved(editors, service, "notes")
        await ann.type("first")
        await ann.saved()
        proxy.swallow_answers(after=b"")
        await ann.type(", second")

        async def is_stored() -> bool:
            return bool(await connection.fetchval(STORED, b", second"))

        await until(is_stored)
        await is_not_saved(ann)
        closes = (await ann.ask("untilCloses", count=1))["closes"]
        assert closes[0]["code"] == 1012
        await is_not_saved(ann)
        await ann.type(", third")
        proxy.heal()
        await ann.saved()
        assert await connection.fetchval(STORED, b", second") == 1
        assert await connection.fetchval(STORED, b", third") == 1
        assert await (await editors.open_synced(service.url, "notes")).text() == "first, second, third"


@pytest.mark.parametrize("version", [2, 3, 4])
async def test_a_document_that_is_deleted_or_repaired_is_denied_with_its_reason_and_its_socket_stays(
    service: Service, database_url: str, editors: Editors, version: int
) -> None:
    """I10, I12."""
    deleted, repaired, other = [
        await open_saved(editors, service, room, socket="shared", version=version)
        for room in ("deleted", "repaired", "other")
    ]
    for editor in (deleted, repaired):
        for text in ("good", " bad"):
            await editor.type(text)
            await editor.saved()
    await store(database_url, "documents", "delete", "deleted")
    assert "deleted" in (await deleted.ask("untilRefused"))["reason"]
    await store(database_url, "repair", "repaired", "--to-seq", "1")
    assert "reload" in (await repaired.ask("untilRefused"))["reason"]
    for editor in (deleted, repaired):
        await editor.type(" dropped")
    await other.type("goes on")
    await other.saved()
    assert (await other.ask("closes"))["closes"] == []
    fresh = await open_saved(editors, service, "repaired", version=version)
    assert await fresh.text() == "good"


async def test_a_downgrade_reaches_what_is_on_its_way_and_that_is_never_called_saved(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    """What waits behind a commit that is under way, when the second token is here, is refused."""
    environment = {"YDOC_JWT_SECRET": SECRET, "YDOC_APPEND_TIMEOUT_S": "60"}
    async with (
        Proxy(database_url) as proxy,
        serving(tmp_path, database_url=proxy.url, environment=environment) as service,
    ):
        tokens = [token("ann"), token("ann", {"*": "read"})]
        ann = await open_saved(editors, service, "notes", tokens=tokens)
        await ann.type("stored")
        await ann.saved()
        proxy.stall()
        await ann.type(", under way")
        await ann.type(", queued")
        await ann.ask("sendToken")
        assert (await ann.ask("untilScopes", count=2))["scopes"] == ["read-write", "readonly"]
        await ann.type(", late")
        proxy.resume()
        reader = await open_saved(editors, service, "notes", tokens=[token("ben", {"*": "read"})])
        await reader.shows("stored, under way")
        await is_not_saved(ann)
