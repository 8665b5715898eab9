"""The Python client and `ydoc-store serve` as programs of their own: kills, restarts, a frozen Postgres, threads."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from tests.postgres import Cluster
from tests.service import Service, serving
from tests.waiting import TIMEOUT_S, until
from ydoc_store.client import BlockingDocument, Unavailable, connect, connect_sync
from ydoc_store.embedded.liveness import processes_of


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    async with serving(tmp_path, database_url=database_url) as started:
        yield started


def url(service: Service) -> str:
    return service.url.removesuffix("/yjs") + "/hocuspocus"


def text_of(ydoc: Doc[Any]) -> Text:
    return ydoc.get("text", type=Text)


async def test_what_was_called_saved_outlives_kills_of_the_server(service: Service) -> None:
    """I1: an agent counts on and on, and may forget what it was told is saved, while its server is killed under it."""
    promised: list[int] = []
    async with connect(url(service), "notes") as document:
        kept = document.ydoc.get("kept", type=Map)

        async def count() -> None:
            for number in range(300):
                kept[str(number)] = number
                if number % 10 == 0:
                    await document.saved(timeout_s=60)
                    promised.append(number)

        counting = asyncio.create_task(count())
        for enough in (5, 15):
            await until(lambda enough=enough: len(promised) >= enough or counting.done())
            await service.kill()
            told = list(promised)
            await service.restart()
            async with connect(url(service), "notes") as other:
                seen = {key for key in other.ydoc.get("kept", type=Map)}  # noqa: C416 # pycrdt's own iterator
                assert {str(number) for number in told} <= seen
        await counting
        await document.saved(timeout_s=60)
    async with connect(url(service), "notes") as other:
        assert len(other.ydoc.get("kept", type=Map)) == 300


def signal_all(cluster: Cluster, number: signal.Signals) -> None:
    for process_id in processes_of(cluster.folder / "data"):
        os.kill(process_id, number)


async def test_saved_keeps_its_deadline_and_does_not_lie_while_postgres_stands_still(
    tmp_path: Path, start_cluster: Callable[..., Cluster]
) -> None:
    cluster = start_cluster(durable=True)
    cluster.create_template()
    database_url = cluster.url(cluster.create_database())
    async with serving(tmp_path, database_url=database_url) as service, connect(url(service), "notes") as document:
        text_of(document.ydoc).insert(0, "first")
        await document.saved(timeout_s=TIMEOUT_S)
        signal_all(cluster, signal.SIGSTOP)
        try:
            text_of(document.ydoc).insert(5, ", second")
            began_at_s = time.monotonic()
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await document.saved(timeout_s=1)
            assert time.monotonic() - began_at_s < 15
            assert document.has_unsaved
        finally:
            signal_all(cluster, signal.SIGCONT)
        await document.saved(timeout_s=60)
        # What it was told outlives everything.
        await service.kill()
        cluster.kill()
        cluster.start()
        await service.restart()
        async with connect(url(service), "notes") as other:
            assert str(text_of(other.ydoc)) == "first, second"


# Without a loop


async def test_a_notebook_with_a_running_loop_edits_and_saves(service: Service) -> None:
    """A cell of a notebook runs inside the loop of its kernel: no other may be started in this thread."""
    assert asyncio.get_running_loop().is_running()
    with connect_sync(url(service), "notes") as ann, connect_sync(url(service), "notes") as ben:
        text_of(ann.ydoc).insert(0, "Hello")
        ann.saved(timeout_s=TIMEOUT_S)
        ben.wait_for(lambda ydoc: str(text_of(ydoc)) == "Hello", timeout_s=TIMEOUT_S)
        text_of(ben.ydoc).insert(5, " from a job")
        ben.saved(timeout_s=TIMEOUT_S)
        ann.wait_for(lambda ydoc: str(text_of(ydoc)) == "Hello from a job", timeout_s=TIMEOUT_S)
        assert ann.is_connected
        assert ann.may_write
        assert ann.ended is None
        ann.presence.show({"user": {"name": "Ann"}})
        await_presence(ben, {"user": {"name": "Ann"}})
        with pytest.raises(ValueError, match="presence"):
            ann.presence.show({"at": float("inf")})
        text_of(ann.ydoc).insert(0, "Last: ")
    assert not [thread.name for thread in threading.enumerate() if "ydoc-store" in thread.name]
    async with connect(url(service), "notes") as other:
        assert str(text_of(other.ydoc)) == "Last: Hello from a job"
    gc.collect()


def await_presence(document: BlockingDocument, state: dict[str, Any]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while state not in document.presence.others.values():
        assert time.monotonic() < deadline_s, document.presence.others
        time.sleep(0.01)
