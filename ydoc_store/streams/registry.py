"""The streams that are open in this process: found by name, level with the log, forgotten when nobody uses them.

Hints of other nodes and one poll keep them level, as they do rooms; nothing rests on a hint alone but latency. When
the database's connection is lost, or it is another database, all of them are forgotten (I11): readers come back and
are answered from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ydoc_store.errors import (
    NameReserved,
    NoSuchStream,
    RoomDiscarded,
    ServerFull,
    StorageUnavailable,
    StreamFull,
    YdocError,
)
from ydoc_store.storage.guards import NO_ROOM
from ydoc_store.storage.heads import Head, read_heads
from ydoc_store.storage.streams import (
    StoredStream,
    StreamSettings,
    create_stream,
    delete_stream,
    find_stream,
    read_stream,
    read_stream_after,
)
from ydoc_store.streams.stream import Held, Page, Stream, page_of

if TYPE_CHECKING:
    from ydoc_store.settings import Settings
    from ydoc_store.storage.appender import Appender
    from ydoc_store.storage.pool import Database

PAGE_ROWS_MAX: Final = 2_000
PAGE_BYTES_MAX: Final = 256 * 1024
"""One answer's worth: a reader asks again for more, and a slow one holds no more than this of a long stream. An update
that is larger goes whole."""
OPEN_MAX: Final = 10_000
"""Streams that are remembered, each in some 2 KB, so that an append costs no look at the database."""
IDLE_S: Final = 60.0
PAGES_ALL_BYTES_MAX: Final = 128 * 1024 * 1024
"""What readers behind the ends of streams hold together: a hundred pages on slow lines. Who comes when it is used up
waits for a turn."""
FROM_THE_END: Final = 2**62
"""A cursor that nothing follows: a read from it says where the stream ends."""
RECENT_ALL_BYTES_MAX: Final = 64 * 1024 * 1024
"""What all streams together keep for readers at their end; beyond that readers share reads of the log."""

LIST_OF_DOCUMENTS: Final = "documents"
"""The name under which the live list of documents is read, as if it were a stream."""

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class Streams:
    """All open streams of one process, by (tenant, name)."""

    def __init__(
        self,
        database: Database,
        appender: Appender,
        settings: Settings,
        spawn: Spawn,
        take: Callable[[int], Awaitable[Held]],
    ):
        """`take` waits for a share of PAGES_ALL_BYTES_MAX, and raises ServerFull where none becomes free in time."""
        self.database = database
        self.appender = appender
        self.spawn = spawn
        self._take = take
        self.read_only = settings.read_only
        self.recent_bytes = 0
        self.bytes_max = settings.stream_bytes_max
        self._queued_bytes_max = settings.process_incoming_bytes_max
        self._update_bytes_max = settings.update_bytes_max
        # Counts the connections that were lost: what was looked up under another number is not trusted.
        self._generation = 0
        self._open: dict[tuple[str, str], Stream] = {}
        self._by_id: dict[int, Stream] = {}

    # Finding

    async def find(self, tenant: str, name: str, *, anew: bool = False) -> Stream:
        """The stream of this name, as it is known here: an append judges whether it is still that.

        With `anew` as the database has it now. Raises NoSuchStream, ServerFault.
        """
        stream = self._open.get((tenant, name))
        if stream is None or stream.gone is not None or anew:
            generation = self._generation
            stored = await find_stream(self.database, tenant, name)
            self._trust(generation)
            stream = self._adopt(tenant, name, stored)
        stream.used_at_s = time.monotonic()
        return stream

    async def read(self, tenant: str, name: str, cursor: int) -> tuple[Stream, Page]:
        """The stream of this name as it is now, and what follows `cursor`. Raises as `find`, and CorruptDocument."""
        generation = self._generation
        async with self._counting(cursor) as held:
            heads_then = self._head_then(self._open.get((tenant, name)))
            stored = await read_stream(
                self.database, tenant, name, cursor, rows_max=PAGE_ROWS_MAX, bytes_max=PAGE_BYTES_MAX
            )
            self._trust(generation)
            stream = self._adopt(tenant, name, stored.stream)
            self._learn(stream, stored.stream, heads_then)
            return stream, _counted(page_of(stored, cursor), held)

    @contextlib.asynccontextmanager
    async def _counting(self, cursor: int) -> AsyncIterator[Held | None]:
        """A page's share, which the page keeps if all goes well. None where there will be no page."""
        # The most that it can be: how much it is shows when it is here.
        held = await self._take(PAGE_BYTES_MAX + self._update_bytes_max) if cursor < FROM_THE_END else None
        try:
            yield held
        except BaseException:
            if held is not None:
                held.resize(0)
            raise

    async def read_page(self, stream: Stream, cursor: int) -> Page:
        """What follows `cursor` in this very stream, from the log. Raises as `find`, and CorruptDocument."""
        async with self._counting(cursor) as held:
            heads_then = self._head_then(stream)
            try:
                stored = await read_stream_after(
                    self.database, stream.id, stream.marker, cursor, rows_max=PAGE_ROWS_MAX, bytes_max=PAGE_BYTES_MAX
                )
            except NoSuchStream as error:
                self.forget(stream, error)
                raise
            self._learn(stream, stored.stream, heads_then)
            return _counted(page_of(stored, cursor), held)

    @staticmethod
    def _head_then(stream: Stream | None) -> dict[int, int]:
        return {} if stream is None else {stream.id: stream.head}

    def _learn(self, stream: Stream, stored: StoredStream, heads_then: dict[int, int]) -> None:
        # What was at its head before the database was asked is still there, unless that went back. A reader that waits
        # for more than there is would never stop asking.
        if stored.head < heads_then.get(stored.id, 0):
            error = RoomDiscarded("the database went back: read this stream anew")
            self.forget(stream, error)
            raise error
        stream.learned(stored.head, closed=stored.closed)

    def _adopt(self, tenant: str, name: str, stored: StoredStream) -> Stream:
        key = (tenant, name)
        stream = self._open.get(key)
        if stream is not None and stream.gone is None:
            # A look that began before the name was used anew must not bring the old one back.
            if (stored.epoch, stored.id) == (stream.epoch, stream.id) or stored.epoch < stream.epoch:
                return stream
            self.forget(stream, NoSuchStream("this stream was deleted"))
        self._make_room()
        stream = self._open[key] = self._by_id[stored.id] = Stream(tenant, name, stored, self)
        return stream

    def _make_room(self) -> None:
        if len(self._open) >= OPEN_MAX:
            idle = sorted((stream for stream in self._open.values() if stream.is_idle), key=lambda one: one.used_at_s)
            if not idle:
                raise ServerFull("this server has as many streams in use as it may")
            # Some at once, so that not every newcomer looks through all of them.
            for stream in idle[: max(1, OPEN_MAX // 100)]:
                self._close(stream)

    # Changing

    async def create(
        self, tenant: str, name: str, settings: StreamSettings, first: bytes, actor: str | None, *, closed: bool
    ) -> tuple[Stream, bool]:
        """The stream, and whether this call created it. Raises NameReserved, StreamDiffers, StreamFull, ServerFault."""
        if name == LIST_OF_DOCUMENTS:
            raise NameReserved(f"the stream {name!r} is the live list of documents: choose another name")
        self.may_write()
        if len(first) > self.bytes_max:
            raise StreamFull(NO_ROOM)
        stored, created = await create_stream(
            self.database, tenant, name, settings, first=first, actor=actor, closed=closed
        )
        stream = self._adopt(tenant, name, stored)
        stream.learned(stored.head, closed=stored.closed)
        return stream, created

    async def delete(self, tenant: str, name: str) -> None:
        """End it for good. Raises NoSuchStream, ServerFault."""
        self.may_write()
        document_id = await delete_stream(self.database, tenant, name)
        stream = self._by_id.get(document_id)
        if stream is not None:
            self.forget(stream, NoSuchStream("this stream was deleted"))

    def may_write(self) -> None:
        """Raises StorageUnavailable on a read-only server, ServerFull where too much waits for its commit."""
        if self.read_only:
            raise StorageUnavailable("this server is read-only for now: nothing is stored")
        if self.appender.queued_bytes > self._queued_bytes_max:
            raise ServerFull("this server is busy: try again later")

    # Staying level with the log

    @property
    def is_crowded(self) -> bool:
        """Whether the newest bytes of all streams are as much as may be kept."""
        return self.recent_bytes >= RECENT_ALL_BYTES_MAX

    @property
    def ids(self) -> list[int]:
        """Of all that are remembered."""
        return list(self._by_id)

    def hinted(self, document_id: int, count: int, head: int, updates: list[bytes] | None, marker: int | None) -> bool:
        """Another node tells that this has moved on, or with a `count` of 0 that it changed; False if it is none."""
        stream = self._by_id.get(document_id)
        if stream is None:
            return False
        if count == 0 or marker not in (None, stream.marker):
            self.spawn(self._look_at(stream))
        else:
            stream.arrived(head - count + 1, head, updates)
        return True

    async def _look_at(self, stream: Stream) -> None:
        with contextlib.suppress(YdocError):
            # What goes wrong is found by the next poll.
            head_then = stream.head
            _, heads = await read_heads(self.database, [stream.id])
            self._judge(stream, head_then, heads.get(stream.id))

    def heads_then(self) -> dict[int, int]:
        """Where those stand at whose end somebody waits, before a poll asks the database. The others are read anew, and
        what is appended to them is judged where it is stored."""
        return {document_id: stream.head for document_id, stream in self._by_id.items() if stream.readers}

    def polled(self, heads_then: dict[int, int], heads: dict[int, Head]) -> None:
        """Where the database has them; `heads_then` is where they stood before it was asked."""
        for document_id, head_then in heads_then.items():
            stream = self._by_id.get(document_id)
            if stream is not None:
                self._judge(stream, head_then, heads.get(document_id))

    def _judge(self, stream: Stream, head_then: int, head: Head | None) -> None:
        if head is None or head.seq < head_then or head.marker != stream.marker:
            self.forget(stream, RoomDiscarded("the database went back: read this stream anew"))
        elif head.deleted or head.replaced:
            self.forget(stream, NoSuchStream("this stream was deleted"))
        else:
            stream.learned(head.seq, closed=head.closed)

    def forget(self, stream: Stream, error: YdocError) -> None:
        """Whoever uses it is told why; the next look finds what there is."""
        self._close(stream)
        stream.end(error)

    def _close(self, stream: Stream) -> None:
        if self._open.get((stream.tenant, stream.name)) is stream:
            del self._open[stream.tenant, stream.name]
        if self._by_id.get(stream.id) is stream:
            del self._by_id[stream.id]

    def discard_all(self) -> None:
        """The database's connection was lost, or it is another one: nothing that is remembered is trusted any more."""
        self._generation += 1
        for stream in list(self._by_id.values()):
            self.forget(stream, RoomDiscarded("the database's connection was lost: read this stream anew"))

    def _trust(self, generation: int) -> None:
        if generation != self._generation:
            raise RoomDiscarded("the database's connection was lost: read this stream anew")

    def tick(self, now_s: float) -> None:
        """Forget what nobody has used for a while."""
        for stream in list(self._by_id.values()):
            if stream.is_idle and now_s - stream.used_at_s >= IDLE_S:
                self._close(stream)


def _counted(page: Page, held: Held | None) -> Page:
    """The page, which counts for as long as a reader has it."""
    if held is not None:
        held.resize(sum(map(len, page.updates)))
        if page.updates:
            page = replace(page, held=held)
            held.until_gone(page)
    return page
