"""Requests that stay: what ends them, and that nothing else is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest

from ydoc_store.auth.access import OPEN, Granted
from ydoc_store.errors import ServerFull, Unauthenticated
from ydoc_store.http import staying as module
from ydoc_store.http.staying import End, Stay, staying


class Client:
    """A request's other end, which may go away."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.has_asked = False

    async def receive(self) -> MutableMapping[str, Any]:
        if not self.has_asked:
            self.has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Authorizer:
    is_open = False

    def __init__(self) -> None:
        self.is_revoked = False

    def judge(self, _granted: Granted, _document: str) -> None:
        if self.is_revoked:
            raise Unauthenticated("this access was revoked")


class Here:
    """A node as far as a stay is concerned."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.authorizer: Any = Authorizer()
        self.settings: Any = SimpleNamespace(slow_member_s=0.05, connections_max=50)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)


async def stayed(here: Here, client: Client, began: asyncio.Event | None = None) -> Stay:
    async with staying(here, OPEN, "notes", client.receive) as stay:
        if began is not None:
            began.set()
        await asyncio.sleep(60)
    return stay


async def test_a_stay_whose_work_is_done_was_not_cut_off() -> None:
    async with staying(Here(), OPEN, "notes", Client().receive) as stay:
        await asyncio.sleep(0)
    assert stay.ended is None


async def test_it_ends_when_the_client_goes_away() -> None:
    here, client, began = Here(), Client(), asyncio.Event()
    staying_on = asyncio.create_task(stayed(here, client, began))
    await began.wait()
    client.gone.set()
    assert (await staying_on).ended is End.GONE


async def test_it_ends_when_the_process_stops_and_one_that_comes_later_too() -> None:
    here, began = Here(), asyncio.Event()
    staying_on = asyncio.create_task(stayed(here, Client(), began))
    await began.wait()
    here.stopping.set()
    assert (await staying_on).ended is End.STOPPING
    assert (await stayed(here, Client())).ended is End.STOPPING


async def test_it_ends_when_access_is_taken_back() -> None:
    here, began = Here(), asyncio.Event()
    staying_on = asyncio.create_task(stayed(here, Client(), began))
    await began.wait()
    here.authorizer.is_revoked = True
    assert (await staying_on).ended is End.ACCESS


async def test_it_ends_when_the_connection_takes_nothing() -> None:
    async with staying(Here(), OPEN, "notes", Client().receive) as stay:
        await stay.sending(asyncio.sleep(60))
    assert stay.ended is End.SLOW


async def test_one_whose_connection_takes_something_each_time_goes_on() -> None:
    async with staying(Here(), OPEN, "notes", Client().receive) as stay:
        for _ in range(10):
            await stay.sending(asyncio.sleep(0.01))
    assert stay.ended is None


async def test_somebody_elses_cancellation_goes_through() -> None:
    began = asyncio.Event()
    task = asyncio.create_task(stayed(Here(), Client(), began))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_somebody_elses_cancellation_goes_through_though_the_client_left_too() -> None:
    here, client, began = Here(), Client(), asyncio.Event()
    task = asyncio.create_task(stayed(here, client, began))
    await began.wait()
    client.gone.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_done_in_the_moment_of_its_end_is_done() -> None:
    async with staying(Here(), OPEN, "notes", Client().receive) as stay:
        stay.end(End.GONE)
    assert stay.ended is End.GONE
    # The cancellation was this stay's and is over with it.
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_the_work_is_told() -> None:
    with pytest.raises(KeyError):
        async with staying(Here(), OPEN, "notes", Client().receive):
            raise KeyError("work")


async def test_many_stay_with_one_look_at_all_of_them_and_none_is_left_behind() -> None:
    here = Here()
    began = [asyncio.Event() for _ in range(50)]
    tasks = [asyncio.create_task(stayed(here, Client(), event)) for event in began]
    await asyncio.gather(*(event.wait() for event in began))
    looking = [task for task in asyncio.all_tasks() if task.get_name() == "stays"]
    assert len(looking) == 1
    with pytest.raises(ServerFull):
        await stayed(here, Client())
    here.stopping.set()
    assert {stay.ended for stay in await asyncio.gather(*tasks)} == {End.STOPPING}
    await asyncio.gather(*looking, return_exceptions=True)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("stay", "stays")]
