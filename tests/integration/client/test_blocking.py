"""`connect_sync` in jobs: threads without a loop, each with a document of its own, on a node in this process."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.nodes import Node, count_stored
from tests.service import run
from tests.waiting import TIMEOUT_S, until
from ydoc_store.client import Deleted, Refused, Unavailable, blocking, connect, connect_sync
from ydoc_store.names import DEFAULT_TENANT, HOCUSPOCUS_PATH
from ydoc_store.storage.epochs import delete_document


def url(node: Node) -> str:
    return f"ws://127.0.0.1:{node.port}{HOCUSPOCUS_PATH}"


def text_of(ydoc: Doc[Any]) -> Text:
    return ydoc.get("text", type=Text)


def clients_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "ydoc-store client" in thread.name]


async def test_what_others_edit_appears_when_it_is_asked_for_and_not_under_a_computation(node: Node) -> None:
    def job() -> None:
        with connect_sync(url(node), "notes") as document:
            mine = document.ydoc
            opened.set()
            assert edited.wait(TIMEOUT_S)
            assert str(text_of(mine)) == ""
            document.wait_for(lambda ydoc: str(text_of(ydoc)) == "theirs", timeout_s=TIMEOUT_S)
            assert str(text_of(mine)) == "theirs"
            assert not document.refresh()

    opened, edited = threading.Event(), threading.Event()
    working = asyncio.create_task(asyncio.to_thread(job))
    await until(opened.is_set)
    async with connect(url(node), "notes") as other:
        text_of(other.ydoc).insert(0, "theirs")
        await other.saved(timeout_s=TIMEOUT_S)
    edited.set()
    await working
    assert clients_threads() == []


async def test_two_jobs_that_edit_at_once_end_equal(node: Node) -> None:
    texts: list[str] = []

    def work(letter: str) -> None:
        with connect_sync(url(node), "both") as document:
            for number in range(200):
                text = text_of(document.ydoc)
                text.insert(number % (len(text) + 1), letter)
                if len(text) > 100 and number % 7 == 0:
                    del text[3:5]
            document.saved(timeout_s=TIMEOUT_S)
            text_of(document.ydoc).insert(0, letter.upper())
            document.saved(timeout_s=TIMEOUT_S)
            document.wait_for(lambda ydoc: {"A", "B"} <= set(str(text_of(ydoc))), timeout_s=TIMEOUT_S)
            texts.append(str(text_of(document.ydoc)))

    await asyncio.gather(asyncio.to_thread(work, "a"), asyncio.to_thread(work, "b"))
    async with connect(url(node), "both") as document:
        assert texts == [str(text_of(document.ydoc))] * 2


async def test_a_jobs_own_document_is_brought_along_and_let_go(node: Node) -> None:
    mine: Doc[Any] = Doc()

    def job() -> None:
        text_of(mine).insert(0, "brought")
        with connect_sync(url(node), "notes", ydoc=mine) as document:
            document.saved(timeout_s=TIMEOUT_S)
            assert document.ydoc is mine
            with mine.transaction():
                text_of(mine).insert(7, " along")
                with pytest.raises(RuntimeError, match="inside a transaction"):
                    document.saved()
        text_of(mine).insert(0, "not sent any more, ")
        with pytest.raises(RuntimeError, match="was left"):
            document.saved()

    await asyncio.to_thread(job)
    assert not mine._subscriptions
    async with connect(url(node), "notes") as other:
        assert str(text_of(other.ydoc)) == "brought along"


async def test_a_job_without_a_server_is_told_in_time(node: Node, free_port: int) -> None:
    error = LookupError("its own")

    def job() -> None:
        nowhere = f"ws://127.0.0.1:{free_port}/hocuspocus"
        with pytest.raises(Unavailable), connect_sync(nowhere, "notes", timeout_s=0.3):
            pytest.fail("opened")
        with pytest.raises(Refused), connect_sync(f"ws://127.0.0.1:{node.port}/nowhere", "notes"):
            pytest.fail("opened")
        with connect_sync(url(node), "notes", leave_timeout_s=0.3) as document:
            opened.set()
            assert stopped.wait(TIMEOUT_S)
            text_of(document.ydoc).insert(0, "where to")
            with pytest.raises(Unavailable):
                document.saved(timeout_s=0.2)
            with pytest.raises(Unavailable):
                document.wait_for(lambda _ydoc: False, timeout_s=0.2)
            raise error

    opened, stopped = threading.Event(), threading.Event()
    working = asyncio.create_task(asyncio.to_thread(job))
    await until(opened.is_set)
    await node.stop()
    stopped.set()
    with pytest.raises(LookupError):
        await working
    assert "may not be stored" in error.__notes__[0]
    assert clients_threads() == []


async def test_a_job_that_waits_under_others_who_never_stop_is_told_in_time(node: Node) -> None:
    def job() -> None:
        with connect_sync(url(node), "busy") as document, connect_sync(url(node), "busy") as other:

            def never(_ydoc: Doc[Any]) -> bool:
                # Whatever is looked at, there is more already.
                assert time.monotonic() - began_s < TIMEOUT_S
                text_of(other.ydoc).insert(0, "x")
                with document._changed:
                    assert document._changed.wait_for(lambda: document._arrived, TIMEOUT_S)
                return False

            began_s = time.monotonic()
            with pytest.raises(Unavailable):
                document.wait_for(never, timeout_s=0.2)

    await asyncio.to_thread(job)


async def test_a_job_whose_document_is_deleted_is_told_while_it_waits(node: Node) -> None:
    def job() -> None:
        with connect_sync(url(node), "notes") as document:
            text_of(document.ydoc).insert(0, "a")
            document.saved(timeout_s=TIMEOUT_S)
            saved.set()
            with pytest.raises(Deleted):
                document.wait_for(lambda _ydoc: False, timeout_s=TIMEOUT_S)
            with pytest.raises(Deleted):
                document.saved(timeout_s=TIMEOUT_S)
            assert isinstance(document.ended, Deleted)

    saved = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(job))
    await until(saved.is_set)
    await delete_document(node.database, DEFAULT_TENANT, "notes")
    await working


async def test_whoever_is_interrupted_while_taking_in_what_came_misses_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell of a notebook is stopped, and the next one goes on."""

    def interrupted(_updates: list[bytes]) -> bytes:
        raise KeyboardInterrupt

    def job() -> None:
        with connect_sync(url(node), "notes") as ann, connect_sync(url(node), "notes") as ben:
            text_of(ben.ydoc).insert(0, "while Ann works")
            with ann._changed:
                assert ann._changed.wait_for(lambda: any(b"Ann works" in update for update in ann._arrived), TIMEOUT_S)
            with monkeypatch.context() as patched:
                patched.setattr(blocking, "join", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    ann.refresh()
            assert ann.refresh()
            assert str(text_of(ann.ydoc)) == "while Ann works"
            assert not ann.refresh()

    await asyncio.to_thread(job)


async def test_a_job_that_is_interrupted_leaves_and_keeps_what_it_wrote(node: Node) -> None:
    def job() -> None:
        with connect_sync(url(node), "notes") as document:
            text_of(document.ydoc).insert(0, "a")
            raise KeyboardInterrupt

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            job()

    await asyncio.to_thread(interrupted)
    assert clients_threads() == []
    assert await count_stored(node.database, "notes") == 1


async def test_a_notebook_whose_cells_share_a_document_leaves_it_when_it_is_done(node: Node) -> None:
    def cells() -> None:
        document = connect_sync(url(node), "notes")
        text_of(document.ydoc).insert(0, "from a cell")
        assert document.has_unsaved
        document.saved(timeout_s=TIMEOUT_S)
        assert not document.has_unsaved
        assert document.trouble is None
        assert repr(document) == "<BlockingDocument 'notes': in sync>"
        text_of(document.ydoc).insert(0, "and another ")
        document.leave()
        assert clients_threads() == []
        # Once more, as who runs a cell again.
        document.leave()
        for work in (document.saved, lambda: document.wait_for(lambda _ydoc: False), lambda: document.presence.others):
            with pytest.raises(RuntimeError, match="was left"):
                work()
        assert not document.has_unsaved
        assert str(text_of(document.ydoc)) == "and another from a cell"

    await asyncio.to_thread(cells)
    assert await count_stored(node.database, "notes") == 2


async def test_a_job_waits_for_who_shows_themself(node: Node) -> None:
    def job() -> None:
        with connect_sync(url(node), "notes") as ann, connect_sync(url(node), "notes") as ben:
            shown = threading.Timer(0.1, ben.presence.show, [{"user": {"name": "Ben"}}])
            shown.start()
            ann.wait_for(lambda _ydoc: ann.presence.others, timeout_s=TIMEOUT_S)
            shown.join()
            assert list(ann.presence.others.values()) == [ben.presence.mine] == [{"user": {"name": "Ben"}}]

    await asyncio.to_thread(job)


FORGETFUL = """
import sys
from pycrdt import Text
from ydoc_store.client import connect_sync

document = connect_sync(sys.argv[1], "notes")
document.ydoc.get("text", type=Text).insert(0, "the last word")
"""

INTERRUPTED = """
import os, signal, sys, threading
from ydoc_store.client import connect_sync

def give():
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)

connect_sync(sys.argv[1], "notes", token=give, timeout_s=60)
"""


FORKED = """
import os, sys
from pycrdt import Text
from ydoc_store.client import connect_sync

with connect_sync(sys.argv[1], "notes") as document:
    text = document.ydoc.get("text", type=Text)
    if os.fork() == 0:
        told = 0
        for work in (document.saved, lambda: text.insert(0, "nobody sends it"), lambda: document.presence.others):
            try:
                work()
            except (RuntimeError, ExceptionGroup) as error:
                told += "another process" in str(getattr(error, "exceptions", [error])[0])
        sys.exit(10 + told)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    text.insert(0, "goes on")
"""


async def test_a_process_that_was_forked_off_is_told_that_the_document_is_not_its_own(node: Node) -> None:
    """Its thread is not there: whoever waited for it would wait for ever."""
    ended = await run(sys.executable, "-W", "ignore", "-c", FORKED, url(node), timeout_s=60)
    assert (ended.exit_code, ended.output.strip()) == (0, "13"), ended.messages
    assert await count_stored(node.database, "notes") == 1


async def test_a_process_that_ends_without_leaving_leaves_all_the_same(node: Node) -> None:
    ended = await run(sys.executable, "-c", FORGETFUL, url(node))
    assert (ended.exit_code, ended.messages) == (0, "")
    assert await count_stored(node.database, "notes") == 1


async def test_whoever_is_interrupted_while_opening_waits_for_nobody(node: Node) -> None:
    ended = await run(sys.executable, "-c", INTERRUPTED, url(node), timeout_s=30)
    assert ended.exit_code == -signal.SIGINT
    assert ended.messages.strip().endswith("KeyboardInterrupt")
