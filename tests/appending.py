"""The appender as a test sees it: an owner that notes its outcomes, and what the log holds afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from ydoc_store.errors import YdocError
from ydoc_store.storage.append_batch import Accepted, DocumentBatch
from ydoc_store.storage.appender import Appender, BatchLimits, DocumentQueue, QueuedUpdate
from ydoc_store.storage.guards import Guard, Verdict
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import frames

WAIT_S = 60.0
READ_LOG = "SELECT seq, count, actor, frames FROM ydoc.updates WHERE document_id = $1 ORDER BY seq"
READ_DOCUMENT = """
SELECT head, accepted_rows, accepted_bytes, (SELECT count(*) FROM ydoc.updates WHERE document_id = id) AS rows
FROM ydoc.documents WHERE id = $1
"""


@asynccontextmanager
async def appending(url: str, *, timeout_s: float = 5.0, limits: BatchLimits | None = None) -> AsyncIterator[Appender]:
    """A started appender on a pool of its own; what waits at the end is refused."""
    database = await Database.open(url)
    appender = Appender(database, timeout_s=timeout_s, limits=limits)
    try:
        await appender.start()
        yield appender
    finally:
        await appender.drain(0)
        await database.close(timeout_s=0.2)


@dataclass(eq=False)
class Owner:
    """What a room is to the appender: it queues, and hears of outcomes."""

    appender: Appender
    name: str
    tenant: str = "t"
    accepted_updates: list[bytes] = field(default_factory=list)
    results: list[Accepted] = field(default_factory=list)
    refused_updates: list[bytes] = field(default_factory=list)
    errors: list[YdocError] = field(default_factory=list)
    verdicts: list[tuple[bytes, Verdict]] = field(default_factory=list)
    on_outcome: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.queue: DocumentQueue = self.appender.queue(self.tenant, self.name, self)
        self._changed = asyncio.Event()

    def put(self, *updates: bytes, sender: object = None, actor: str | None = None, guard: Guard | None = None) -> None:
        for update in updates:
            self.queue.put(QueuedUpdate(update, actor, sender or self, None, guard=guard))

    def batch(self, *updates: bytes, actor: str | None = None) -> DocumentBatch:
        """For `append_batch` itself, without a queue's lane."""
        queued = [QueuedUpdate(update, actor, self, None) for update in updates]
        return DocumentBatch(self.queue, queued, sum(map(len, updates)))

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None:
        self.accepted_updates += [queued.update for queued in updates]
        self.results.append(result)
        if result.created is not None:
            self.queue.document_id = result.created.document_id
        self._changed.set()
        self.on_outcome()

    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
        self.refused_updates += [queued.update for queued in updates]
        self.errors.append(error)
        self._changed.set()
        self.on_outcome()

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        self.verdicts.append((queued.update, verdict))
        self._changed.set()
        self.on_outcome()

    @property
    def document_id(self) -> int:
        assert self.queue.document_id is not None, "not created"
        return self.queue.document_id

    async def heard_of(self, count: int) -> None:
        """Returns once `count` updates in all have their outcome."""
        async with asyncio.timeout(WAIT_S):
            while len(self.accepted_updates) + len(self.refused_updates) + len(self.verdicts) < count:
                self._changed.clear()
                await self._changed.wait()


async def log_of(connection: asyncpg.Connection[asyncpg.Record], document_id: int) -> list[bytes]:
    """The updates of a document in seq order; asserts that the seqs are gapless and that the head row agrees."""
    updates: list[bytes] = []
    size = rows = 0
    for row in await connection.fetch(READ_LOG, document_id):
        assert row["seq"] - row["count"] == len(updates), "a hole, or an overlap"
        in_row = list(frames(row["frames"]))
        assert len(in_row) == row["count"]
        updates += in_row
        size += sum(map(len, in_row))
        rows += 1
    head = await connection.fetchrow(READ_DOCUMENT, document_id)
    assert head is not None
    assert tuple(head) == (len(updates), rows, size, rows)
    return updates


def numbered(count: int, prefix: str = "u") -> Sequence[bytes]:
    """Updates that can be told apart; the appender does not look into them."""
    return [f"{prefix}{number}".encode() for number in range(count)]
