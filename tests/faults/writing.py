"""Stock editors that type markers while a fault happens, each seen by another: what the journal is filled with."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.faults.journal import Journal, Known
from tests.interop.editors import Editor, Editors

# A stock client waits up to 2.5 s between two tries, and a machine that runs other tests is slow.
GOES_ON_TIMEOUT_S = 60.0
EVERY_MS = 20


@dataclass
class Writing:
    """The writers of one document, and the one who reads along and notes what was seen."""

    journal: Journal
    document: str
    writers: list[Editor] = field(default_factory=list)
    reader: Editor | None = None

    @property
    def clients(self) -> dict[str, list[Editor]]:
        """As `oracle.Scene` wants them."""
        return {self.document: [*self.writers, *([self.reader] if self.reader is not None else [])]}

    def known(self) -> Known:
        return self.journal.known().get(self.document, Known())

    def acked(self) -> int:
        return len(self.known().acked)

    async def goes_on(self, more: int = 5) -> float:
        """Returns once so many more markers were seen by another; for how many seconds that took."""
        started_s, before = time.monotonic(), self.acked()
        await until_within(GOES_ON_TIMEOUT_S, lambda: self.acked() >= before + more)
        return time.monotonic() - started_s

    async def stop(self) -> None:
        """Nobody types any more."""
        for writer in self.writers:
            await writer.stop_typing()


@contextlib.asynccontextmanager
async def writing(
    editors: Editors,
    url: str,
    journal: Journal,
    document: str = "doc",
    *,
    reader_url: str | None = None,
    count: int = 1,
) -> AsyncIterator[Writing]:
    """`count` editors that type without a pause, and a reader, elsewhere if `reader_url` says so, that all see."""
    live = Writing(journal, document)
    live.reader = await editors.open_synced(reader_url or url, document)
    await live.reader.note_seen(journal.path)
    for number in range(count):
        live.writers.append(await editors.open_synced(url, document))
        await live.writers[-1].keep_marking(journal.path, f"{document}-w{number}", EVERY_MS)
    yield live


async def until_within(timeout_s: float, condition: Callable[[], bool]) -> None:
    """Returns once the condition holds, which sends no signal; TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 # another process brings it about
            await asyncio.sleep(0.01)
