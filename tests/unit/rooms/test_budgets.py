"""Who gives way when all members together hold too much, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from ydoc_store.errors import ServerFull
from ydoc_store.rooms import budgets
from ydoc_store.rooms.budgets import Held, Outboxes, Shares
from ydoc_store.rooms.pace import Pace


class Outbox:
    def __init__(self, outboxes: Outboxes, since_s: float) -> None:
        self.outboxes = outboxes
        self.since_s = since_s
        self.size = 0
        self.counted_bytes = 0
        self.is_closing = False
        self.is_cut = False
        outboxes.congested[self] = None

    def grow(self, size: int) -> None:
        self.size += size
        self.outboxes.count(self, self.size)

    def measure(self) -> tuple[float, int]:
        return self.since_s, self.size

    def check_progress(self, now_s: float, slow_member_s: float) -> None:
        self.is_closing = self.is_closing or now_s - self.since_s >= slow_member_s

    def give_way(self) -> None:
        self.is_closing = True

    def cut(self) -> None:
        self.is_cut = True
        self.size = 0


def test_past_three_quarters_of_the_cap_the_slowest_are_told_first() -> None:
    """I16: whoever has taken nothing for longest."""
    outboxes = Outboxes(1_000)
    late, slow, slowest = (Outbox(outboxes, since_s) for since_s in (30, 20, 10))
    for outbox in (late, slow, slowest):
        outbox.grow(249)
    assert not slowest.is_closing
    late.grow(10)
    assert slowest.is_closing
    assert not slow.is_closing
    assert not late.is_closing
    assert outboxes.used_bytes == 3 * 249 + 10


def test_of_equally_slow_ones_the_largest_goes_first() -> None:
    outboxes = Outboxes(1_000)
    small, large = Outbox(outboxes, 10), Outbox(outboxes, 10)
    small.grow(300)
    large.grow(500)
    assert (small.is_closing, large.is_closing) == (False, True)


def test_who_was_told_and_has_not_gone_is_cut_before_the_cap_is_passed() -> None:
    """I15: the cap holds, whatever those who were told do."""
    outboxes = Outboxes(1_000)
    crowd = [Outbox(outboxes, number) for number in range(10)]
    for _ in range(200):
        for outbox in crowd:
            if not outbox.is_closing:
                outbox.grow(10)
                assert outboxes.used_bytes <= 1_000 + 10
        if all(outbox.is_closing for outbox in crowd):
            break
    assert any(outbox.is_cut for outbox in crowd)
    assert outboxes.used_bytes == sum(outbox.size for outbox in crowd)


def test_one_that_keeps_up_again_counts_no_more() -> None:
    outboxes = Outboxes(1_000)
    outbox = Outbox(outboxes, 0)
    outbox.grow(600)
    assert outboxes.is_crowded
    outboxes.forget(outbox)
    outboxes.forget(outbox)
    assert (outboxes.used_bytes, outboxes.congested, outboxes.is_crowded) == (0, {}, False)


async def test_turns_come_in_order_and_a_small_one_does_not_overtake() -> None:
    shares = Shares(10, 20, 10)
    first = await shares.take(8)
    large = asyncio.create_task(shares.take(8))
    small = asyncio.create_task(shares.take(1))
    await asyncio.sleep(0)
    assert not small.done()
    first.resize(0)
    (await large).resize(0)
    (await small).resize(0)
    assert shares.used == 0


async def test_less_than_was_asked_for_lets_the_next_one_in() -> None:
    shares = Shares(10, 20, 10)
    async with shares.hold(10, Pace(30)) as held:
        waiting = asyncio.create_task(shares.take(5))
        await asyncio.sleep(0)
        held.resize(5)
        (await waiting).resize(0)
    assert shares.used == 0


async def test_one_over_the_cap_by_itself_comes_alone() -> None:
    shares = Shares(10, 20, 10)
    async with shares.hold(25, Pace(30)):
        assert shares.used == 25
    assert shares.used == 0


async def test_whoever_waits_too_long_is_told_and_takes_no_turn_with_it() -> None:
    shares = Shares(10, 0, 10)
    held = await shares.take(10)
    with pytest.raises(ServerFull):
        await shares.take(1)
    held.resize(0)
    async with shares.hold(10, Pace(30)):
        assert shares.used == 10


async def test_whoever_stops_waiting_takes_no_turn_with_it() -> None:
    shares = Shares(10, 20, 10)
    held = await shares.take(10)
    gone, waiting = asyncio.create_task(shares.take(10)), asyncio.create_task(shares.take(10))
    await asyncio.sleep(0)
    held.resize(0)
    # Its turn has come, and it goes before it hears so.
    gone.cancel()
    (await waiting).resize(0)
    assert shares.used == 0


class Reader:
    """One that takes what is prepared for it at this rate, has been judged by it, and holds `size`."""

    def __init__(self, shares: Shares, size: int, bytes_per_s: float, held: Held | None = None) -> None:
        self.has_given_way = False
        self.held = shares.take_now(size) if held is None else held
        self.pace = Pace(30, self.give_way)
        self.pace.sending(int(bytes_per_s * 100), 0)
        self.pace.sent(100)
        self.lent = self.held.read_by(self.pace)
        self.lent.__enter__()

    def give_way(self) -> None:
        self.has_given_way = True
        self.lent.__exit__(None, None, None)
        self.held.resize(0)


async def test_while_somebody_waits_the_slowest_give_way_as_many_as_it_takes() -> None:
    """I16: a share that is taken byte by byte is not held for hours."""
    shares = Shares(100, 20, 10)
    quick, slow, slower, slowest = (Reader(shares, 25, rate) for rate in (10, 9, 5, 1))
    shares.make_room(100)
    assert not slowest.has_given_way, "nobody waits"
    waiting = asyncio.create_task(shares.take(40))
    await asyncio.sleep(0)
    shares.make_room(100)
    assert [one.has_given_way for one in (quick, slow, slower, slowest)] == [False, False, True, True]
    assert (await waiting).size == 40
    assert shares.used == 90
    another = asyncio.create_task(shares.take(90))
    await asyncio.sleep(0)
    shares.make_room(100)
    # Whoever takes what it must keeps its share, whoever waits.
    assert (slow.has_given_way, quick.has_given_way, another.done()) == (True, False, False)
    another.cancel()


async def test_what_a_quick_reader_shares_with_a_slow_one_is_not_freed_by_ending_the_slow_one() -> None:
    shares = Shares(100, 20, 10)
    slow = Reader(shares, 100, 1)
    quick = Reader(shares, 0, 10, slow.held)
    waiting = asyncio.create_task(shares.take(1))
    await asyncio.sleep(0)
    shares.make_room(100)
    assert not slow.has_given_way
    assert not quick.has_given_way
    waiting.cancel()


async def test_of_more_a_reader_must_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one reader of the largest document would hold the whole for as long as it likes."""
    monkeypatch.setattr(budgets, "LARGE_BYTES", 20)
    shares = Shares(100, 20, 10)
    large, small = Reader(shares, 80, 30), Reader(shares, 20, 30)
    waiting = asyncio.create_task(shares.take(100))
    await asyncio.sleep(0)
    shares.make_room(100)
    assert (large.has_given_way, small.has_given_way) == (True, False)
    waiting.cancel()


async def test_whoever_holds_some_does_not_wait_for_more() -> None:
    """Two that did would wait for each other."""
    shares, pace = Shares(10, 0, 10), Pace(30)
    async with shares.hold(10, pace), shares.hold(5, pace):
        assert shares.used == 15
        with pytest.raises(ServerFull):
            await shares.take(1)
    assert (shares.used, shares.held, pace.held) == (0, {}, [])
