"""The Python client on a node in this process: staying in sync, what is saved, how it ends, how it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from tests.integration.client.opening import opening
from tests.nodes import Editor, Node, count_stored, running_node
from tests.tokens import SECRET, token
from tests.waiting import TIMEOUT_S, until
from ydoc_store.client import Deleted, Document, EpochChanged, Refused, Unavailable, Unreadable, connect, connection
from ydoc_store.client import session as client_session
from ydoc_store.names import DEFAULT_TENANT, HOCUSPOCUS_PATH
from ydoc_store.storage.epochs import delete_document, recreate_document
from ydoc_store.storage.revocations import insert_revocation


@pytest.fixture
async def guarded(database_url: str) -> AsyncIterator[Node]:
    """A node that wants tokens."""
    async with running_node(database_url, jwt_secret=SECRET) as started:
        yield started


def url(node: Node) -> str:
    return f"ws://127.0.0.1:{node.port}{HOCUSPOCUS_PATH}"


def text_of(document: Document) -> Text:
    return document.ydoc.get("text", type=Text)


async def shows(document: Document, words: str) -> None:
    await until(lambda: str(text_of(document)) == words)


def cut(document: Document) -> None:
    """The connection ends without a word, as on a lost wireless link."""
    socket = document._connection._socket
    assert socket is not None
    socket.transport.abort()


# In sync


async def test_two_clients_and_an_editor_edit_one_document_and_saved_is_stored(node: Node) -> None:
    editor = await Editor.open_synced(node.url("team/notes"))
    async with connect(url(node), "team/notes") as ann, connect(url(node), "team/notes") as ben:
        text_of(ann).insert(0, "Hello")
        await ann.saved(timeout_s=TIMEOUT_S)
        assert await count_stored(node.database, "team/notes") == 1
        await shows(ben, "Hello")
        text_of(ben).insert(5, ", Ann")
        await ben.saved(timeout_s=TIMEOUT_S)
        await shows(ann, "Hello, Ann")
        await editor.shows("Hello, Ann")
        await editor.type("!")
        await shows(ann, "Hello, Ann!")
        assert not ann.has_unsaved
        assert ann.is_connected
        assert ann.may_write
        assert repr(ann) == "<Document 'team/notes': in sync>"
    await editor.leave()


async def test_many_edits_at_once_are_few_updates(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        for number in range(1_000):
            text_of(document).insert(number, "x")
        await document.saved(timeout_s=TIMEOUT_S)
    assert await count_stored(node.database, "notes") <= 3


async def test_many_may_wait_for_saved_and_one_that_is_cancelled_stops_nobody(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        waiting = []
        for number in range(20):
            text_of(document).insert(number, "x")
            waiting.append(asyncio.create_task(document.saved(timeout_s=TIMEOUT_S)))
            await asyncio.sleep(0)
        waiting[3].cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in ended if error is not None] == [asyncio.CancelledError]


async def test_edits_made_without_a_connection_are_saved_once_there_is_one(node: Node) -> None:
    async with connect(url(node), "notes") as ann, connect(url(node), "notes") as ben:
        text_of(ann).insert(0, "before ")
        await ann.saved(timeout_s=TIMEOUT_S)
        cut(ann)
        text_of(ann).insert(7, "offline")
        text_of(ben).insert(0, "meanwhile ")
        await ann.saved(timeout_s=TIMEOUT_S)
        await ben.saved(timeout_s=TIMEOUT_S)
        for document in (ann, ben):
            await shows(document, "meanwhile before offline")


async def test_whoever_waits_comes_back_sooner_than_whoever_does_not(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is back is found before the deadline of a document that is left."""
    monkeypatch.setattr(connection, "BACKOFF_S_MIN", 1_000)
    monkeypatch.setattr(connection, "BACKOFF_S_MAX", 1_000)
    monkeypatch.setattr(connection, "BACKOFF_WAITED_FOR_S_MAX", 0.1)
    async with connect(url(node), "notes", leave_timeout_s=TIMEOUT_S) as document:
        cut(document)
        await until(lambda: not document.is_connected)
        forever = asyncio.create_task(document.wait_for(lambda _ydoc: document.is_connected, timeout_s=None))
        await asyncio.sleep(0.5)
        assert not document.is_connected
        text_of(document).insert(0, "the last word")
    assert await count_stored(node.database, "notes") == 1
    await forever


