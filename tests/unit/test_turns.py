"""Turns: first come first served, no turn is lost with whoever is cancelled, and shedding tells everyone."""

from __future__ import annotations

import asyncio

import pytest

from ydoc_store.storage.turns import NoneFree, Turns


class Visitors:
    """Tasks that take a turn each, and end it when told."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.came: list[int] = []
        self.leave: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def come(self, *numbers: int) -> None:
        for number in numbers:
            self.leave[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._visit(number))
            await asyncio.sleep(0)

    async def _visit(self, number: int) -> None:
        async with self.turns.turn():
            self.came.append(number)
            await self.leave[number].wait()

    async def go(self, number: int) -> None:
        self.leave[number].set()
        await self.tasks[number]
        await asyncio.sleep(0)


async def test_so_many_at_once_and_the_others_in_the_order_in_which_they_came() -> None:
    visitors = Visitors(Turns(2))
    await visitors.come(1, 2, 3, 4)
    assert (visitors.came, visitors.turns.waiting) == ([1, 2], 2)
    await visitors.go(2)
    await visitors.come(5)
    assert visitors.came == [1, 2, 3]
    for number in (1, 3, 4, 5):
        await visitors.go(number)
    assert visitors.came == [1, 2, 3, 4, 5]


async def test_who_is_cancelled_while_waiting_gives_the_place_up() -> None:
    visitors = Visitors(Turns(1))
    await visitors.come(1, 2, 3)
    visitors.tasks[2].cancel()
    await asyncio.gather(visitors.tasks[2], return_exceptions=True)
    await visitors.go(1)
    assert visitors.came == [1, 3]
    await visitors.go(3)


async def test_who_is_cancelled_in_the_moment_of_the_turn_passes_it_on() -> None:
    visitors = Visitors(Turns(1))
    await visitors.come(1, 2, 3)
    visitors.leave[1].set()
    # One step: the turn is given to 2, who has not run yet.
    await visitors.tasks[1]
    visitors.tasks[2].cancel()
    await asyncio.gather(visitors.tasks[2], return_exceptions=True)
    await asyncio.sleep(0)
    assert visitors.came in ([1, 3], [1, 2, 3])
    await visitors.go(3)
    await visitors.come(4)
    assert visitors.came[-1] == 4
    await visitors.go(4)


async def test_a_turn_that_was_given_no_connection_ends_the_waiting_of_everyone() -> None:
    visitors = Visitors(Turns(2))
    everyone_is_here = asyncio.Event()

    async def fail() -> None:
        async with visitors.turns.turn():
            await everyone_is_here.wait()
            raise NoneFree("none free")

    failing = asyncio.create_task(fail())
    await visitors.come(1, 2, 3)
    everyone_is_here.set()
    for task in (failing, visitors.tasks[2], visitors.tasks[3]):
        with pytest.raises(NoneFree, match="none free"):
            await task
    assert (visitors.came, visitors.turns.waiting) == ([1], 0)
    await visitors.come(4, 5)
    assert visitors.came == [1, 4]
    for number in (1, 4, 5):
        await visitors.go(number)


async def test_any_other_failure_is_its_own() -> None:
    visitors = Visitors(Turns(1))

    async def fail() -> None:
        async with visitors.turns.turn():
            await asyncio.sleep(0)
            raise ZeroDivisionError

    failing = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await visitors.come(1)
    with pytest.raises(ZeroDivisionError):
        await failing
    await asyncio.sleep(0)
    assert visitors.came == [1]
    await visitors.go(1)
