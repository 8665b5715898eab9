"""A relay killed with -9 under load, again and again, beside one that lives (I1, I2, I3, I22).

Two nodes share a database; one of them is killed at moments that nobody chose, and later the other. In each round a
new document is edited on the node that will die; whoever was there goes with it, so that nobody can bring back what
the log lacks. Other clients stay through all rounds, on one node or across both, and come back as stock clients do.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.journal import Entry, Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.interop.editors import Editor, Editors
from tests.service import Service, serving
from tests.waiting import until

EVERY_MS = 2
# These documents grow through all the rounds, and the oracle looks at every letter.
LASTING_EVERY_MS = 20
AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
SERVED_WITHIN_S = 5.0


@dataclass
class Lasting:
    """Editors that stay through every round, by document."""

    editors: Editors
    journal: Journal
    by_document: dict[str, list[Editor]] = field(default_factory=dict)

    async def enter(self, document: str, writer_at: str, reader_at: str) -> None:
        writer = await self.editors.open_synced(writer_at, document)
        reader = await self.editors.open_synced(reader_at, document)
        await reader.note_seen(self.journal.path)
        await writer.keep_marking(self.journal.path, document, LASTING_EVERY_MS)
        self.by_document[document] = [writer, reader]

    async def stop_typing(self) -> None:
        for editors in self.by_document.values():
            for editor in editors:
                await editor.stop_typing()


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])])
async def test_a_relay_killed_under_load_loses_nothing_that_was_seen_and_the_other_node_serves_on(
    tmp_path: Path, durable_url: str, journal: Journal, editors: Editors, kills: int
) -> None:
    """I1, I2, I3, I22: clients of the node that lives are served within 5 s."""
    lasting = Lasting(editors, journal)
    served_s: list[float] = []
    async with (
        serving(tmp_path, database_url=durable_url, environment=AT_ONCE) as one,
        serving(tmp_path, database_url=durable_url, environment=AT_ONCE) as two,
    ):
        for document, at, to in (("on-0", one, one), ("on-1", two, two), ("across", one, two), ("back", two, one)):
            await lasting.enter(document, at.url, to.url)
        for number in range(kills):
            victim, survivor = (one, "on-1") if number < kills / 2 else (two, "on-0")
            if number == kills // 2:
                # Whoever was on the first node is back on it, before it is the one that lives.
                await served_after_now(journal, survivor)
            with Journal(tmp_path / f"journal-{number}") as of_round:
                await killed_in_a_round(victim, editors, of_round, f"round-{number}")
                served_s.append(await served_after_now(journal, survivor))
                restarting = asyncio.create_task(victim.restart())
                await verify(Scene(durable_url, of_round.known()))
                await restarting
        await lasting.stop_typing()
        services = [await watch(node) for node in (one, two)]
        await verify(Scene(durable_url, journal.known(), lasting.by_document, services=services))
    seen = sum(entry.kind == "acked" for entry in journal.entries())
    print(f"{kills} kills; {seen} markers seen by those who stayed; served again after at most {max(served_s):.2f} s")
    assert max(served_s) < SERVED_WITHIN_S


async def killed_in_a_round(node: Service, editors: Editors, journal: Journal, document: str) -> None:
    """Edit a new document on this node and kill it meanwhile; its editors go too."""
    writers = [await editors.open(node.url, document) for _ in range(2)]
    reader = await editors.open(node.url, document)
    await reader.note_seen(journal.path)
    for number, writer in enumerate(writers):
        await writer.keep_marking(journal.path, f"w{number}", EVERY_MS)
    await reader.ask("untilLength", length=random.randrange(50, 1_000))
    await node.kill()
    for editor in (*writers, reader):
        await editor.leave()


async def served_after_now(journal: Journal, document: str) -> float:
    """How long from now until something that is typed from now on was seen by another, in seconds."""
    now_s, begin = time.time(), journal.end
    found: list[Entry] = []

    def is_served() -> bool:
        entries = [entry for entry in journal.entries(begin) if entry.document == document]
        tried = {entry.marker for entry in entries if entry.kind == "attempted"}
        found[:] = [entry for entry in entries if entry.kind == "acked" and entry.marker in tried]
        return bool(found)

    await until(is_served)
    return found[0].at_s - now_s
