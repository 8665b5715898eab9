"""The relay, killed at each step of an append (I1, I2, I3): what was seen is there, and nothing else than was tried."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Worker
from tests.faults.journal import Journal, marked
from tests.faults.load import Load
from tests.faults.oracle import Client, Scene, verify
from tests.faults.processes import watch
from tests.interop.editors import Editors
from tests.nodes import Editor, running_node
from tests.service import serving
from ydoc_store.failpoints import STEPS, Failpoints

APPEND_STEPS = [step for step in STEPS if step.startswith("append.")]
# The first creating commit makes the document that everyone types in, so that there is something to lose.
CREATING = ("append.after-create", "append.before-commit")
PAGES = ("first", "second", "third", "fourth")
AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}


async def test_every_step_is_reached(durable_url: str) -> None:
    reached: list[str] = []
    failpoints = Failpoints({step: partial(reached.append, step) for step in STEPS})
    async with running_node(durable_url, room_idle_s=0) as node, Worker() as worker:
        node.service.appender.failpoints = failpoints
        ann, ben = [await Editor.open_synced(node.url(page)) for page in PAGES[:2]]
        async with asyncio.timeout(60):
            # Until one commit carries both.
            while "append.between-tells" not in reached:
                await asyncio.gather(ann.type("x"), ben.type("x"))
        cid = await Editor.open_synced(node.url(PAGES[0]))
        document_id = node.room(PAGES[0]).document_id
        assert document_id is not None
        done = await compact(node.database, worker, document_id, Terms(failpoints=failpoints), forced=True)
        assert isinstance(done, Compacted)
        clients = {PAGES[0]: [ann, cid], PAGES[1]: [ben]}
        await verify(Scene(durable_url, clients=clients, nodes=[node]))
    assert set(reached) == set(STEPS)


@pytest.mark.parametrize("step", APPEND_STEPS)
async def test_a_relay_killed_at_any_step_of_an_append_has_shown_nothing_that_is_not_stored(
    tmp_path: Path, durable_url: str, journal: Journal, editors: Editors, step: str
) -> None:
    """I1, I2, I3."""
    failing = {"YDOC_FAILPOINTS": f"{step}={'kill:2' if step in CREATING else 'kill:60'}"}
    async with serving(tmp_path, database_url=durable_url, environment=AT_ONCE | failing) as service:
        gone = Load(editors, journal, every_ms=1)
        for number, page in enumerate(PAGES):
            await gone.enter(page, service.url)
            if number == 0:
                await gone.shows(page, 100)
        assert await service.ended() == -9
        # Whoever was there is gone too: nobody brings back what is missing.
        await gone.leave()
        assert any(page.acked for page in journal.known().values())
        service.environment.pop("YDOC_FAILPOINTS")
        await service.restart()
        watched = await watch(service)
        late: dict[str, list[Client]] = {}
        for page in journal.known():
            stock = await editors.open_synced(service.url, page)
            await stock.note_seen(journal.path)
            ours = await Editor.open_synced(f"{service.url}/{page}")
            journal.attempted(page, "late.0")
            await ours.type(marked("late.0"))
            late[page] = [stock, ours]
        await verify(Scene(durable_url, journal.known(), late, services=[watched]))
