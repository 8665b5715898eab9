"""The fold, judged by Yjs: random editors, shuffled and missing updates, late arrivals, compaction in chains."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pycrdt import Doc

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.checker import check_fold
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.union import merge_exactly

TRACES = Path(__file__).parents[3] / "shared" / "traces"
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
JUDGED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def one_session(seed: int, *, keep_deleted: bool) -> None:
    """Compacts a history in random portions, a sixth of it arriving later, and asks Yjs after each step."""
    judge = shared_judge()
    choose = random.Random(seed)
    updates = judge.history(seed).updates
    late = [update for update in updates if choose.random() < 1 / 6]
    now = [update for update in updates if update not in late]
    if choose.random() < 0.5:
        choose.shuffle(now)
    portion = choose.randint(1, max(1, len(now)))
    collect_garbage = choose.random() < 0.5
    merged = folded = b"\0\0"
    for at in range(0, len(now), portion):
        batch = now[at : at + portion]
        merged = merge_exactly([merged, *batch])
        unfolded = merge_exactly([folded, *batch])
        folded = fold(unfolded, keep_deleted=keep_deleted)
        check_fold(unfolded, folded, keep_deleted=keep_deleted)
        assert fold(folded, keep_deleted=keep_deleted) == folded

    def same(left: list[bytes], right: list[bytes]) -> None:
        assert judge.difference(left, right, collect_garbage=collect_garbage) is None, f"seed {seed}"

    same([merged], [folded])
    same([merged, *late], [folded, *late])
    choose.shuffle(late)
    everything = fold(merge_exactly([folded, *late]), keep_deleted=keep_deleted)
    same([merge_exactly([merged, *late])], [everything])
    assert fold(merge_exactly([everything, everything]), keep_deleted=keep_deleted) == everything


@JUDGED
@given(seed=SEEDS, keep_deleted=st.booleans())
def test_yjs_cannot_tell_a_fold_from_its_merge(seed: int, keep_deleted: bool) -> None:
    one_session(seed, keep_deleted=keep_deleted)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_yjs_cannot_tell_thousands_of_folds_from_their_merges() -> None:
    for seed in range(5_000):
        one_session(seed, keep_deleted=seed % 4 == 0)


@JUDGED
@given(seed=SEEDS)
def test_pycrdt_shows_a_fold_as_it_shows_the_merge(seed: int) -> None:
    judge = shared_judge()
    merged = merge(judge.history(seed, exotic=False).updates)
    # Where a delete parts a surrogate pair, Yjs shows U+FFFD and pycrdt, fold or no fold, something else.
    assume("65533" not in json.dumps(judge.describe([merged])["shared"]))
    folded = fold(merged)
    check_fold(merged, folded)
    assert vector_in_pycrdt(folded) == vector_in_pycrdt(merged)
    assert to_json(folded) == to_json(merged)


def vector_in_pycrdt(update: bytes) -> dict[int, int]:
    document: Doc[Any] = Doc()
    document.apply_update(update)
    return decode_state_vector(document.get_state(), clients_max=1000)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the real histories are not part of the repository")
@pytest.mark.parametrize(
    ("name", "share_max"),
    [("automerge-paper", 0.91), ("friendsforever", 0.98), ("json-crdt-patch", 0.93), ("sveltecomponent", 0.79)],
)
def test_a_real_history_folds_to_less_than_yjs_itself_writes(name: str, share_max: float) -> None:
    judge = shared_judge()
    updates = list(frames(gzip.decompress((TRACES / f"{name}.yupdates.gz").read_bytes())))
    merged = merge_exactly(updates)
    folded = fold(merged)
    check_fold(merged, folded)
    assert fold(folded) == folded
    assert to_json(folded) == {"text": (TRACES / f"{name}.txt").read_bytes().decode()}
    assert judge.difference([merged], [folded]) is None
    assert len(folded) <= share_max * len(judge.encode([merged]))