async def test_a_document_of_the_callers_is_brought_along_in_pieces(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_session, "PIECE_BYTES_MAX", 64 * 1024)
    mine: Doc[Any] = Doc()
    mine.get("text", type=Text).insert(0, "0123456789" * 50_000)
    async with connect(url(node), "large", ydoc=mine) as document:
        assert document.ydoc is mine
        await document.saved(timeout_s=TIMEOUT_S)
    assert await count_stored(node.database, "large") >= 5
    async with connect(url(node), "large") as document:
        assert str(text_of(document)) == str(mine.get("text", type=Text))


async def test_an_edit_in_another_thread_is_told_to_be_one_and_sent_all_the_same(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        with pytest.raises(ExceptionGroup) as told:
            await asyncio.to_thread(text_of(document).insert, 0, "from a thread")
        assert told.group_contains(RuntimeError, match=r"outside of its loop's thread.*connect_sync")
        await document.saved(timeout_s=TIMEOUT_S)
        asyncio.get_running_loop().call_soon_threadsafe(text_of(document).insert, 0, "as it says, not ")
        await document.wait_for(lambda ydoc: str(text_of(document)) == "as it says, not from a thread")
        await document.saved(timeout_s=TIMEOUT_S)
    assert await count_stored(node.database, "notes") == 2


async def test_saved_inside_a_transaction_is_an_error_and_not_a_lie(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        with document.ydoc.transaction():
            text_of(document).insert(0, "open")
            with pytest.raises(RuntimeError, match="inside a transaction"):
                await document.saved()
        await document.saved(timeout_s=TIMEOUT_S)
    assert await count_stored(node.database, "notes") == 1


# Presence


async def test_presence_is_seen_by_all_and_gone_with_its_client(node: Node) -> None:
    editor = await Editor.open_synced(node.url("notes"))
    async with connect(url(node), "notes") as ann:
        seen: list[dict[int, dict[str, Any]]] = []
        stop = ann.presence.observe(seen.append)
        async with connect(url(node), "notes") as ben:
            ben.presence.show({"user": {"name": "Ben"}})
            changes = ann.presence.changes()
            async with asyncio.timeout(TIMEOUT_S):
                async for others in changes:
                    if others:
                        break
            assert ann.presence.others == {ben.ydoc.client_id: {"user": {"name": "Ben"}}}
            await editor.sees(ben.ydoc.client_id, '{"user":{"name":"Ben"}}')
            # Shown again after a lost connection, as if it were new.
            cut(ben)
            await until(lambda: ann.presence.others == {})
            await until(lambda: ben.ydoc.client_id in ann.presence.others)
        async with asyncio.timeout(TIMEOUT_S):
            async for others in changes:
                if not others:
                    break
        await editor.sees(ben.ydoc.client_id, None)
        stop()
        assert seen[-1] == {}
        await changes.aclose()
    await editor.leave()


async def test_an_observer_of_presence_that_fails_is_told_to_the_loop_and_costs_nothing(node: Node) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with connect(url(node), "notes") as ann, connect(url(node), "notes") as ben:
        ann.presence.observe(lambda _others: 1 / 0)
        ben.presence.show({"at": 1})
        await until(lambda: bool(told))
        assert ann.presence.others
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        text_of(ann).insert(0, "goes on")
        await ann.saved(timeout_s=TIMEOUT_S)


# Who may


async def test_a_token_that_grants_nothing_is_refused_at_once(guarded: Node) -> None:
    for wrong in (None, "nonsense", token(documents={"other": "write"})):
        with pytest.raises(Refused):
            async with connect(url(guarded), "notes", token=wrong, timeout_s=TIMEOUT_S):
                pytest.fail("opened")


async def test_whoever_may_only_read_is_refused_what_it_edits_and_reads_on(guarded: Node) -> None:
    reading = token("eve", {"*": "read"})
    async with connect(url(guarded), "notes", token=token()) as ann:
        with pytest.raises(Refused) as left:  # noqa: PT012 # leaving says it once more
            async with connect(url(guarded), "notes", token=reading) as eve:
                assert not eve.may_write
                await eve.saved(timeout_s=TIMEOUT_S)
                text_of(eve).insert(0, "not stored")
                with pytest.raises(Refused) as refused:
                    await eve.saved(timeout_s=TIMEOUT_S)
                assert refused.value.code == "read_only"
                text_of(ann).insert(0, "theirs")
                await until(lambda: "theirs" in str(text_of(eve)))
        assert left.value.code == "read_only"
        await ann.saved(timeout_s=TIMEOUT_S)
        await shows(ann, "theirs")


async def test_a_token_is_asked_for_at_every_connect_and_before_it_ends(guarded: Node) -> None:
    asked: list[float] = []

    async def give() -> str:
        asked.append(time.time())
        # The server asks for the next one 15 s before the end of this.
        return token(exp=time.time() + 16.5)

    async with connect(url(guarded), "notes", token=give) as document:
        assert len(asked) == 1
        cut(document)
        await until(lambda: len(asked) == 2 and document.is_connected)
        await until(lambda: len(asked) == 3)
        text_of(document).insert(0, "still here")
        await document.saved(timeout_s=TIMEOUT_S)
        assert document.is_connected


async def test_a_function_for_tokens_that_fails_is_asked_again(guarded: Node) -> None:
    tries = iter([ConnectionError("away"), ValueError("odd"), token()])

    def give() -> str:
        given = next(tries)
        if isinstance(given, Exception):
            raise given
        return given

    async with connect(url(guarded), "notes", token=give, timeout_s=TIMEOUT_S) as document:
        assert document.may_write


async def test_a_revoked_token_ends_the_document(guarded: Node) -> None:
    async with connect(url(guarded), "notes", token=token()) as document:
        later = datetime.fromtimestamp(time.time() + 1, UTC)
        await insert_revocation(guarded.database, DEFAULT_TENANT, "user", "ann", later, lifetime_s_max=86_400)
        async with asyncio.timeout(TIMEOUT_S):
            await document.wait_ended()
        with pytest.raises(Refused, match="revoked"):
            await document.saved()


# Endings


async def test_a_deleted_document_ends_for_those_who_wait_and_those_who_come(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        text_of(document).insert(0, "kept here")
        await document.saved(timeout_s=TIMEOUT_S)
        await delete_document(node.database, DEFAULT_TENANT, "notes")
        async with asyncio.timeout(TIMEOUT_S):
            await document.wait_ended()
        with pytest.raises(Deleted, match="deleted"):
            await document.saved()
        assert str(text_of(document)) == "kept here"
    with pytest.raises(Deleted):
        async with connect(url(node), "notes", timeout_s=TIMEOUT_S):
            pytest.fail("opened")


async def test_leaving_says_that_the_document_ended_when_nobody_was_told(node: Node) -> None:
    with pytest.raises(Deleted):  # noqa: PT012 # leaving raises it
        async with connect(url(node), "notes") as document:
            text_of(document).insert(0, "a")
            await document.saved(timeout_s=TIMEOUT_S)
            await delete_document(node.database, DEFAULT_TENANT, "notes")
            await until(lambda: document.ended is not None)


async def test_a_recreated_document_is_not_merged(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        text_of(document).insert(0, "old")
        await document.saved(timeout_s=TIMEOUT_S)
        # While it is away, so that it learns of both at once.
        cut(document)
        await until(lambda: not document.is_connected)
        await delete_document(node.database, DEFAULT_TENANT, "notes")
        await recreate_document(node.database, DEFAULT_TENANT, "notes")
        text_of(document).insert(3, " and more")
        with pytest.raises((EpochChanged, Deleted)):
            await document.saved(timeout_s=TIMEOUT_S)
        assert str(text_of(document)) == "old and more"
    async with connect(url(node), "notes") as anew:
        assert str(text_of(anew)) == ""


async def test_a_document_recreated_while_its_client_is_stopped_is_another_epoch(node: Node) -> None:
    mine: Doc[Any] = Doc()
    async with connect(url(node), "notes", ydoc=mine):
        mine.get("text", type=Text).insert(0, "old")
    await delete_document(node.database, DEFAULT_TENANT, "notes")
    await recreate_document(node.database, DEFAULT_TENANT, "notes")
    await until(lambda: ("default", "notes") not in node.service.rooms.rooms)
    async with connect(url(node), "notes") as other:
        text_of(other).insert(0, "new")
        await other.saved(timeout_s=TIMEOUT_S)
        with pytest.raises(EpochChanged):
            async with connect(url(node), "notes", ydoc=mine, timeout_s=TIMEOUT_S):
                pytest.fail("opened")
        assert str(mine.get("text", type=Text)) == "old"
        assert str(text_of(other)) == "new"


async def test_a_message_that_is_too_large_for_this_side_ends_the_document(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        document.ydoc.get("map", type=Map)["large"] = "x" * 300_000
        await document.saved(timeout_s=TIMEOUT_S)
    with pytest.raises(Unreadable):
        async with connect(url(node), "notes", frame_bytes_max=100_000, timeout_s=TIMEOUT_S):
            pytest.fail("opened")


async def test_a_url_that_leads_nowhere_is_told_in_time(node: Node, free_port: int) -> None:
    with pytest.raises(Refused):
        async with connect(f"ws://127.0.0.1:{node.port}/nowhere", "notes", timeout_s=TIMEOUT_S):
            pytest.fail("opened")
    with pytest.raises(Unavailable, match=r"could not be opened within 0\.5 s"):
        async with connect(f"ws://127.0.0.1:{free_port}/hocuspocus", "notes", timeout_s=0.5):
            pytest.fail("opened")
    for wrong in ("http://127.0.0.1/hocuspocus", "ws://", "ws://127.0.0.1:99999/hocuspocus", "127.0.0.1:1234"):
        with pytest.raises(ValueError, match="ws:// or wss://, a host"):
            async with connect(wrong, "notes"):
                pytest.fail("opened")
    for name in ("", "a\0b"):
        with pytest.raises(ValueError, match="NUL"):
            async with connect(url(node), name):
                pytest.fail("opened")


async def test_a_url_of_the_other_dialect_is_told_to_be_a_wrong_one_without_its_token(node: Node) -> None:
    for place, ending in (("", Refused), ("/nowhere?token=a-secret", Refused), ("/yjs/notes", Unavailable)):
        error = await opening(f"ws://127.0.0.1:{node.port}{place}", tells="ends in /hocuspocus")
        assert isinstance(error, ending)
        assert "ends in /hocuspocus" in str(error)
        assert "a-secret" not in str(error)


async def test_a_token_that_can_be_none_is_told_at_once_and_a_functions_in_time(guarded: Node) -> None:
    with pytest.raises(TypeError, match="not a bytes"):
        async with connect(url(guarded), "notes", token=b"token"):  # type: ignore[arg-type]
            pytest.fail("opened")
    told = "gave a NoneType, and not a string"
    assert told in str(await opening(url(guarded), tells=told, token=lambda: None))


async def test_an_agent_waits_for_what_others_write_and_show(node: Node) -> None:
    async with connect(url(node), "notes") as ann, connect(url(node), "notes") as ben:
        waiting = asyncio.create_task(ann.wait_for(lambda ydoc: "Ann" in str(text_of(ann)), timeout_s=TIMEOUT_S))
        text_of(ben).insert(0, "Hello, Ann")
        await waiting
        waiting = asyncio.create_task(ann.wait_for(lambda _ydoc: ann.presence.others, timeout_s=TIMEOUT_S))
        ben.presence.show({"user": {"name": "Ben"}})
        await waiting
        # What is edited here counts as well.
        waiting = asyncio.create_task(ann.wait_for(lambda ydoc: "!" in str(text_of(ann)), timeout_s=TIMEOUT_S))
        text_of(ann).insert(0, "!")
        await waiting
        with pytest.raises(Unavailable, match=r"did not come within 0\.1 s; it is connected"):
            await ann.wait_for(lambda _ydoc: False, timeout_s=0.1)
        own = TimeoutError("the caller's own")

        def fail(_ydoc: Doc[Any]) -> bool:
            raise own

        with pytest.raises(TimeoutError) as raised:
            await ann.wait_for(fail, timeout_s=None)
        assert raised.value is own
        waiting = asyncio.create_task(ann.wait_for(lambda _ydoc: False, timeout_s=None))
        await ann.saved(timeout_s=TIMEOUT_S)
        await delete_document(node.database, DEFAULT_TENANT, "notes")
        with pytest.raises(Deleted):
            await waiting
        with pytest.raises(Deleted):
            await ben.wait_for(lambda _ydoc: False, timeout_s=TIMEOUT_S)


# Leaving


async def test_leaving_waits_until_everything_is_saved(node: Node) -> None:
    async with connect(url(node), "notes") as document:
        text_of(document).insert(0, "the last word")
    async with connect(url(node), "notes") as document:
        assert str(text_of(document)) == "the last word"


async def edit_without_server(node: Node, error: BaseException | None = None) -> None:
    async with connect(url(node), "notes", leave_timeout_s=0.3) as document:
        assert document.trouble is None
        await node.stop()
        await until(lambda: "ConnectionRefused" in (document.trouble or ""))
        text_of(document).insert(0, "where to")
        if error is not None:
            raise error


async def test_leaving_without_a_server_says_what_may_be_lost(node: Node) -> None:
    with pytest.raises(Unavailable, match=r"not known to be stored within 0\.3 s"):
        await edit_without_server(node)


async def test_a_block_that_fails_keeps_its_error_and_is_told_what_may_be_lost(node: Node) -> None:
    own = LookupError("the block's own")
    with pytest.raises(LookupError) as failed:
        await edit_without_server(node, own)
    assert failed.value is own
    [note] = own.__notes__
    assert "may not be stored" in note


async def test_a_block_that_fails_saves_what_it_can(node: Node) -> None:
    own = LookupError("the block's own")

    async def fail() -> None:
        async with connect(url(node), "notes") as document:
            text_of(document).insert(0, "saved all the same")
            raise own

    with pytest.raises(LookupError):
        await fail()
    assert not hasattr(own, "__notes__")
    assert await count_stored(node.database, "notes") == 1


async def test_whoever_is_cancelled_leaves_soon(node: Node) -> None:
    opened = asyncio.Event()

    async def work() -> None:
        async with connect(url(node), "notes") as document:
            text_of(document).insert(0, "just in time")
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count_stored(node.database, "notes") == 1


async def test_whoever_still_waits_on_a_document_that_is_left_is_told(node: Node) -> None:
    async def watch(document: Document) -> int:
        return len([others async for others in document.presence.changes()])

    own = LookupError("the block's own")

    async def leave() -> None:
        async with connect(url(node), "notes", leave_timeout_s=0.2) as document:
            waiting = [asyncio.create_task(work) for work in (watch(document), document.wait_ended())]
            await node.stop()
            await until(lambda: not document.is_connected)
            text_of(document).insert(0, "where to")
            waiting.append(asyncio.create_task(document.saved(timeout_s=None)))
            documents.append(document)
            tasks.extend(waiting)
            raise own

    documents: list[Document] = []
    tasks: list[asyncio.Task[Any]] = []
    with pytest.raises(LookupError):
        await leave()
    async with asyncio.timeout(TIMEOUT_S):
        shown, ended, saved = await asyncio.gather(*tasks, return_exceptions=True)
    assert shown == 1
    assert ended is None
    assert isinstance(saved, Unavailable)
    with pytest.raises(Unavailable, match="left"):
        await documents[0].saved(timeout_s=None)


async def test_nothing_is_left_behind(node: Node) -> None:
    before = asyncio.all_tasks()
    mine: Doc[Any] = Doc()
    async with connect(url(node), "notes", ydoc=mine) as document:
        text_of(document).insert(0, "a")
    mine.get("text", type=Text).insert(0, "nobody listens any more")
    assert not document.is_connected
    with pytest.raises(Unavailable):
        async with connect(url(node), "notes", timeout_s=0):
            pytest.fail("opened")
    await until(lambda: not {task for task in asyncio.all_tasks() - before if "client" in task.get_name()})
    assert not mine._subscriptions
