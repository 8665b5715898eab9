"""Fault row "frozen reader": a small receive buffer that is never read, one of them, many, and during a first sync.

Everyone else types on as if it were not there, what it costs is a bounded buffer, and it is told 1013 when it has
taken nothing for YDOC_SLOW_MEMBER_S. Compared within one run, because machines differ.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pycrdt import Array

from tests.faults import oracle
from tests.faults.crowd import Crowd, crowding
from tests.faults.journal import Journal, marked
from tests.faults.oracle import Scene
from tests.faults.processes import Watched, rss_bytes, watch
from tests.memory import MIB, watching_memory
from tests.nodes import Editor
from tests.service import Service, serving
from tests.waiting import until
from ydoc_store.settings import Settings

SLOW_MEMBER_S = 4.0
SOON = {"YDOC_SLOW_MEMBER_S": str(SLOW_MEMBER_S), "YDOC_ROOM_IDLE_S": "0"}
TICK_S = 1.0
CLOSE_TIMEOUT_S = 5.0
SMALL_BUFFER_BYTES = 4_096
# Of a loaded machine: a member that was waited for would cost a whole SLOW_MEMBER_S.
DELAY_MAX_S = 3.0
EDITS = 100
OUTBOX_BYTES = Settings.model_fields["outbox_bytes_max"].default


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    async with crowding() as started:
        yield started


class Pair:
    """Ann types markers, Ben sees them; how long each took is what a person would feel."""

    def __init__(self, ann: Editor, ben: Editor, journal: Journal, name: str) -> None:
        self.ann = ann
        self.ben = ben
        self.journal = journal
        self.name = name
        self.count = 0

    @classmethod
    async def open(cls, service: Service, journal: Journal, name: str = "notes") -> Pair:
        url = f"{service.url}/{name}"
        return cls(await Editor.open_synced(url), await Editor.open_synced(url), journal, name)

    async def edit(self, fill_bytes: int = 0) -> float:
        """Type a marker, with so many bytes beside it in the same update."""
        marker = f"ann.{self.count}"
        self.count += 1
        self.journal.attempted(self.name, marker)
        started_s = time.perf_counter()
        with self.ann.doc.transaction():
            self.ann.root.insert(len(self.ann.root), marked(marker))
            if fill_bytes:
                # One value, whatever its size: a long text is judged character by character.
                self.ann.doc.get("fill", type=Array).append(os.urandom(fill_bytes))
        await self.ann.send_edits()
        await self.ben.until(lambda: len(self.ben.root) == len(self.ann.root))
        self.journal.acked(self.name, marker)
        return time.perf_counter() - started_s

    async def p99_s(self, edits: int = EDITS, fill_bytes: int = 0) -> float:
        took = sorted([await self.edit(fill_bytes) for _ in range(edits)])
        return took[int(0.99 * (edits - 1))]


async def verify(database_url: str, watched: Watched, *pairs: Pair) -> None:
    clients = {pair.name: [pair.ann, pair.ben] for pair in pairs}
    await oracle.verify(Scene(database_url, pairs[0].journal.known(), clients, services=[watched]))


async def told_1013(crowd: Crowd, group: str, count: int) -> None:
    """Returns when each was closed; those that read on in time read why."""
    await until(lambda: _closed(crowd, group, count))


async def _closed(crowd: Crowd, group: str, count: int) -> bool:
    await crowd.ask("thaw", group=group)
    return bool(sum((await crowd.ask("look", group=group))["closes"].values()) >= count)


async def closes_of(service: Service, code: int) -> float:
    return (await service.metrics()).get(f'ydoc_closes_total{{code="{code}"}}', 0.0)


async def test_a_frozen_reader_delays_nobody_costs_a_buffer_and_is_told(
    tmp_path: Path, database_url: str, crowd: Crowd, journal: Journal
) -> None:
    """I16: the others' p99 with it and without it, its memory, and 1013 after the documented time."""
    async with serving(tmp_path, database_url=database_url, environment=SOON) as service:
        watched = await watch(service)
        pair = await Pair.open(service, journal)
        await pair.p99_s(30)
        without_s = await pair.p99_s()
        calm_bytes = rss_bytes(service.pid)
        await crowd.open("frozen", service.port, ["notes"], frozen="live", receive_bytes=SMALL_BUFFER_BYTES)
        await crowd.synced("frozen", 1)
        async with watching_memory(service) as peak:
            # Large enough that its kernel buffers are soon full, and that the outbox tells.
            with_s = await pair.p99_s(fill_bytes=20_000)
            frozen_at_s = time.monotonic()
            while not await closes_of(service, 1013):
                with_s = max(with_s, await pair.edit(2_000))
            closed_after_s = time.monotonic() - frozen_at_s
        await told_1013(crowd, "frozen", 1)
        look = await crowd.ask("look", group="frozen")
        print(f"p99 {without_s * 1000:.1f} ms without, {with_s * 1000:.1f} ms with; closed: {look['closes']}")
        assert look["closes"] == {"1013": 1}
        assert closed_after_s < SLOW_MEMBER_S + CLOSE_TIMEOUT_S + 10 * TICK_S
        assert with_s < without_s + DELAY_MAX_S
        assert peak.relay_bytes < calm_bytes + 2 * OUTBOX_BYTES + 32 * MIB
        await verify(database_url, watched, pair)


