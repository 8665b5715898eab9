"""The group-committing appender: what queued while the previous commit ran is the next commit.

No timer, no window: a quiet document is committed at once, a busy server commits in large batches by itself.
A document always goes through the same lane, and a lane has one batch in flight, so one connection's updates
enter the log in the order in which they arrived (I4). Whoever queued an update hears of exactly one outcome:
accepted (the COMMIT is known), refused (the document alone) or failed (the batch). A batch whose COMMIT is
unknown is never tried again: the members sync again instead and bring what is missing. What is sent to Postgres,
and how its answer is judged, is in `append_batch`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from ydoc_store.errors import Draining, RoomDiscarded, ServerFault, StorageBusy, YdocError
from ydoc_store.storage.append_batch import Accepted, DocumentBatch, append_batch

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

# A lane that lost its connection tries again after this long, so that a dead server is not hammered.
RECONNECT_PAUSE_S = 0.25


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
            self.lane.dirty[self] = None
            self.lane.wake.set()
        self.waiting.append(update)
        size = len(update.update)
        self.waiting_bytes += size
        self.lane.appender.queued_bytes += size

    def drop_waiting(self) -> list[QueuedUpdate]:
        """Forget what waits (not what is in flight): it was never accepted, and nobody is told by us."""
        dropped, self.waiting = self.waiting, []
        self.lane.appender.queued_bytes -= self.waiting_bytes
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
    """Test signals and metrics; each is called on the event loop and must not block."""

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
        self.queued_bytes = 0
        self._lanes = [Lane(self, number) for number in range(lanes)]

    async def start(self) -> None:
        """Connect every lane now, so that a database that refuses us is told at start. Raises StorageUnavailable."""
        for lane in self._lanes:
            await lane.connect()
            lane.task = asyncio.create_task(lane.run(), name=f"append lane {lane.number}")

    def queue(self, tenant: str, name: str, outcome: Outcome) -> DocumentQueue:
        """The queue of one document. Names choose the lane, since the id of a new document is not known yet."""
        lane = self._lanes[zlib.crc32(f"{tenant}\0{name}".encode()) % len(self._lanes)]
        return DocumentQueue(tenant, name, outcome, lane)

    async def drain(self, timeout_s: float) -> None:
        """Commit what waits, for at most `timeout_s`; what is left after that is refused with Draining."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(lane.idle.wait() for lane in self._lanes))
        except TimeoutError:
            pass
        for lane in self._lanes:
            await lane.stop()


@dataclass(eq=False)
class Lane:
    """One connection, one batch in flight."""

    appender: Appender
    number: int
    dirty: dict[DocumentQueue, None] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    connection: asyncpg.Connection[asyncpg.Record] | None = None
    task: asyncio.Task[None] | None = None
    unacknowledged_by_standby: bool = False

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        if self.connection is None or self.connection.is_closed():
            connection = await self.appender.database.connect_alone()
            connection.add_log_listener(self._heard)
            await connection.execute(SET_UP_LANE)
            self.connection = connection
        return self.connection

    def _heard(self, _connection: object, message: Any) -> None:
        # A commit that warns that it did not wait for its standby is committed here only: a failover loses it.
        if message.sqlstate == "01000" and "replication" in (message.message or ""):
            self.unacknowledged_by_standby = True

    async def run(self) -> None:
        while True:
            if not self.dirty:
                self.idle.set()
                self.wake.clear()
                await self.wake.wait()
            self.idle.clear()
            await self.commit(self.take())

    def take(self) -> list[DocumentBatch]:
        """Everything that waits, within the limits; what is left keeps its place behind the others' next turn."""
        limits = self.appender.limits
        batches: list[DocumentBatch] = []
        bytes_left, updates_left = limits.bytes_max, limits.updates_max
        for queue in list(self.dirty):
            if bytes_left <= 0 or updates_left <= 0 or len(batches) >= limits.documents_max:
                break
            del self.dirty[queue]
            waiting = queue.waiting
            if len(waiting) <= updates_left and queue.waiting_bytes <= bytes_left:
                taken, queue.waiting, size = waiting, [], queue.waiting_bytes
            else:
                taken, size = _first_of(waiting, updates_left, bytes_left)
                queue.waiting = waiting[len(taken) :]
                if queue.waiting:
                    self.dirty[queue] = None
            queue.waiting_bytes -= size
            queue.in_flight = taken
            bytes_left -= size
            updates_left -= len(taken)
            batches.append(DocumentBatch(queue, taken, size))
        return batches

    async def commit(self, batches: list[DocumentBatch]) -> None:
        appender = self.appender
        started_s = time.perf_counter()
        try:
            await self.append(batches)
        except asyncio.CancelledError:
            _fail(batches, Draining("stopped while a commit was under way"))
            raise
        except ServerFault as error:
            if not isinstance(error, StorageBusy):
                await self._lose_connection()
                appender.events.connection_lost(error)
            _fail(batches, error)
        finally:
            appender.queued_bytes -= sum(batch.size for batch in batches)
        appender.events.committed(sum(len(batch.updates) for batch in batches), time.perf_counter() - started_s)

    async def append(self, batches: list[DocumentBatch]) -> None:
        """Commit the batches and tell their owners; raises ServerFault when none of them was told."""
        self.unacknowledged_by_standby = False
        connection = await self.connect()
        try:
            results = await append_batch(
                connection,
                batches,
                timeout_s=self.appender.timeout_s,
                hints=self.appender if self.appender.hints_wanted else None,
                waited_for_standby=lambda: not self.unacknowledged_by_standby,
            )
        except StorageBusy:
            # Known to be rolled back. One held head must not fail its neighbours: each document once more, alone.
            if len(batches) == 1:
                raise
            for batch in batches:
                await self._append_alone(batch)
            return
        _tell(batches, results)

    async def _append_alone(self, batch: DocumentBatch) -> None:
        try:
            await self.append([batch])
        except StorageBusy as error:
            _fail([batch], error)

    async def _lose_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.terminate()
        await asyncio.sleep(RECONNECT_PAUSE_S)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        for queue in list(self.dirty):
            waiting = queue.drop_waiting()
            queue.outcome.refused(waiting, Draining("this server is stopping"))
        if self.connection is not None:
            self.connection.terminate()


# Every join of the append is a look-up of a few ids by primary key. A generic plan, made once, must stay that:
# made on an empty table it would scan the table it later runs on.
SET_UP_LANE = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)


def _first_of(waiting: Sequence[QueuedUpdate], updates_max: int, bytes_max: int) -> tuple[list[QueuedUpdate], int]:
    taken: list[QueuedUpdate] = []
    size = 0
    for update in waiting:
        # The first one always goes, or an update larger than what is left would wait for ever.
        if taken and (len(taken) >= updates_max or size + len(update.update) > bytes_max):
            break
        taken.append(update)
        size += len(update.update)
    return taken, size


def _tell(batches: list[DocumentBatch], results: list[Accepted | YdocError]) -> None:
    for batch, result in zip(batches, results, strict=True):
        batch.queue.in_flight = []
        outcome = batch.queue.outcome
        if isinstance(result, YdocError):
            outcome.refused(batch.updates, result)
            continue
        try:
            outcome.accepted(batch.updates, result)
        except Exception:  # a room that fails must not take its lane along; its members sync again
            log.exception("a room could not take its commit")
            outcome.refused([], RoomDiscarded("sync again: this server failed"))


def _fail(batches: list[DocumentBatch], error: YdocError) -> None:
    for batch in batches:
        batch.queue.in_flight = []
        batch.queue.outcome.refused(batch.updates, error)
