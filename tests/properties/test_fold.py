"""The fold, judged by Yjs: random editors, shuffled and missing updates, late arrivals, compaction in chains."""

from __future__ import annotations

import gzip
import secrets
from pathlib import Path

import pytest

from tests.interop.yjs_judge import shared_judge
from tests.properties.fold_sessions import run_many, run_sessions
from ydoc_store.yjs.checker import check_fold
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.union import merge_exactly

TRACES = Path(__file__).parents[3] / "shared" / "traces"


def test_nobody_can_tell_a_compacted_log_from_the_log() -> None:
    """I7: for 400 sessions of fresh seeds; a failure names the one that repeats it."""
    judge = shared_judge()
    first = secrets.randbelow(2**31)
    for seed in range(first, first + 400, 20):
        run_sessions(judge, range(seed, seed + 20))


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_nobody_can_tell_a_compacted_log_from_the_log_in_100_000_sessions() -> None:
    """I7, on every core."""
    assert run_many(0, 100_000) > 100_000


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
