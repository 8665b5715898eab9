"""Looks at the database that overtake each other: what the one before said is not taken for what is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ydoc_store.rooms import watch as module
from ydoc_store.rooms.watch import Watch


class Rooms:
    """Nothing is open; counts how often everything was discarded."""

    def __init__(self) -> None:
        self.database = None
        self.by_document_id: dict[int, Any] = {}
        self.absent: dict[Any, None] = {}
        self.streams = SimpleNamespace(heads_then=dict, polled=lambda _then, _heads: None)
        self.generation = 0

    def discard_all(self, _error: Exception) -> None:
        self.generation += 1


async def test_a_look_that_another_has_overtaken_is_not_taken_for_another_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[asyncio.Future[Any]] = []

    async def read_heads(*_arguments: object) -> tuple[Any, dict[int, Any]]:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1], {}

    async def note_timeline(*_arguments: object) -> None:
        pass

    monkeypatch.setattr(module, "read_heads", read_heads)
    monkeypatch.setattr(module, "note_timeline", note_timeline)
    rooms: Any = Rooms()
    watch = Watch(rooms)

    async def look(*databases: str) -> None:
        """As many at once, answered from the last to the first."""
        answers.clear()
        looking = [asyncio.create_task(watch.poll()) for _ in databases]
        await asyncio.sleep(0)
        for answer, database, task in reversed(list(zip(answers, databases, looking, strict=True))):
            answer.set_result(database)
            await task

    await look("old")
    await look("old", "new")
    assert rooms.generation == 1
    await look("new")
    assert rooms.generation == 1
    assert await watch.which_database() == "new"
