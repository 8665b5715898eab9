"""What a room's cache answers, and that every byte it was charged for is given back."""

from __future__ import annotations

import pytest

from ydoc_store.rooms.cache import RUN_OVERHEAD_BYTES, CacheBudget, RoomCache


@pytest.fixture
def budget() -> CacheBudget:
    return CacheBudget(10_000)


def test_a_reader_gets_what_came_after_its_seq_or_none_when_that_is_not_kept(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 1_000)
    cache.fill(5, b"base")
    cache.add(6, b"six")
    cache.add(8, b"eight")
    assert cache.parts() == [b"base", b"six", b"eight"]
    assert cache.after(5) == [b"six", b"eight"]
    assert cache.after(6) == [b"eight"]
    assert cache.after(8) == []
    assert cache.after(4) is None


def test_over_its_cap_the_base_goes_first_and_then_the_oldest_runs(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 500)
    cache.fill(0, b"b" * 300)
    cache.add(1, b"x" * 150)
    assert cache.parts() is None
    assert cache.after(0) == [b"x" * 150]
    cache.add(2, b"y" * 250)
    assert cache.after(0) is None
    assert cache.after(1) == [b"y" * 250]
    cache.clear()
    assert budget.used_bytes == 0


def test_caches_that_were_emptied_and_grow_again_stay_within_the_process_together(budget: CacheBudget) -> None:
    caches = [RoomCache(budget, 8_000) for _ in range(10)]
    for cache in caches:
        cache.fill(0, b"b" * 3_000)
    for seq in range(1, 4):
        for cache in caches:
            cache.add(seq, b"x" * 2_000)
            assert budget.used_bytes <= 10_000
    for cache in caches:
        cache.clear()
    assert (budget.used_bytes, budget.by_use) == (0, {})


def test_runs_that_were_joined_stay_one_and_later_ones_stay_behind(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 5_000)
    cache.fill(0, b"base")
    for seq in (1, 2, 3):
        cache.add(seq, b"run")
    cache.join(2, b"joined")
    assert cache.parts() == [b"base", b"joined", b"run"]
    assert cache.used_bytes == len(b"basejoinedrun") + 2 * RUN_OVERHEAD_BYTES
    cache.clear()
    cache.join(3, b"late")
    assert cache.after(3) == []
    assert budget.used_bytes == 0


def test_a_full_process_empties_the_cache_unused_longest() -> None:
    budget = CacheBudget(1_000)
    caches = [RoomCache(budget, 1_000) for _ in range(3)]
    for cache in caches:
        cache.fill(1, b"x" * 300)
    assert caches[0].parts() == [b"x" * 300]
    caches[2].add(2, b"y" * 100)
    assert [cache.parts() is None for cache in caches] == [False, True, False]
    assert budget.used_bytes <= budget.bytes_max
    assert caches[1].after(1) == []


def test_what_was_loaded_is_lent_once_and_charged_meanwhile(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 10)
    cache.fill(3, b"too large to keep")
    cache.lend(3, [b"too large to keep"])
    assert budget.used_bytes == len(b"too large to keep")
    assert cache.drop_loaded() == (3, [b"too large to keep"])
    assert cache.drop_loaded() is None
    cache.lend(3, [b"x" * 20_000])
    assert cache.loaded is None
    assert budget.used_bytes == 0


def test_what_is_lent_puts_no_run_out_that_readers_behind_it_want(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 1_000)
    cache.fill(3, b"x" * 2_000)
    cache.lend(3, [b"x" * 2_000])
    cache.add(4, b"four")
    cache.add(5, b"five")
    assert cache.after(3) == [b"four", b"five"]
    assert cache.loaded is not None
    cache.add(6, b"y" * 1_000)
    assert cache.after(3) is None, "over its cap without what is lent"
    cache.clear()
    assert budget.used_bytes == 0


def test_a_document_without_a_base_is_its_runs_and_none_of_them_is_taken_for_one(budget: CacheBudget) -> None:
    cache = RoomCache(budget, 5_000)
    cache.fill(0, b"")
    for seq in (1, 2, 3):
        cache.add(seq, b"run%d" % seq)
    assert cache.base_parts == []
    assert cache.parts() == [b"run1", b"run2", b"run3"]
    cache.join(3, b"run1run2run3")
    assert cache.parts() == [b"run1run2run3"]
