"""The fold, judged by Yjs: random editors, shuffled and missing updates, late arrivals, compaction in chains."""

from __future__ import annotations

import base64
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


@pytest.mark.parametrize(("people", "steps"), [(1, 100), (3, 100), (6, 100)])
def test_rich_text_full_of_deleted_nodes_folds_to_less_than_yjs_itself_writes(people: int, steps: int) -> None:
    """y-prosemirror's own updates: paragraphs split, joined, marked, quoted, moved, deleted, also under each other."""
    assert_small(prosemirror(people * 1_000 + steps, people, steps), 1.0)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("people", [1, 2, 4, 8])
def test_rich_text_of_ten_seeds_folds_to_less_than_yjs_itself_writes(people: int) -> None:
    for seed in range(10):
        print(f"{people} people, seed {seed}: {assert_small(prosemirror(seed, people, 400), 1.0):.3f}")


def prosemirror(seed: int, people: int, steps: int) -> list[bytes]:
    answer = shared_judge().ask(op="prosemirror", seed=seed, steps=steps, people=people)
    return [base64.b64decode(update) for update in answer["updates"]]


def assert_small(updates: list[bytes], share_max: float) -> float:
    """The fold of these updates is exact, and takes at most this share of what Yjs writes for the same document."""
    judge = shared_judge()
    merged = merge_exactly(updates)
    folded = fold(merged)
    check_fold(merged, folded)
    assert fold(folded) == folded
    assert judge.difference([merged], [folded]) is None
    share = len(folded) / min(len(judge.encode([merged])), len(judge.encode(updates)))
    assert share <= share_max
    return share


@pytest.mark.skipif(not TRACES.is_dir(), reason="absent: ../shared/traces, beside the repository")
@pytest.mark.parametrize(
    ("name", "share_max"),
    [("automerge-paper", 0.91), ("friendsforever", 0.98), ("json-crdt-patch", 0.93), ("sveltecomponent", 0.79)],
)
def test_a_real_history_folds_to_less_than_yjs_itself_writes(name: str, share_max: float) -> None:
    updates = list(frames(gzip.decompress((TRACES / f"{name}.yupdates.gz").read_bytes())))
    assert_small(updates, share_max)
    assert to_json(fold(merge_exactly(updates))) == {"text": (TRACES / f"{name}.txt").read_bytes().decode()}
