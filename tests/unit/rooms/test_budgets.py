"""Who gives way when all members together hold too much, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from ydoc_store.errors import ServerFull
from ydoc_store.rooms.budgets import Outboxes, Shares


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
    shares = Shares(10, wait_s=20)
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
    shares = Shares(10, wait_s=20)
    async with shares.hold(10) as held:
        waiting = asyncio.create_task(shares.take(5))
        await asyncio.sleep(0)
        held.resize(5)
        (await waiting).resize(0)
    assert shares.used == 0


async def test_one_over_the_cap_by_itself_comes_alone() -> None:
    shares = Shares(10, wait_s=20)
    async with shares.hold(25):
        assert shares.used == 25
    assert shares.used == 0


async def test_whoever_waits_too_long_is_told_and_takes_no_turn_with_it() -> None:
    shares = Shares(10, wait_s=0)
    held = await shares.take(10)
    with pytest.raises(ServerFull):
        await shares.take(1)
    held.resize(0)
    async with shares.hold(10):
        assert shares.used == 10


async def test_whoever_stops_waiting_takes_no_turn_with_it() -> None:
    shares = Shares(10, wait_s=20)
    held = await shares.take(10)
    gone, waiting = asyncio.create_task(shares.take(10)), asyncio.create_task(shares.take(10))
    await asyncio.sleep(0)
    held.resize(0)
    # Its turn has come, and it goes before it hears so.
    gone.cancel()
    (await waiting).resize(0)
    assert shares.used == 0
