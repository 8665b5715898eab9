"""What the simulation has found, distilled: the steps that break a promise, without the weather around them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from tests.simulation.editor import Editor
from tests.simulation.ending import come_to_rest
from tests.simulation.loop import SimulatedLoop
from tests.simulation.rigging import rigged
from tests.simulation.world import World

SETTLED_S = 3.0


def played(steps: Callable[[World], Awaitable[None]], editors: int = 2) -> World:
    """A world of one node and some editors of one document, in calm weather, after these steps and its ending."""
    dice = Random(1)
    loop = SimulatedLoop(dice, in_order=True)
    with rigged(loop, dice) as complaints:
        world = World(dice, loop)
        world.weather.clear_up()
        world.names = ["one"]

        async def play() -> None:
            node = world.start_node()
            await node.starting
            for _ in range(editors):
                editor = Editor(world, "one")
                world.editors.append(editor)
                editor.connect()
            await asyncio.sleep(SETTLED_S)
            await steps(world)
            await come_to_rest(world)

        loop.run(play())
    assert not complaints.heard
    return world


def test_a_failover_while_no_append_connection_stands_is_noticed_before_anything_is_shown_or_acked() -> None:
    """I5 I11: rooms that were loaded after the append connection was lost, and before it was made again."""

    async def steps(world: World) -> None:
        ann, ben = world.editors
        for _ in range(5):
            ann.type()
            await asyncio.sleep(0.1)
        world.nodes[0].database.cut()
        await asyncio.sleep(SETTLED_S)
        assert ann.is_synced
        assert ben.is_synced
        world.postgres.timeline += 1
        world.postgres.go_back(world.current_documents()[0], 2)
        world.nodes[0].database.cut()
        for _ in range(3):
            ben.type()

    assert played(steps).oracle.broken == []
