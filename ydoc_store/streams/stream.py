"""One stream's life in this process: its queue, its head, and the newest of its bytes while somebody waits for them.

A stream keeps nothing that the log has not: what was committed here, or came along with another node's hint, is
kept for the readers that are at the end, so that they share it; whoever is further behind reads the log, and readers
at one place share that read. What is told to a writer is told after the COMMIT (I1). How streams are found and
forgotten is the registry's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ydoc_store.errors import (
    DocumentDeleted,
    EpochChanged,
    NoSuchStream,
    RoomDiscarded,
    StreamClosed,
    StreamFull,
    TooLarge,
    YdocError,
)
from ydoc_store.storage.appender import QueuedUpdate
from ydoc_store.storage.guards import NO_ROOM, Closed, Duplicate, Guard, Verdict
from ydoc_store.storage.streams import TTL_SLACK, StoredPage, StoredStream, media_type_of, touch_stream
from ydoc_store.yjs.lib0 import frames

if TYPE_CHECKING:
    from ydoc_store.storage.append_batch import Accepted
    from ydoc_store.streams.registry import Streams

RECENT_BYTES_MAX: Final = 256 * 1024
"""What one stream keeps for readers at its end: some seconds of a lively one. Whoever is slower reads the log."""

Told = int | Duplicate | Closed
"""What a writer is told: the seq of what was stored, or why nothing had to be."""


class Held(Protocol):
    """A share of what all pages may take together. How a reader's pace is judged is not known here."""

    def resize(self, size: int) -> None:
        """It is so much; 0 gives it back."""

    def until_gone(self, owner: object) -> None:
        """Give it back when nobody has `owner` any more."""

    def read_by(self, pace: Any) -> AbstractContextManager[None]:
        """It is held for this reader too."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Page:
    """The updates (after, through_seq] of a stream. With `head` the same, there was nothing more; `closed` tells
    whether there never will be. `held` is its share, where it was read from the log."""

    updates: Sequence[bytes]
    through_seq: int
    head: int
    closed: bool
    held: Held | None = None

    @contextlib.contextmanager
    def read_by(self, pace: Any) -> Iterator[None]:
        """It is there, and counts for this reader, for as long as the block runs."""
        with contextlib.nullcontext() if self.held is None else self.held.read_by(pace):
            yield

    @property
    def is_whole(self) -> bool:
        return self.through_seq >= self.head

    @property
    def is_end(self) -> bool:
        return self.closed and self.is_whole


def page_of(stored: StoredPage, cursor: int) -> Page:
    """The updates behind `cursor`: of the first row those that it has not."""
    updates: list[bytes] = []
    through_seq = cursor
    for row in stored.rows:
        in_row = list(frames(row.frames))
        updates += in_row[max(0, through_seq - (row.seq - row.count)) :]
        through_seq = row.seq
    return Page(updates, through_seq, stored.stream.head, stored.stream.closed)


class Stream:
    """An open stream. `gone` is set when it is no more, or when what is remembered of it cannot be trusted."""

    def __init__(self, tenant: str, name: str, stored: StoredStream, streams: Streams):
        self.tenant = tenant
        self.name = name
        self.id = stored.id
        self.epoch = stored.epoch
        self.marker = stored.marker
        self.content_type = stored.content_type
        self.media_type = media_type_of(stored.content_type)
        self.ttl_s = stored.ttl_s
        self.expires_text = stored.expires_text
        self.head = stored.head
        self.closed = stored.closed
        self.gone: YdocError | None = None
        self.readers = 0
        self.used_at_s = time.monotonic()
        self.queue = streams.appender.queue(tenant, name, self)
        self.queue.document_id = stored.id
        self.queue.marker = stored.marker
        self.queue.bytes_ceiling = streams.bytes_max
        # Once appends that came together had no room together: from then on each is judged by its own size.
        self._is_nearly_full = False
        self._ends_at_s = None if stored.expires_in_s is None else time.monotonic() + stored.expires_in_s
        self._touched_at_s = 0.0
        self._streams = streams
        self._moved = asyncio.Event()
        # The updates (_recent_after, head], or fewer where others came that this process has not seen.
        self._recent: deque[bytes] = deque()
        self._recent_after = stored.head
        self._recent_bytes = 0
        self._reads: dict[int, asyncio.Task[Page]] = {}
        # What an adapter made of the newest page, by what it holds: readers at the end are given the same.
        self.encoded: tuple[tuple[int, int], bytes] | None = None

    # Writing

    async def append(self, update: bytes, actor: str | None, guard: Guard | None = None) -> Told:
        """Have `update` in the log, behind everything that came before; an empty one only closes, with its guard.

        Returns behind the COMMIT: the seq, or what the guard came to. Raises StreamClosed, StreamFull, NoSuchStream,
        ServerFault; CommitUnknown leaves open whether it is stored. Cancelling undoes nothing.
        """
        if self._is_nearly_full:
            guard = guard or Guard()
        told: asyncio.Future[int | Verdict] = asyncio.get_running_loop().create_future()
        self.queue.put(QueuedUpdate(update, actor, told, None, guard=guard))
        found = await told
        if isinstance(found, YdocError):
            raise found
        return found

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None:
        """The COMMIT is known."""
        first = result.head - len(updates) + 1
        for seq, queued in enumerate(updates, first):
            _tell(queued, seq)
        if any(queued.guard is not None and queued.guard.closes for queued in updates):
            self.closed = True
        self.arrived(first, result.head, [queued.update for queued in updates])

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        """Its guard left it out, or it closed the stream without a byte."""
        _tell(queued, verdict)
        if isinstance(verdict, Closed | StreamClosed):
            self.learned(verdict.head, closed=True)

    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
        """Nothing of these was accepted, or nobody knows."""
        if isinstance(error, TooLarge):
            if len(updates) > 1 and not self.queue.is_abandoned:
                self._is_nearly_full = True
                for queued in updates:
                    queued.guard = queued.guard or Guard()
                    self.queue.put(queued)
                return
            error = StreamFull(NO_ROOM)
        elif isinstance(error, DocumentDeleted | EpochChanged):
            error = NoSuchStream("this stream was deleted")
        for queued in updates:
            _tell(queued, error)
        if isinstance(error, StreamClosed):
            self.learned(error.head, closed=True)
        if isinstance(error, NoSuchStream | RoomDiscarded):
            self._streams.forget(self, error)

    # What becomes known of it

    def arrived(self, first: int, last: int, updates: Sequence[bytes] | None = None) -> None:
        """(first - 1, last] is in the log, `updates` if they came along. In any order, twice, or with gaps."""
        if last <= self.head:
            return
        if updates is None or first > self.head + 1 or not self.readers or self._streams.is_crowded:
            self._drop_recent(last)
        else:
            for update in updates[self.head + 1 - first :]:
                self._recent.append(update)
                self._recent_bytes += len(update)
                self._streams.recent_bytes += len(update)
            while self._recent_bytes > RECENT_BYTES_MAX:
                size = len(self._recent.popleft())
                self._recent_after += 1
                self._recent_bytes -= size
                self._streams.recent_bytes -= size
        self.head = last
        self._wake()

    def learned(self, head: int, *, closed: bool) -> None:
        """The database has it so. Closed it is only up to this head: readers must not end before the last of it."""
        self.arrived(head + 1, head)
        if closed and not self.closed:
            self.closed = True
            self._wake()

    def end(self, error: YdocError) -> None:
        """It is no more, or is not trusted any more: whoever waits is told, and nothing of it is appended."""
        if self.gone is None:
            self.gone = error
            self.queue.is_abandoned = True
            for queued in self.queue.drop_waiting():
                _tell(queued, error)
            self._drop_recent(self.head)
            self._wake()

    def _drop_recent(self, after: int) -> None:
        self.encoded = None
        self._streams.recent_bytes -= self._recent_bytes
        self._recent.clear()
        self._recent_bytes = 0
        self._recent_after = after

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # Reading

    @contextlib.contextmanager
    def being_read(self) -> Iterator[None]:
        """While somebody reads at its end, its newest bytes are kept."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self.used_at_s = time.monotonic()
            if not self.readers:
                # Of a stream that is forgotten next it would count for ever.
                self._drop_recent(self.head)

    async def moved(self, seq: int, timeout_s: float) -> bool:
        """Wait until there is more than `seq`, or nothing can come any more; False after `timeout_s`.

        Raises NoSuchStream, or why what is remembered is not trusted any more.
        """
        ends_at_s = time.monotonic() + timeout_s
        while True:
            self.check()
            if self.head > seq or self.closed:
                return True
            moved = self._moved
            wait_s = min(ends_at_s, self._ends_at_s or ends_at_s) - time.monotonic()
            if wait_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await moved.wait()

    def check(self) -> None:
        """Raises NoSuchStream where its time is over, and why it is gone where it is."""
        if self.gone is not None:
            raise self.gone
        if self._ends_at_s is not None and time.monotonic() >= self._ends_at_s:
            error = NoSuchStream("this stream has expired")
            self._streams.forget(self, error)
            raise error

    async def after(self, cursor: int) -> Page:
        """What follows `cursor`: from memory at the end of the stream, else a page of the log. Raises as `moved`."""
        self.check()
        if self._recent_after <= cursor <= self.head:
            updates = list(self._recent)[cursor - self._recent_after :]
            return Page(updates, self.head, self.head, self.closed)
        reading = self._reads.get(cursor)
        if reading is None:
            reading = self._reads[cursor] = self._streams.spawn(self._streams.read_page(self, cursor))
            reading.add_done_callback(lambda _task: self._reads.pop(cursor, None))
        return await asyncio.shield(reading)

    async def use(self) -> None:
        """Count its life from now on, where it has one. Raises NoSuchStream where that is over, ServerFault."""
        self.used_at_s = time.monotonic()
        self.check()
        if self.ttl_s is None or self.used_at_s - self._touched_at_s < self.ttl_s * TTL_SLACK:
            return
        if not self._streams.read_only and not await touch_stream(self._streams.database, self.id):
            error = NoSuchStream("this stream has expired")
            self._streams.forget(self, error)
            raise error
        self._touched_at_s = self.used_at_s

    @property
    def is_idle(self) -> bool:
        return not self.readers and not self.queue.waiting and not self.queue.in_flight


def _tell(queued: QueuedUpdate, what: int | Verdict) -> None:
    # Whoever waited may have gone away.
    if not queued.sender.done():
        queued.sender.set_result(what)
