"""Both merges, judged by Yjs: what a document shows after one merged update is what it showed after all of them."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.merge import MERGE_FAN_IN, merge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.structs import read_update, write_update
from ydoc_store.yjs.union import merge_exactly
from ydoc_store.yjs.walker import walk

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
JUDGED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def known(updates: list[bytes]) -> Knowledge:
    knowledge = Knowledge()
    for update in updates:
        knowledge.add(walk(update))
    return knowledge


def assume_no_parted_pairs(updates: list[bytes]) -> None:
    """Passes over histories in which one unit has two contents, either of which may be kept.

    An editor that parted a surrogate pair sends U+FFFD where another still sends the pair. An exact merge keeps what
    came first, a document what it could apply first, and a native merge either.
    """
    assume("\ufffd".encode() not in b"".join(updates))


@JUDGED
@given(seed=SEEDS)
def test_an_exact_merge_shows_what_the_updates_showed_one_by_one(seed: int) -> None:
    judge = shared_judge()
    updates = judge.history(seed).updates
    assert judge.difference(updates, [merge_exactly(updates)], other_portions=True) is None


@JUDGED
@given(seed=SEEDS, portion=st.integers(1, 20))
def test_an_exact_merge_in_portions_is_the_same_bytes(seed: int, portion: int) -> None:
    updates = shared_judge().history(seed).updates
    merged = b"\0\0"
    for at in range(0, len(updates), portion):
        merged = merge_exactly([merged, *updates[at : at + portion]])
    assert merged == merge_exactly(updates)


@JUDGED
@given(seed=SEEDS)
def test_what_is_missing_stays_pending_until_it_comes(seed: int) -> None:
    judge = shared_judge()
    choose = random.Random(seed)
    updates = judge.history(seed).updates
    assume_no_parted_pairs(updates)
    late = [update for update in updates if choose.random() < 0.3]
    now = [update for update in updates if update not in late]
    merged = merge_exactly(now)
    # What Yjs shows meanwhile depends on the portions: one struct that waits holds back more of a large update than
    # of small ones. What is held must be the same all the same, and so must what is shown in the end.
    assert known([merged]) == known(now)
    assert judge.difference(now + late, [merge_exactly([merged, *late])], other_portions=True) is None


@JUDGED
@given(seed=SEEDS)
def test_a_native_merge_of_any_order_shows_the_same(seed: int) -> None:
    judge = shared_judge()
    updates = judge.history(seed, exotic=False).updates
    assume_no_parted_pairs(updates)
    expected = merge_exactly(updates)
    assert judge.difference([expected], [merge(updates)]) is None
    random.Random(seed).shuffle(updates)
    assert judge.difference([expected], [merge(updates * (1 + MERGE_FAN_IN // len(updates)))]) is None


@JUDGED
@given(seed=SEEDS)
def test_records_are_written_as_they_were_read(seed: int) -> None:
    updates = shared_judge().history(seed).updates
    for update in [*updates, merge_exactly(updates)]:
        again = write_update(*read_update(update))
        assert write_update(*read_update(again)) == again
        assert shared_judge().difference([update], [again]) is None
    # A drawn history may be one in which nothing was typed: there is nothing to find in its merge.
    assert not updates or walk(merge_exactly(updates)).structs, "the walker lets it through"
