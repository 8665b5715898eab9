"""An open stream hears of commits late, twice, out of order or without their bytes, and shows each update once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.errors import NoSuchStream, RoomDiscarded, TooLarge
from ydoc_store.storage.appender import Appender
from ydoc_store.storage.streams import StoredStream
from ydoc_store.streams.stream import RECENT_BYTES_MAX, Page, Stream

LOG = [f"u{number}".encode() for number in range(1, 31)]


class Log:
    """What a stream asks of the registry: the log, up to where it is committed, a few updates a page."""

    def __init__(self) -> None:
        self.appender = Appender(None)  # type: ignore[arg-type] # it gives out queues, and is never started
        self.recent_bytes = 0
        self.bytes_max = 2**30
        self.is_crowded = False
        self.read_only = False
        self.committed = 0
        self.reads = 0

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    async def read_page(self, stream: Stream, cursor: int) -> Page:
        self.reads += 1
        through = min(self.committed, cursor + 7)
        stream.learned(self.committed, closed=stream.closed)
        return Page(LOG[cursor:through], through, self.committed, stream.closed)

    def forget(self, stream: Stream, error: Exception) -> None:
        stream.end(error)  # type: ignore[arg-type] # as it was given


def opened(log: Log, head: int = 0, expires_in_s: float | None = None) -> Stream:
    stored = StoredStream(
        id=1,
        epoch=1,
        marker=2**53 - 1,
        head=head,
        closed=False,
        content_type="text/plain",
        ttl_s=None,
        expires_text=None,
        expires_in_s=expires_in_s,
    )
    return Stream("t", "s", stored, log)  # type: ignore[arg-type] # what it asks of the registry


commits = st.tuples(st.integers(0, 29), st.integers(1, 6), st.booleans())
"""Where a commit begins, how many updates it has, and whether its bytes came along."""


@given(st.lists(commits, max_size=40), st.integers(0, 5))
def test_a_reader_sees_each_update_once_and_in_order_whatever_is_heard(
    heard: list[tuple[int, int, bool]], reads_between: int
) -> None:
    async def run() -> None:
        log = Log()
        stream = opened(log)
        seen: list[bytes] = []
        with stream.being_read():
            for before, count, has_bytes in heard:
                last = min(len(LOG), before + count)
                log.committed = max(log.committed, last)
                stream.arrived(before + 1, last, LOG[before:last] if has_bytes else None)
                assert stream.head <= log.committed
                for _ in range(reads_between):
                    seen += (await stream.after(len(seen))).updates
                    assert seen == LOG[: len(seen)]
            while len(seen) < log.committed:
                page = await stream.after(len(seen))
                assert page.updates
                seen += page.updates
        assert seen == LOG[: log.committed]
        assert log.recent_bytes == stream._recent_bytes == sum(map(len, stream._recent))

    asyncio.run(run())


async def test_readers_at_the_end_are_given_what_came_and_nothing_is_read_for_them() -> None:
    log = Log()
    stream = opened(log)
    with stream.being_read():
        waiting = [asyncio.create_task(stream.moved(0, 10)) for _ in range(5)]
        await asyncio.sleep(0)
        log.committed = 2
        stream.arrived(1, 2, LOG[:2])
        assert await asyncio.gather(*waiting) == [True] * 5
        assert (await stream.after(0)).updates == LOG[:2]
        assert (await stream.after(1)).updates == LOG[1:2]
    assert log.reads == 0


async def test_readers_at_one_place_behind_share_a_read() -> None:
    log = Log()
    log.committed = 9
    stream = opened(log, head=9)
    pages = await asyncio.gather(*(stream.after(3) for _ in range(5)))
    assert [page.through_seq for page in pages] == [9] * 5
    assert log.reads == 1


async def test_what_is_kept_is_bounded_and_nothing_is_kept_for_nobody() -> None:
    log = Log()
    stream = opened(log)
    stream.arrived(1, 1, [b"x"])
    assert log.recent_bytes == 0
    with stream.being_read():
        for seq in range(2, 40):
            stream.arrived(seq, seq, [bytes(RECENT_BYTES_MAX // 8)])
            assert log.recent_bytes <= RECENT_BYTES_MAX
        log.is_crowded = True
        stream.arrived(40, 40, [b"x"])
        assert log.recent_bytes == 0
    assert stream.head == 40


async def test_what_was_kept_for_readers_goes_with_the_last_of_them() -> None:
    log = Log()
    stream = opened(log)
    with stream.being_read():
        with stream.being_read():
            stream.arrived(1, 2, LOG[:2])
            stream.encoded = (2, 2), b"event"
        assert log.recent_bytes == 4
        assert (await stream.after(0)).updates == LOG[:2]
    assert log.recent_bytes == 0
    assert stream.encoded is None
    log.committed = 2
    assert (await stream.after(0)).updates == LOG[:2]
    assert log.reads == 1


async def test_an_end_is_not_told_before_the_last_update_is() -> None:
    log = Log()
    stream = opened(log)
    with stream.being_read():
        waiting = asyncio.create_task(stream.moved(0, 10))
        await asyncio.sleep(0)
        log.committed = 3
        stream.learned(3, closed=True)
        assert await waiting
        page = await stream.after(0)
        assert (page.updates, page.is_end) == (LOG[:3], True)


async def test_whoever_waits_or_has_queued_is_told_that_it_is_gone() -> None:
    stream = opened(Log())
    waiting = asyncio.create_task(stream.moved(0, 10))
    writing = asyncio.create_task(stream.append(b"x", None))
    await asyncio.sleep(0)
    stream.end(RoomDiscarded("a test"))
    for task in (waiting, writing):
        with pytest.raises(RoomDiscarded):
            await task
    assert stream.queue.is_abandoned
    with pytest.raises(RoomDiscarded):
        await stream.after(0)


async def test_time_ends_a_stream_for_whoever_waits() -> None:
    stream = opened(Log(), expires_in_s=0.05)
    with pytest.raises(NoSuchStream):
        await stream.moved(0, 10)
    assert not await opened(Log()).moved(0, 0.01)


async def test_appends_that_had_no_room_together_are_not_called_too_large_where_nobody_judges_them_one_by_one() -> None:
    """A stream that is forgotten meanwhile: whoever is told that it is full does not come again."""
    stream = opened(Log())
    appending = [asyncio.create_task(stream.append(b"x", None)) for _ in range(2)]
    await asyncio.sleep(0)
    taken, stream.queue.waiting = stream.queue.waiting, []
    stream.end(RoomDiscarded("the database went back"))
    stream.refused(taken, TooLarge("no room for both"))
    for outcome in await asyncio.gather(*appending, return_exceptions=True):
        assert isinstance(outcome, RoomDiscarded)
