from __future__ import annotations

from ydoc_store.yjs.nesting import Nesting


def test_an_empty_update_nests_nowhere() -> None:
    assert Nesting().deepest() == 0


def test_depth_grows_at_parents_and_not_along_origins() -> None:
    nesting = Nesting()
    nesting.add(1, 0, None)
    nesting.add(1, 1, (1, 0, 1))
    nesting.add(1, 2, (1, 1, 0))
    nesting.add(1, 9, (1, 8, 0))
    assert nesting.deepest() == 1
    nesting.add(2, 0, (1, 9, 1))
    assert nesting.deepest() == 2


def test_a_holder_may_come_later_in_the_update() -> None:
    nesting = Nesting()
    nesting.add(2, 0, (1, 0, 1))
    nesting.add(1, 0, (1, 5, 1))
    assert nesting.deepest() == 2


def test_what_the_update_does_not_hold_counts_from_nothing() -> None:
    nesting = Nesting()
    nesting.add(1, 7, (1, 3, 1))
    nesting.add(1, 8, (5, 3, 0))
    assert nesting.deepest() == 1


def test_a_hundred_thousand_levels_are_counted_without_recursion() -> None:
    nesting = Nesting()
    for clock in reversed(range(1, 100_000)):
        nesting.add(clock, 0, (clock - 1, 0, 1))
    assert nesting.deepest() == 99_999


def test_a_circle_ends() -> None:
    nesting = Nesting()
    nesting.add(1, 0, (2, 0, 1))
    nesting.add(2, 0, (1, 0, 1))
    assert nesting.deepest() == 2
