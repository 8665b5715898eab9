"""A lane of the appender: one connection, one batch in flight, and everyone told of exactly one outcome.

A batch is everything that waits, within limits. One that is known to be rolled back is tried again in parts, so
that a held head or a poisoned document fails alone; one whose COMMIT is unknown is never tried again: the members
sync again instead and bring what is missing. With a lost connection everything that waits on it fails too, at
once, so that memory stays bounded while the database is away. Nothing here knows SQL's tables or rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from ydoc_store.errors import (
    CommitUnknown,
    Draining,
    RoomDiscarded,
    ServerFault,
    StorageBusy,
    StorageUnavailable,
    YdocError,
)
from ydoc_store.storage.append_batch import Accepted, DocumentBatch, Result, append_batch
from ydoc_store.storage.lane_connection import connect_lane, tells_of_no_standby
from ydoc_store.storage.outcomes import find_free_heads

if TYPE_CHECKING:
    from ydoc_store.storage.appender import Appender, DocumentQueue, QueuedUpdate

log = structlog.get_logger(__name__)

# What a queued update takes beside its bytes, which are some twenty for a typed character.
QUEUED_OVERHEAD_BYTES = 512
# A lane that lost its connection tries again after this long, so that a dead server is not hammered.
RECONNECT_PAUSE_S = 0.25
# A head that is held at every one of these looks is held by more than another node's commit.
LOOK_PAUSES_S = (0.0, 0.05, 0.1)
# Parts of a batch are not begun when less than this share of its time is left: they would end as unknown.
LAST_START_SHARE = 0.3
ENDED = "the database ended the append connection"


class Lane:
    """Takes what is queued, commits it, tells. `start` and `stop` bound its life."""

    def __init__(self, appender: Appender, number: int):
        self.appender = appender
        self.number = number
        self.dirty: dict[DocumentQueue, None] = {}
        self.connection: asyncpg.Connection[asyncpg.Record] | None = None
        # Set while nothing waits and nothing is in flight.
        self.idle = asyncio.Event()
        self.idle.set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_committing = False
        self._without_standby = False
        self._was_lost = False
        self._connecting = asyncio.Lock()
        # Who did not fit into the last batch whole.
        self._cut_short: list[DocumentQueue] = []

    def mark(self, queue: DocumentQueue) -> None:
        """This queue has something that waits now."""
        self.dirty[queue] = None
        self.idle.clear()
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"append lane {self.number}")

    async def stop(self) -> None:
        """End at once; what waits, and what is in flight, is refused with Draining."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._was_lost = False
        self._refuse_waiting(Draining("this server is stopping"))
        self._drop_connection()

    # The connection

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Make the lane's connection. Raises StorageUnavailable, or another ServerFault."""
        connection = await connect_lane(self.appender.database, self.appender.timeout_s)
        connection.add_log_listener(self._heard)
        connection.add_termination_listener(self._ended)
        self.connection = connection
        if self._was_lost:
            self._was_lost = False
            self._report(self.appender.events.connected_again)
        return connection

    async def connect_again(self) -> None:
        """Make a lost connection anew, for whoever is about to load what this lane appends to.

        What goes wrong is for the next append to tell: reading needs no lane.
        """
        if self._was_lost:
            with contextlib.suppress(ServerFault):
                await self._connect_by(time.monotonic() + self.appender.timeout_s)
            if self._task is None or self._task.done():
                # Stopped meanwhile: nobody else would end what was made.
                self._drop_connection()

    def _heard(self, _connection: object, message: Any) -> None:
        self._without_standby = self._without_standby or tells_of_no_standby(message)

    def _ended(self, connection: object) -> None:
        # Of a connection that we dropped, or that is under a commit, whoever does that tells.
        if connection is self.connection and not self._is_committing:
            self._lose_connection([], StorageUnavailable(ENDED))

    def _drop_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.terminate()

    def _lose_connection(self, batches: list[DocumentBatch], error: ServerFault) -> None:
        self._drop_connection()
        self._refuse(batches, error)
        self._refuse_waiting(StorageUnavailable(f"not tried: {error}"))
        self._was_lost = True
        self._report(partial(self.appender.events.connection_lost, error))

    def _report(self, event: Callable[[], None]) -> None:
        try:
            event()
        except Exception:
            log.exception("what became of the append connection could not be told")

    # A batch

    async def _run(self) -> None:
        while True:
            if not self.dirty:
                self.idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._reach("before-take")
            batches = self.take()
            if batches and not await self.commit(batches):
                await asyncio.sleep(RECONNECT_PAUSE_S)

    def take(self) -> list[DocumentBatch]:
        """Everything that waits, within the limits; what was left of the last batch goes behind who came since."""
        limits = self.appender.limits
        for queue in self._cut_short:
            if queue in self.dirty:
                self.dirty[queue] = self.dirty.pop(queue)
        self._cut_short.clear()
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
                    self._cut_short.append(queue)
            queue.waiting_bytes -= size
            queue.in_flight = taken
            bytes_left -= size
            updates_left -= len(taken)
            batches.append(DocumentBatch(queue, taken, size))
        return batches

    async def commit(self, batches: list[DocumentBatch]) -> bool:
        """Commit the batches and tell everyone what became of theirs; False when the connection was lost over it."""
        self._is_committing = True
        try:
            await self._append(batches, time.monotonic() + self.appender.timeout_s)
        except asyncio.CancelledError:
            self._drop_connection()
            self._refuse(batches, Draining("stopped while a commit was under way"))
            raise
        except ServerFault as error:
            self._lose_connection(batches, error)
            return False
        except Exception as error:  # the lane outlives whatever goes wrong in it; what it did is unknown
            log.exception("an append failed")
            self._lose_connection(batches, CommitUnknown(f"the append failed: {error}"))
            return False
        finally:
            self._is_committing = False
        if self.connection is not None and self.connection.is_closed():
            # It ended right behind the answer; nobody else would notice on a lane that is quiet now.
            self._lose_connection([], StorageUnavailable(ENDED))
        return self.connection is not None

    async def _append(self, batches: list[DocumentBatch], deadline_s: float) -> None:
        """Raises StorageUnavailable or CommitUnknown when not all of them were told and the connection is lost."""
        appender = self.appender
        hints = appender if appender.hints_wanted else None
        connection = self.connection or await self._connect_by(deadline_s)
        batches = self._without_abandoned(batches)
        if not batches:
            return
        if connection.is_closed():
            raise StorageUnavailable(ENDED)
        batches = await self._without_held_again(connection, batches, deadline_s)
        if not batches:
            return
        await self._reach("before-send")
        # Again, behind the last wait: looking at heads that were held takes a while.
        batches = self._without_abandoned(batches)
        if not batches:
            return
        started_s = time.monotonic()
        self._without_standby = False
        try:
            results = await append_batch(
                connection,
                batches,
                timeout_s=deadline_s - started_s,
                hints=hints,
                waited_for_standby=lambda: not self._without_standby,
                keep_deleted=appender.keep_deleted,
                failpoints=appender.failpoints,
            )
        except StorageBusy as busy:
            if hints is not None and isinstance(busy.__cause__, asyncpg.ProgramLimitExceededError):
                # The notification queue is full. Whoever watches it switches the hints on again.
                appender.hints_wanted = False
                await self._append(batches, deadline_s)
            else:
                await self._append_in_parts(connection, batches, busy, deadline_s)
            return
        await self._reach("after-commit")
        self._tell_results(batches, results)
        await self._reach("after-tell")
        appender.events.committed(sum(len(batch.kept) for batch in batches), time.monotonic() - started_s)

    async def _reach(self, step: str) -> None:
        if self.appender.failpoints is not None:
            await self.appender.failpoints.reach(f"append.{step}")

    async def _connect_by(self, deadline_s: float) -> asyncpg.Connection[asyncpg.Record]:
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()), self._connecting:
                return self.connection or await self.connect()
        except TimeoutError as error:
            raise StorageUnavailable("the database cannot be reached in time") from error

    async def _append_in_parts(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        batches: list[DocumentBatch],
        busy: StorageBusy,
        deadline_s: float,
    ) -> None:
        # Known to be rolled back: the documents that cannot be appended to now are found, and fail alone.
        last_start_s = deadline_s - self.appender.timeout_s * LAST_START_SHARE
        if len(batches) == 1 or time.monotonic() > last_start_s:
            self._refuse(batches, busy)
            return
        parts = [batches[: len(batches) // 2], batches[len(batches) // 2 :]]
        if isinstance(busy.__cause__, asyncpg.LockNotAvailableError):
            held = await self._find_held(connection, batches, deadline_s)
            for batch in held:
                batch.queue.was_held = True
            self._refuse(held, busy)
            known = [batch for batch in batches if not batch.told and batch.queue.document_id is not None]
            new = [batch for batch in batches if batch.queue.document_id is None]
            if held or (known and new):
                # Another node may be creating one of the new ones: that must not hold up the known.
                parts = [known, new]
        for part in parts:
            if part and time.monotonic() > last_start_s:
                self._refuse(part, busy)
            elif part:
                await self._append(part, deadline_s)

    async def _without_held_again(
        self, connection: asyncpg.Connection[asyncpg.Record], batches: list[DocumentBatch], deadline_s: float
    ) -> list[DocumentBatch]:
        """Refuse what was held the last time and still is: its members retry, and each would cost a lock time-out."""
        suspects = [batch for batch in batches if batch.queue.was_held]
        if not suspects:
            return batches
        held = await self._find_held(connection, suspects, deadline_s)
        for batch in suspects:
            batch.queue.was_held = batch in held
        self._refuse(held, StorageBusy("this document is still held by another transaction"))
        return [batch for batch in batches if not batch.told]

    async def _find_held(
        self, connection: asyncpg.Connection[asyncpg.Record], batches: list[DocumentBatch], deadline_s: float
    ) -> list[DocumentBatch]:
        held = [batch for batch in batches if batch.queue.document_id is not None]
        for pause_s in LOOK_PAUSES_S:
            await asyncio.sleep(pause_s)
            ids = [batch.queue.document_id for batch in held if batch.queue.document_id is not None]
            free = await find_free_heads(connection, ids, timeout_s=deadline_s - time.monotonic())
            held = [batch for batch in held if batch.queue.document_id not in free]
            if not held:
                break
        return held

    def _without_abandoned(self, batches: list[DocumentBatch]) -> list[DocumentBatch]:
        """Refuse what was taken from rooms that were discarded since: with a new connection there may be a server that
        lacks what these updates follow."""
        abandoned = [batch for batch in batches if batch.queue.is_abandoned]
        self._refuse(abandoned, RoomDiscarded("what this follows may be lost: sync again"))
        return [batch for batch in batches if not batch.told]

    def _tell_results(self, batches: list[DocumentBatch], results: Sequence[Result]) -> None:
        for place, (batch, result) in enumerate(zip(batches, results, strict=True)):
            if place > 0 and self.appender.failpoints is not None:
                self.appender.failpoints.reach_at_once("append.between-tells")
            self._settle(batch)
            left_out, updates = batch.told_by(result)
            try:
                for queued, verdict in left_out:
                    batch.queue.outcome.judged(queued, verdict)
                if updates and isinstance(result, Accepted):
                    batch.queue.outcome.accepted(updates, result)
            except Exception:  # a room that fails must not take its lane along; its members sync again
                log.exception("a room could not take its commit")
                _tell_refused(batch.queue, [], RoomDiscarded("sync again: this server failed"))
            if updates and not isinstance(result, Accepted):
                _tell_refused(batch.queue, updates, result)

    def _refuse(self, batches: list[DocumentBatch], error: YdocError) -> None:
        for batch in batches:
            if not batch.told:
                self._settle(batch)
                _tell_refused(batch.queue, batch.updates, error)

    def _refuse_waiting(self, error: YdocError) -> None:
        for queue in list(self.dirty):
            waiting = queue.drop_waiting()
            if waiting:
                _tell_refused(queue, waiting, error)

    def _settle(self, batch: DocumentBatch) -> None:
        batch.told = True
        batch.queue.in_flight = []
        self.appender.queued_bytes -= batch.size + QUEUED_OVERHEAD_BYTES * len(batch.updates)


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


def _tell_refused(queue: DocumentQueue, updates: list[QueuedUpdate], error: YdocError) -> None:
    try:
        queue.outcome.refused(updates, error)
    except Exception:  # likewise; nothing that waits behind what was refused may follow
        log.exception("a room could not take its refusal")
        queue.drop_waiting()
