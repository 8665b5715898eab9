"""ElectricSQL's stock provider for Yjs on a running service, by long-poll and by events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.editors import Editor, Editors
from tests.interop.together import ANN, BEN, meet_and_type, part_and_merge
from tests.service import BUSIEST_COMPACTION, STORE, Service, run, serving, verify
from tests.stored import connecting, head_of
from tests.tokens import SECRET, token
from tests.waiting import until


@pytest.fixture
async def compacted(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    """A service that merges whatever it can at once."""
    async with serving(tmp_path, database_url=database_url, environment=BUSIEST_COMPACTION) as started:
        yield started


def base(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


async def synced(editors: Editors, service: Service, **options: Any) -> Editor:
    editor = await editors.open_electric(base(service), "notes", **options)
    await editor.synced()
    return editor


async def store(database_url: str, *arguments: str) -> None:
    ended = await run(*STORE, *arguments, "--database-url", database_url)
    assert ended.exit_code == 0, ended.messages


@pytest.mark.parametrize("sse", [False, True], ids=["long-poll", "events"])
async def test_two_editors_meet_type_part_and_merge(service: Service, editors: Editors, sse: bool) -> None:
    ann, ben = [await synced(editors, service, sse=sse) for _ in range(2)]
    await meet_and_type(ann, ben)
    await part_and_merge(ann, ben)
    for editor in (ann, ben):
        told = await editor.ask("answers")
        assert told["errors"] == []
        live = [answer for answer in told["answers"] if answer["live"]]
        assert live
        assert {answer["events"] for answer in live} == {sse}
        assert {answer["status"] for answer in told["answers"]} <= {200, 204}


async def test_it_shares_a_document_and_presence_with_a_socket(service: Service, editors: Editors) -> None:
    """Configured as the client's own documentation has it."""
    ann = await synced(editors, service, isPlain=True)
    ben = await editors.open_synced(service.url, "notes")
    await meet_and_type(ann, ben)
    await part_and_merge(ben, ann)
    await ann.ask("everyKind")
    await editors.show_the_same(ann, ben)
    await ben.ask("setPresence", presence=BEN)
    late = await synced(editors, service)
    await late.shows_others(ANN, BEN)


async def test_edits_made_offline_and_a_compaction_in_between_converge(
    compacted: Service, editors: Editors, database_url: str
) -> None:
    """The readers' offsets lie behind the snapshot when they come back, and their own edits were never sent."""
    away = [await synced(editors, compacted, sse=sse) for sse in (False, True)]
    ben = await editors.open_synced(compacted.url, "notes")
    await away[0].type("one ")
    for editor in (away[1], ben):
        await editor.shows("one ")
    for number, editor in enumerate(away):
        await editor.disconnect()
        await editor.type(f"apart {number} ", at=0)
    await away[0].erase(8, 2)
    for number in range(20):
        await ben.type(f"{number} ")
    async with connecting(database_url) as stored:
        head = await head_of(stored, "notes")
        merged = "SELECT coalesce(max(through_seq), 0) FROM ydoc.snapshots WHERE document_id = $1"
        await until(lambda: _is_beyond(stored, merged, head.document_id))
    for editor in away:
        await editor.connect()
        await editor.synced()
        await editor.ask("untilSent")
    await editors.show_the_same(*away, ben)
    text = await ben.text()
    assert all(piece in text for piece in ("apart 0 ", "apart 1 ", "e ", "19 "))
    assert "one" not in text
    late = await synced(editors, compacted)
    await editors.show_the_same(late, ben)
    ended = await verify(database_url)
    assert ended.exit_code == 0, ended.messages


async def _is_beyond(stored: Any, merged: str, document_id: int) -> bool:
    return int(await stored.fetchval(merged, document_id)) > 5


async def test_a_tab_that_comes_back_with_what_it_kept_sends_what_the_server_lacks(
    service: Service, editors: Editors
) -> None:
    """As README says: with `document` of the resume state beside the browser's own copy. The state vector counts what
    was typed offline as sent."""
    ann = await synced(editors, service)
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("one ")
    await ben.shows("one ")
    await ann.ask("setOffline", offline=True)
    await ann.type("offline ")
    await ann.ask("untilDisconnected")
    kept = (await ann.ask("resumeState"))["resume"]
    copy = await ann.state()
    await ann.destroy()
    await ben.type("two")
    again = await editors.open_electric(base(service), "notes", resume={"document": kept["document"]}, connect=False)
    await again.apply(copy)
    await again.connect()
    await again.synced()
    await editors.show_the_same(again, ben)
    assert "offline" in await ben.text()
    first, *_ = (await again.ask("answers"))["answers"]
    assert (first["offset"], first["status"]) == (kept["document"]["offset"], 200)


