"""Ten minutes of everything at once: typing, presence, reconnects, frozen readers, large documents, compaction.

Once a second memory, descriptors, rooms and the p99 of the edits of that second go to a file; a graph is drawn of
it. What is asserted is that minutes do not add up: the last one looks like the second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pycrdt import Array

from tests.faults import oracle
from tests.faults.crowd import Crowd, crowding
from tests.faults.journal import Journal
from tests.faults.oracle import Scene
from tests.faults.processes import descriptors_of, rss_bytes, watch
from tests.faults.test_frozen_reader import Pair
from tests.memory import MIB, service_bytes
from tests.nodes import Editor
from tests.service import Service, serving
from tests.soak_graph import draw

SOAK_S = float(os.environ.get("YDOC_TEST_SOAK_S", "600"))
ENVIRONMENT = {
    "YDOC_SLOW_MEMBER_S": "5",
    "YDOC_ROOM_IDLE_S": "2",
    "YDOC_COMPACT_TAIL_ROWS": "100",
    "YDOC_SWEEP_INTERVAL_S": "2",
    "YDOC_SWEEP_JITTER_S": "0",
}
PAIRS = 4
# Then the pair goes on in a new document, so that what grows is not the document.
EDITS_A_DOCUMENT = 400
EDIT_PAUSE_S = 0.05
STEADY_CLIENTS = 200
LARGE_BYTES = 3 * MIB
# Between the second minute and the last one.
GROWTH_BYTES_MAX = 40 * MIB


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    async with crowding() as started:
        yield started


class Soak:
    """What goes on at once. Each part ends by itself once the time is over, and leaves nothing open but the pairs."""

    def __init__(self, service: Service, crowd: Crowd, journal: Journal) -> None:
        self.service = service
        self.crowd = crowd
        self.journal = journal
        self.took_s: list[float] = []
        self.pairs: dict[int, Pair] = {}
        self.samples: list[dict[str, float]] = []
        self.started_s = time.monotonic()

    def rounds(self) -> Iterator[int]:
        """0, 1, 2, … until the time is over."""
        return itertools.takewhile(lambda _: time.monotonic() < self.started_s + SOAK_S, itertools.count())

    async def type(self, number: int) -> None:
        for document in itertools.count():
            pair = self.pairs[number] = await Pair.open(self.service, self.journal, f"typed-{number}-{document}")
            for clock in itertools.islice(self.rounds(), EDITS_A_DOCUMENT):
                self.took_s.append(await pair.edit())
                await pair.ann.show(clock + 1)
                pair.ann.messages.clear()
                pair.ben.messages.clear()
                await asyncio.sleep(EDIT_PAUSE_S)
            if time.monotonic() >= self.started_s + SOAK_S:
                return
            del self.pairs[number]
            await pair.ann.leave()
            await pair.ben.leave()

    async def reconnect(self) -> None:
        for number in self.rounds():
            documents = [f"page-{place % 40}" for place in range(60)]
            await self.crowd.open(f"guests {number}", self.service.port, documents)
            await self.crowd.synced(f"guests {number}", len(documents))
            await self.crowd.ask("leave", group=f"guests {number}")
            await asyncio.sleep(2)

    async def freeze(self) -> None:
        for number in self.rounds():
            name = f"frozen {number}"
            pair = next(iter(self.pairs.values()), None)
            documents = ["large"] * 3 + ([pair.name] * 3 if pair is not None else [])
            await self.crowd.open(name, self.service.port, documents, frozen="sync", receive_bytes=4_096)
            await asyncio.sleep(12)
            await self.crowd.ask("leave", group=name)

    async def open_large(self) -> None:
        for number in self.rounds():
            name = "large" if number % 2 else f"large-{number}"
            writer = await Editor.open_synced(f"{self.service.url}/{name}")
            root = writer.doc.get("fill", type=Array)
            for _ in range(LARGE_BYTES // (300 * 1024)):
                root.append(os.urandom(300 * 1024))
                if len(root) > 40:
                    del root[0:10]
                await writer.send_edits()
            reader = await Editor.open_synced(f"{self.service.url}/{name}")
            shown = reader.doc.get("fill", type=Array)
            await reader.until(lambda shown=shown, root=root: len(shown) == len(root))
            await writer.leave()
            await reader.leave()
            await asyncio.sleep(8)

    async def sample(self, file: Path) -> None:
        with file.open("w") as lines:
            for _ in self.rounds():
                await asyncio.sleep(1)
                took, self.took_s = sorted(self.took_s), []
                metrics = await self.service.metrics()
                sample = {
                    "at_s": time.monotonic() - self.started_s,
                    "service_bytes": service_bytes(self.service.pid),
                    "relay_bytes": rss_bytes(self.service.pid),
                    "descriptors": len(descriptors_of(self.service.pid)),
                    "rooms": metrics["ydoc_rooms"],
                    "connections": metrics['ydoc_connections{dialect="y-websocket"}'],
                    "tasks": metrics["ydoc_tasks"],
                    "edits": len(took),
                    "p99_ms": 1_000 * took[int(0.99 * (len(took) - 1))] if took else 0.0,
                }
                self.samples.append(sample)
                lines.write(json.dumps(sample) + "\n")
                lines.flush()

    def median(self, key: str, start_s: float, end_s: float) -> float:
        return statistics.median(sample[key] for sample in self.samples if start_s <= sample["at_s"] < end_s)


@pytest.mark.long
@pytest.mark.timeout(SOAK_S + 300)
async def test_minutes_do_not_add_up(tmp_path: Path, database_url: str, crowd: Crowd, journal: Journal) -> None:
    """I15, I16: after ten minutes of everything memory, descriptors and rooms are what they were after two."""
    folder = Path(os.environ.get("YDOC_TEST_SOAK_FOLDER", tmp_path))
    async with serving(tmp_path, database_url=database_url, environment=ENVIRONMENT) as service:
        watched = await watch(service)
        soak = Soak(service, crowd, journal)
        steady = [f"page-{number % 40}" for number in range(STEADY_CLIENTS)]
        await crowd.open("steady", service.port, steady, retry_s=2.5)
        typing = [soak.type(number) for number in range(PAIRS)]
        others = [soak.reconnect(), soak.freeze(), soak.open_large(), soak.sample(folder / "soak.jsonl")]
        await asyncio.gather(*typing, *others)
        caption = f"{SOAK_S / 60:.0f} minutes; each point is the greatest value of its stretch"
        (folder / "soak.svg").write_text(draw(soak.samples, caption))
        early, late = (60.0, 120.0), (soak.samples[-1]["at_s"] - 60, soak.samples[-1]["at_s"])
        if SOAK_S < 240:
            early = (SOAK_S / 3, SOAK_S / 2)
            late = (SOAK_S * 0.8, SOAK_S)
        for key in ("service_bytes", "descriptors", "rooms", "tasks", "p99_ms"):
            print(f"{key}: {soak.median(key, *early):,.1f} early, {soak.median(key, *late):,.1f} late")
        assert soak.median("service_bytes", *late) < soak.median("service_bytes", *early) + GROWTH_BYTES_MAX
        assert soak.median("descriptors", *late) < soak.median("descriptors", *early) + 50
        assert sum(sample["edits"] for sample in soak.samples) > 5 * SOAK_S
        await crowd.ask("leave", group="steady")
        clients = {pair.name: [pair.ann, pair.ben] for pair in soak.pairs.values()}
        await oracle.verify(Scene(database_url, journal.known(), clients, services=[watched]))
