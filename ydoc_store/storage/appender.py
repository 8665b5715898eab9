"""The group-committing appender: what queued while the previous commit ran is the next commit.

No timer, no window: a quiet document is committed at once, a busy server commits in large batches by itself.
A document always goes through the same lane, so one connection's updates enter the log in the order in which they
arrived (I4). Whoever queued an update hears of exactly one outcome: accepted (the COMMIT is known), refused (the
document alone) or failed (the batch). How a lane takes, commits and tells is in `lane`, what is sent to Postgres
in `append_batch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ydoc_store.errors import YdocError
from ydoc_store.storage.lane import QUEUED_OVERHEAD_BYTES, Lane

if TYPE_CHECKING:
    from ydoc_store.storage.append_batch import Accepted
    from ydoc_store.storage.pool import Database


class QueuedUpdate:
    """One update that waits for its commit; `sender` and `walked` are the room's, handed back untouched."""

    __slots__ = ("actor", "queued_at_s", "sender", "update", "walked")

    def __init__(self, update: bytes, actor: str | None, sender: Any, walked: Any, queued_at_s: float = 0.0):
        self.update = update
        self.actor = actor
        self.sender = sender
        self.walked = walked
        self.queued_at_s = queued_at_s


class Outcome(Protocol):
    """Who hears what became of a document's updates; called in commit order, never while a batch is built."""

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None: ...
    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None: ...


class DocumentQueue:
    """The waiting updates of one open document. Its owner sets the identity that the append is guarded by.

    `document_id` is None until the document exists: the append then creates it, and the owner learns its identity
    from `Accepted`. `bytes_ceiling` bounds the row's counter of accepted bytes (see the room).
    """

    __slots__ = (
        "bytes_ceiling",
        "document_id",
        "in_flight",
        "lane",
        "name",
        "outcome",
        "tenant",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, tenant: str, name: str, outcome: Outcome, lane: Lane):
        self.tenant = tenant
        self.name = name
        self.document_id: int | None = None
        self.bytes_ceiling = 2**62
        self.outcome = outcome
        self.lane = lane
        self.waiting: list[QueuedUpdate] = []
        self.waiting_bytes = 0
        self.in_flight: list[QueuedUpdate] = []

    def put(self, update: QueuedUpdate) -> None:
        """Queue behind everything that this document has waiting; the outcome is told later, exactly once."""
        if not self.waiting:
            self.lane.mark(self)
        self.waiting.append(update)
        size = len(update.update)
        self.waiting_bytes += size
        self.lane.appender.queued_bytes += size + QUEUED_OVERHEAD_BYTES

    def drop_waiting(self) -> list[QueuedUpdate]:
        """Forget what waits (not what is in flight): it was never accepted, and nobody is told by us."""
        dropped, self.waiting = self.waiting, []
        self.lane.appender.queued_bytes -= self.waiting_bytes + QUEUED_OVERHEAD_BYTES * len(dropped)
        self.waiting_bytes = 0
        self.lane.dirty.pop(self, None)
        return dropped

    def drop_waiting_of(self, sender: Any) -> None:
        """Forget what one sender has waiting: it was fenced, and nothing behind its refused update may follow."""
        kept = [update for update in self.waiting if update.sender is not sender]
        if len(kept) != len(self.waiting):
            self.drop_waiting()
            for update in kept:
                self.put(update)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one commit may carry, so that an import cannot stall its lane."""

    bytes_max: int = 4 * 2**20
    updates_max: int = 10_000
    documents_max: int = 1_000


@dataclass(slots=True)
class AppenderEvents:
    """Test signals and metrics; each is called on the event loop and must not block.

    `connection_lost` follows the outcomes of everything that was queued on that connection, and comes for an idle
    lane too: what a room remembers may no longer be what the next connection's server holds.
    """

    committed: Callable[[int, float], None] = lambda _updates, _seconds: None
    connection_lost: Callable[[YdocError], None] = lambda _error: None


class Appender:
    """The lanes of one process. `queue()` gives a document its place, `start` and `drain` bound their life."""

    def __init__(
        self,
        database: Database,
        *,
        lanes: int = 1,
        limits: BatchLimits | None = None,
        timeout_s: float = 5.0,
        hint_prefix: str = "",
        inline_bytes_max: int = 6_000,
    ):
        self.database = database
        self.limits = limits or BatchLimits()
        self.timeout_s = timeout_s
        self.hint_prefix = hint_prefix
        self.inline_bytes_max = inline_bytes_max
        # The fan-out switches hints off while nobody else listens, or while the notification queue is filling.
        self.hints_wanted = True
        self.events = AppenderEvents()
        # With what each update takes beside its bytes.
        self.queued_bytes = 0
        self._lanes = [Lane(self, number) for number in range(lanes)]

    async def start(self) -> None:
        """Connect every lane now, so that a database that refuses us is told at start. Raises StorageUnavailable."""
        for lane in self._lanes:
            await lane.connect()
        for lane in self._lanes:
            lane.start()

    def queue(self, tenant: str, name: str, outcome: Outcome) -> DocumentQueue:
        """The queue of one document. Names choose the lane, since the id of a new document is not known yet."""
        lane = self._lanes[zlib.crc32(f"{tenant}\0{name}".encode()) % len(self._lanes)]
        return DocumentQueue(tenant, name, outcome, lane)

    async def drain(self, timeout_s: float) -> None:
        """Commit what waits, for at most `timeout_s`; what is left after that is refused with Draining."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(lane.idle.wait() for lane in self._lanes))
        for lane in self._lanes:
            await lane.stop()