async def test_what_is_typed_while_the_service_restarts_arrives(service: Service, editors: Editors) -> None:
    ann = await synced(editors, service, reconnect=True)
    ben = await synced(editors, service, sse=True, reconnect=True)
    await ann.type("one ")
    await ben.shows("one ")
    await service.stop()
    await ann.type("two ")
    await service.restart()
    await ben.shows("one two ")
    await ben.type("three")
    await ann.shows("one two three")


async def test_tabs_left_open_over_a_repair_stop_and_bring_nothing_back(
    service: Service, editors: Editors, database_url: str
) -> None:
    """I10: they are told to stop, do not ask again, and what they type on is refused."""
    tabs = [await synced(editors, service, sse=sse) for sse in (False, True)]
    await tabs[0].type("good")
    await tabs[1].shows("good")
    await tabs[0].type(" bad")
    await tabs[1].shows("good bad")
    await tabs[0].ask("untilSent")
    await store(database_url, "repair", "notes", "--to-seq", "1")
    asked = []
    for tab in tabs:
        (error, *_) = (await tab.ask("untilErrors", count=1))["errors"]
        assert error["status"] == 410
        assert "reload" in error["message"]
        asked.append(len((await tab.ask("answers"))["answers"]))
        await tab.type(" still here")
        await tab.ask("untilAnswers", status=410, method="PUT", count=1)
        await tab.ask("untilDisconnected")
    fresh = await synced(editors, service)
    assert await fresh.text() == "good"
    await fresh.type("!")
    other = await editors.open_synced(service.url, "notes")
    await other.shows("good!")
    for tab, before in zip(tabs, asked, strict=True):
        assert await tab.text() == "good bad still here", "nothing of the new history reached the old tab either"
        later = (await tab.ask("answers"))["answers"][before:]
        assert [answer for answer in later if (answer["method"], answer["table"]) == ("GET", "updates")] == []


async def test_a_backup_that_was_restored_has_it_read_everything_again(
    service: Service, editors: Editors, database_url: str
) -> None:
    """I11: within its own history, and so into the document that it has."""
    ann = await synced(editors, service)
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("kept ")
    await ben.shows("kept ")
    for times, text in enumerate(("kept and ", "kept and more"), start=1):
        await store(database_url, "incarnation", "bump")
        await ann.ask("untilAnswers", status=409, count=times)
        await ben.type(text.removeprefix(await ben.text()))
        await ann.shows(text)
    await ann.type("!")
    await ben.shows("kept and more!")
    assert (await ann.ask("answers"))["errors"] == []


@pytest.mark.parametrize("sse", [False, True], ids=["long-poll", "events"])
async def test_a_new_token_is_taken_before_anybody_is_cut_off(
    tmp_path: Path, editors: Editors, database_url: str, sse: bool
) -> None:
    """I18: the one that it showed is taken back while it waits; its next request shows another."""
    async with serving(tmp_path, database_url=database_url, environment={"YDOC_JWT_SECRET": SECRET}) as service:
        ann = await synced(editors, service, sse=sse, bearer=token("ann"))
        ben = await editors.open_synced(service.url, "notes", params={"token": token("ben")})
        await ann.type("one ")
        await ben.shows("one ")
        await ann.ask("setBearer", bearer=token("ann at another desk"))
        read = [told["status"] for told in (await ann.ask("answers"))["answers"] if told["table"] == "updates"].count(
            200
        )
        await store(database_url, "revoke", "--user", "ann")
        await ann.ask("untilAnswers", status=200, count=read + 1)
        await ben.type("two ", at=4)
        await ann.shows("one two ")
        await ann.type("three", at=8)
        await ben.shows("one two three")
        told = await ann.ask("answers")
        assert told["errors"] == []
        assert {answer["status"] for answer in told["answers"]} <= {200, 204}
