"""What the processes of a running service occupy: memory of its whole tree, descriptors, and what its metrics tell.

Postgres is none of it: it runs elsewhere in these tests. Samples are taken until a block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.faults.processes import children_of, rss_bytes
from tests.service import Service

MIB = 1024 * 1024


def service_bytes(pid: int) -> int:
    """The memory of a process and of all that it has started, now. A child that ends meanwhile counts as nothing."""
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += rss_bytes(process)
            waiting += children_of(process)
    return total


class Peak:
    """The most that was seen while a block ran. `relay_bytes` is the serving process alone."""

    def __init__(self) -> None:
        self.relay_bytes = 0
        self.service_bytes = 0

    def see(self, pid: int) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.relay_bytes = max(self.relay_bytes, rss_bytes(pid))
            self.service_bytes = max(self.service_bytes, service_bytes(pid))


@contextlib.asynccontextmanager
async def watching_memory(service: Service, interval_s: float = 0.05) -> AsyncIterator[Peak]:
    """Looks at it all the time; what a look misses lasted less than the interval."""
    peak = Peak()

    async def watch() -> None:
        while True:
            peak.see(service.pid)
            await asyncio.sleep(interval_s)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        if service.is_running:
            peak.see(service.pid)
