"""A thousand times open, edit and close: memory stays flat, and rooms, tasks, sockets and descriptors come back.

The service is a real `serve`; its memory is that of all its processes, without Postgres. Each cycle opens a document
of its own and one that all cycles share.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from tests.faults.processes import descriptors_of
from tests.memory import MIB, service_bytes
from tests.nodes import Editor
from tests.service import Service, serving
from tests.waiting import until

CYCLES = 1_000
AT_ONCE = 10
# So many see every buffer, pool and worker made that will be needed.
WARM_UP_CYCLES = 300
# What the allocator keeps between two looks, on top of what is held: 8 KiB a cycle would be over it.
GROWTH_BYTES_MAX = 8 * MIB
ENVIRONMENT = {"YDOC_ROOM_IDLE_S": "0.2", "YDOC_SWEEP_INTERVAL_S": "1", "YDOC_COMPACT_TAIL_ROWS": "20"}
# The pool opens what it has not needed before; more than that is a leak.
DESCRIPTORS_GROWTH_MAX = 10


async def cycle(service: Service, number: int) -> None:
    own = await Editor.open_synced(f"{service.url}/own {number}".replace(" ", "-"))
    shared = await Editor.open_synced(f"{service.url}/shared")
    # Now and then more than the event loop takes itself.
    await own.type("words " * (50_000 if number % 50 == 0 else 5))
    await own.show(1)
    await shared.type("x")
    await own.until(lambda: own.marker)
    await own.leave()
    await shared.leave()


async def cycles(service: Service, numbers: itertools.count[int], count: int) -> None:
    last = next(numbers) + count - 1

    async def work() -> None:
        while (number := next(numbers)) <= last:
            await cycle(service, number)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def at_rest(service: Service) -> dict[str, float]:
    """What is there when nobody is: waits for rooms to close."""
    metrics: dict[str, float] = {}

    async def is_quiet() -> bool:
        metrics.update(await service.metrics())
        held = sum(value for name, value in metrics.items() if name.startswith("ydoc_held_bytes"))
        return metrics["ydoc_rooms"] == held == 0

    await until(is_quiet)
    assert metrics['ydoc_connections{dialect="y-websocket"}'] == 0
    return metrics


async def test_a_thousand_cycles_leave_memory_flat_and_nothing_open(tmp_path: Path, database_url: str) -> None:
    """I15: memory is a base plus what is open; rooms, tasks and descriptors return to what they were."""
    numbers = itertools.count()
    async with serving(tmp_path, database_url=database_url, environment=ENVIRONMENT) as service:
        await cycles(service, numbers, WARM_UP_CYCLES)
        before = await at_rest(service)
        before_bytes, before_descriptors = service_bytes(service.pid), len(descriptors_of(service.pid))
        await cycles(service, numbers, CYCLES)
        after = await at_rest(service)
        after_bytes, after_descriptors = service_bytes(service.pid), len(descriptors_of(service.pid))
        print(
            f"{before_bytes / MIB:.1f} MiB, after {CYCLES} cycles {after_bytes / MIB:.1f} MiB;"
            f" tasks {before['ydoc_tasks']:.0f} and {after['ydoc_tasks']:.0f},"
            f" descriptors {before_descriptors} and {after_descriptors}"
        )
        assert after_bytes < before_bytes + GROWTH_BYTES_MAX
        # A task of this scrape, of a sweep or of a poll may be there in one look and not in the other.
        assert abs(after["ydoc_tasks"] - before["ydoc_tasks"]) <= 3
        assert after_descriptors <= before_descriptors + DESCRIPTORS_GROWTH_MAX
        assert after["ydoc_known_ranges"] <= before["ydoc_known_ranges"]
