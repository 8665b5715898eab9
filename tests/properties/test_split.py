"""Splits, judged by Yjs: pieces applied one after the other leave the document that the whole update leaves."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.split import split
from ydoc_store.yjs.union import merge_exactly

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
JUDGED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@JUDGED
@given(seed=SEEDS, piece_bytes_max=st.integers(1, 2000), folded=st.booleans())
def test_pieces_in_order_make_the_whole_document(seed: int, piece_bytes_max: int, folded: bool) -> None:
    judge = shared_judge()
    choose = random.Random(seed)
    updates = [update for update in judge.history(seed).updates if choose.random() > 0.1]
    whole = merge_exactly(updates)
    if folded:
        whole = fold(whole)
    pieces = split(whole, piece_bytes_max)
    assert judge.difference([whole], pieces, other_portions=True) is None
    assert merge_exactly(pieces[::-1]) == merge_exactly(pieces)
    assert judge.difference([whole], [fold(merge_exactly(pieces))]) is None


@JUDGED
@given(seed=SEEDS)
def test_no_piece_waits_for_a_later_one(seed: int) -> None:
    judge = shared_judge()
    whole = merge_exactly(judge.history(seed).updates)
    pieces = split(whole, 200)
    for count in range(1, len(pieces) + 1):
        assert judge.describe(pieces[:count])["waiting"] == []