async def test_a_reader_that_freezes_during_a_first_sync_of_twenty_megabytes_is_told_and_holds_nothing(
    tmp_path: Path, database_url: str, crowd: Crowd, journal: Journal
) -> None:
    """I16: its pieces are not counted as an outbox, and end with it."""
    async with serving(tmp_path, database_url=database_url, environment=SOON) as service:
        watched = await watch(service)
        pair = await Pair.open(service, journal)
        for _ in range(40):
            await pair.edit(512 * 1024)
        without_s = await pair.p99_s()
        await crowd.open("frozen", service.port, ["notes"] * 3, frozen="sync", receive_bytes=SMALL_BUFFER_BYTES)
        await until(lambda: _holds(service, "first_syncs", at_least=20 * MIB))
        held = await service.metrics()
        # One cut for all three of them.
        assert held['ydoc_held_bytes{what="first_syncs"}'] < 30 * MIB
        assert held['ydoc_held_bytes{what="outboxes"}'] < MIB
        with_s = await pair.p99_s()
        await until(lambda: _are_closed(service, 3))
        await told_1013(crowd, "frozen", 3)
        print(f"p99 {without_s * 1000:.1f} ms without, {with_s * 1000:.1f} ms with")
        assert with_s < without_s + DELAY_MAX_S
        await until(lambda: _holds(service, "first_syncs", at_most=0))
        await verify(database_url, watched, pair)


async def _are_closed(service: Service, count: int) -> bool:
    return await closes_of(service, 1013) >= count


async def _holds(service: Service, what: str, *, at_least: int = 0, at_most: int = 2**62) -> bool:
    return at_least <= (await service.metrics())[f'ydoc_held_bytes{{what="{what}"}}'] <= at_most


async def test_a_hundred_frozen_readers_cost_no_more_than_the_process_may_hold(
    tmp_path: Path, database_url: str, crowd: Crowd, journal: Journal
) -> None:
    """I15, I16: a hundred outboxes of 8 MiB would be 800 MiB; past the process's cap the slowest go first."""
    cap, edit_bytes = 16 * MIB, 40_000
    environment = {**SOON, "YDOC_SLOW_MEMBER_S": "60", "YDOC_PROCESS_OUTBOX_BYTES_MAX": str(cap)}
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        watched = await watch(service)
        pair = await Pair.open(service, journal)
        await pair.p99_s(20, edit_bytes)
        without_s = await pair.p99_s(40, edit_bytes)
        calm_bytes = rss_bytes(service.pid)
        await crowd.open("frozen", service.port, ["notes"] * 100, frozen="live", receive_bytes=SMALL_BUFFER_BYTES)
        await crowd.synced("frozen", 100)
        with_s, most_held = 0.0, 0.0
        async with watching_memory(service) as peak:
            while not await _are_closed(service, 100):
                with_s = max(with_s, await pair.p99_s(5, edit_bytes))
                most_held = max(most_held, (await service.metrics())['ydoc_held_bytes{what="outboxes"}'])
        await told_1013(crowd, "frozen", 100)
        print(
            f"p99 {without_s * 1000:.1f} ms without, {with_s * 1000:.1f} ms with a hundred frozen;"
            f" {most_held / MIB:.0f} MiB held of {cap / MIB:.0f}, {(peak.relay_bytes - calm_bytes) / MIB:.0f} MiB grown"
        )
        assert with_s < without_s + DELAY_MAX_S
        assert cap / 2 < most_held <= cap
        # A buffer that grows is copied, and the allocator keeps the holes: twice the cap, and what a hundred sockets
        # hold uncounted. A hundred outboxes of their own size would be 800 MiB.
        assert peak.relay_bytes < calm_bytes + 2 * cap + 100 * 192 * 1024 + 64 * MIB
        assert len(pair.ben.root) == len(pair.ann.root)
        await verify(database_url, watched, pair)


async def test_a_frozen_reader_does_not_hold_another_document_either(
    tmp_path: Path, database_url: str, crowd: Crowd, journal: Journal
) -> None:
    """I16: rooms share a process, and nothing else."""
    async with serving(tmp_path, database_url=database_url, environment=SOON) as service:
        watched = await watch(service)
        busy, quiet = await Pair.open(service, journal, "busy"), await Pair.open(service, journal, "quiet")
        without_s = await quiet.p99_s()
        await crowd.open("frozen", service.port, ["busy"] * 10, frozen="live", receive_bytes=SMALL_BUFFER_BYTES)
        await crowd.synced("frozen", 10)
        flood = asyncio.create_task(busy.p99_s(60, 20_000))
        with_s = await quiet.p99_s()
        await flood
        print(f"p99 {without_s * 1000:.1f} ms without, {with_s * 1000:.1f} ms with")
        assert with_s < without_s + DELAY_MAX_S
        await until(lambda: _are_closed(service, 10))
        await verify(database_url, watched, busy, quiet)
