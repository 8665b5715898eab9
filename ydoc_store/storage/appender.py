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
    from ydoc_store.failpoints import Failpoints
    from ydoc_store.storage.append_batch import Accepted
    from ydoc_store.storage.guards import Guard, Verdict
    from ydoc_store.storage.pool import Database


class QueuedUpdate:
    """One update that waits for its commit; `sender`, `walked` and `acks` are the room's, handed back untouched.

    With a `guard` it is stored only if that holds; what it comes to else is told by `Outcome.judged`.
    """

    __slots__ = ("acks", "actor", "guard", "queued_at_s", "sender", "update", "walked")

    def __init__(
        self,
        update: bytes,
        actor: str | None,
        sender: Any,
        walked: Any,
        queued_at_s: float = 0.0,
        acks: int = 1,
        guard: Guard | None = None,
    ):
        self.acks = acks
        self.update = update
        self.actor = actor
        self.sender = sender
        self.walked = walked
        self.queued_at_s = queued_at_s
        self.guard = guard


class Outcome(Protocol):
    """Who hears what became of a document's updates; called in commit order, never while a batch is built.

    Of a batch with guards, those that were left out are told one by one before the others.
    """

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None: ...
    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None: ...
    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None: ...


class DocumentQueue:
    """The waiting updates of one open document. Its owner sets the identity that the append is guarded by.

    `document_id` is None until the document exists: the append then creates it, and the owner learns its identity
    from `Accepted`. `marker` is its epoch's; None leaves unasked whether the id still means the same document.
    `bytes_ceiling` bounds the row's counter of accepted bytes (see the room).
    """

    __slots__ = (
        "bytes_ceiling",
        "document_id",
        "has_guards",
        "in_flight",
        "is_abandoned",
        "lane",
        "marker",
        "name",
        "outcome",
        "tenant",
        "waiting",
        "waiting_bytes",
        "was_held",
    )

    def __init__(self, tenant: str, name: str, outcome: Outcome, lane: Lane):
        self.tenant = tenant
        self.name = name
        self.document_id: int | None = None
        self.marker: int | None = None
        self.bytes_ceiling = 2**62
        self.outcome = outcome
        self.lane = lane
        # Its owner trusts nothing any more: what was taken and not sent yet never is.
        self.is_abandoned = False
        # Whether anything guarded was ever queued here: only then is each batch looked through for it.
        self.has_guards = False
        self.waiting: list[QueuedUpdate] = []
        self.waiting_bytes = 0
        self.in_flight: list[QueuedUpdate] = []
        # Somebody else's transaction held the head for longer than the lane waits, when last looked at.
        self.was_held = False

    def put(self, update: QueuedUpdate) -> None:
        """Queue behind everything that this document has waiting; the outcome is told later, exactly once."""
        if not self.waiting:
            self.lane.mark(self)
        self.waiting.append(update)
        if update.guard is not None:
            self.has_guards = True
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

    def drop_waiting_of(self, sender: Any) -> list[QueuedUpdate]:
        """Forget what one sender has waiting, and return it: nothing behind its refused update may follow."""
        dropped = [update for update in self.waiting if update.sender is sender]
        if dropped:
            kept = [update for update in self.waiting if update.sender is not sender]
            self.drop_waiting()
            for update in kept:
                self.put(update)
        return dropped


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
    lane too: what a room remembers may no longer be what the next connection's server holds. `connected_again` comes
    when the next connection stands: whatever was loaded in between was loaded while nobody would have told of a loss.
    """

    committed: Callable[[int, float], None] = lambda _updates, _seconds: None
    connection_lost: Callable[[YdocError], None] = lambda _error: None
    connected_again: Callable[[], None] = lambda: None


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
        keep_deleted: bool = False,
        failpoints: Failpoints | None = None,
    ):
        self.database = database
        # What the documents that an append creates begin with.
        self.keep_deleted = keep_deleted
        self.limits = limits or BatchLimits()
        self.timeout_s = timeout_s
        self.hint_prefix = hint_prefix
        self.inline_bytes_max = inline_bytes_max
        self.failpoints = failpoints
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
        return DocumentQueue(tenant, name, outcome, self._lane_of(tenant, name))

    def _lane_of(self, tenant: str, name: str) -> Lane:
        return self._lanes[zlib.crc32(f"{tenant}\0{name}".encode()) % len(self._lanes)]

    async def connect_again(self, tenant: str, name: str) -> None:
        """Before a document is loaded: make the connection of its lane anew where that was lost, if it can be made.

        A lane without a connection would not notice a failover behind the load.
        """
        await self._lane_of(tenant, name).connect_again()

    async def drain(self, timeout_s: float) -> None:
        """Commit what waits, for at most `timeout_s`; what is left after that is refused with Draining."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(lane.idle.wait() for lane in self._lanes))
        for lane in self._lanes:
            await lane.stop()
