"""A relay killed with -9 under load, again and again, beside one that lives (I1, I2, I3, I22).

Two nodes share a database; one of them is killed at moments that nobody chose, and later the other. In each round a
new document is edited on the node that will die; whoever was there goes with it, so that nobody can bring back what
the log lacks. Other clients stay through all rounds, on one node or across both, and come back as stock clients do.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.journal import Journal
from tests.faults.load import Load, journal_beside
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.interop.editors import Editors
from tests.service import Service, serving

# These documents grow through all the rounds, and the oracle looks at every letter.
LASTING_EVERY_MS = 20
AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
SERVED_WITHIN_S = 5.0


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])])
async def test_a_relay_killed_under_load_loses_nothing_that_was_seen_and_the_other_node_serves_on(
    tmp_path: Path, durable_url: str, journal: Journal, editors: Editors, kills: int
) -> None:
    """I1, I2, I3, I22: clients of the node that lives are served within 5 s."""
    lasting = Load(editors, journal, every_ms=LASTING_EVERY_MS)
    served_s: list[float] = []
    async with (
        serving(tmp_path, database_url=durable_url, environment=AT_ONCE) as one,
        serving(tmp_path, database_url=durable_url, environment=AT_ONCE) as two,
    ):
        for document, at, to in (("on-0", one, one), ("on-1", two, two), ("across", one, two), ("back", two, one)):
            await lasting.enter(document, at.url, to.url)
        for number in range(kills):
            victim, survivor = (one, "on-1") if number < kills / 2 else (two, "on-0")
            if number in (0, kills // 2):
                # Whoever is on the node that lives is there, or there again.
                await lasting.served_after_now(survivor)
            with journal_beside(journal, str(number)) as of_round:
                await killed_in_a_round(victim, Load(editors, of_round), f"round-{number}")
                served_s.append(await lasting.served_after_now(survivor))
                restarting = asyncio.create_task(victim.restart())
                await verify(Scene(durable_url, of_round.known()))
                await restarting
        await lasting.stop_typing()
        services = [await watch(node) for node in (one, two)]
        await verify(Scene(durable_url, journal.known(), lasting.by_document, services=services))
    seen = sum(entry.kind == "acked" for entry in journal.entries())
    print(f"{kills} kills; {seen} markers seen by those who stayed; served again after at most {max(served_s):.2f} s")
    assert max(served_s) < SERVED_WITHIN_S


async def killed_in_a_round(node: Service, load: Load, document: str) -> None:
    """Edit a new document on this node and kill it meanwhile; its editors go too."""
    await load.enter(document, node.url)
    await load.enter(document, node.url)
    await load.shows(document, random.randrange(50, 1_000))
    await node.kill()
    await load.leave()
