"""Sessions of editors whose log is compacted while they work, judged by Yjs and by pycrdt.

Everything comes from one seed: who edits what (histories.mjs), which updates are late, lost for a while or sent
twice, and where the compactor cuts the log. Many sessions go in lockstep, so that one question to Node is about all
of them. `python -m tests.properties.fold_sessions FIRST COUNT` runs the seeds from FIRST on, on every core; with a
COUNT of 1 it repeats what a failure named.
"""

from __future__ import annotations

import base64
import os
import random
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from pycrdt import Doc

from compactor.fold import fold_document
from tests.interop.yjs_judge import Judge, shared_judge
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.structs import Units, read_update
from ydoc_store.yjs.union import merge_exactly
from ydoc_store.yjs.walker import STRING

_JUDGED_STEPS_MAX = 4
_NEVER = 1_000
_LOCKSTEP = 20
_CHUNK = 200


class Session:
    """One log: what arrives in each phase, and the chain of folds that the compactor makes of it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._choose = choose = random.Random(seed)
        self.keep_deleted = choose.random() < 0.3
        self.is_exotic = choose.random() < 0.6
        self.phases = choose.choice((1, 2, 3, 3, 5, 8))
        self._late_share = choose.choice((0.0, 1 / 6, 1 / 3))
        self._compacts_each = choose.random() < 0.1
        self._phase = 0
        self._sent: list[bytes] = []
        self._arriving: dict[int, list[bytes]] = {}
        self._steps: list[tuple[list[bytes], bytes, bytes]] = []
        self._merged: bytes = b"\0\0"
        self._folded: bytes | None = None

    def question(self) -> dict[str, Any]:
        """What to ask for the next phase: its editors meet the last fold."""
        snapshot = None if self._phase == 0 else _text(self._folded or b"\0\0")
        steps = 60 // self.phases + 4
        return {"op": "phase", "seed": self.seed, "exotic": self.is_exotic, "snapshot": snapshot, "steps": steps}

    def take(self, updates: Iterable[bytes]) -> None:
        """A phase's updates: they arrive, or later ones do not, and the log is compacted in portions."""
        choose = self._choose
        for update in updates:
            self._sent.append(update)
            delay = choose.choice((1, 2, 3, _NEVER)) if choose.random() < self._late_share else 0
            self._arriving.setdefault(self._phase + delay, []).append(update)
            if choose.random() < 0.05:
                self._arriving.setdefault(self._phase + choose.randint(0, 2), []).append(update)
        log = self._arriving.pop(self._phase, [])
        if choose.random() < 0.5:
            choose.shuffle(log)
        portion = 1 if self._compacts_each else choose.randint(1 + len(log) // 3, 1 + len(log))
        for at in range(0, len(log), portion):
            self._compact(log[at : at + portion])
        self._phase += 1

    def _compact(self, batch: list[bytes]) -> None:
        self._merged = merge_exactly([self._merged, *batch])
        self._folded = self._fold(batch)
        self._steps.append((batch, self._merged, self._folded))

    def _fold(self, batch: list[bytes]) -> bytes:
        made = fold_document(self._folded, batch, self.keep_deleted)
        assert made.doubt is None, f"seed {self.seed}: {made.doubt}"
        return made.snapshot

    def verdict(self) -> dict[str, Any]:
        """What to ask Yjs at the end."""
        choose = self._choose
        late = [update for updates in self._arriving.values() for update in updates]
        choose.shuffle(late)
        self._merged = merge_exactly([self._merged, *late])
        self._folded = self._fold(late)
        again = fold(merge_exactly([self._folded, self._folded, *self._sent]), keep_deleted=self.keep_deleted)
        is_parted = "\ufffd".encode() in b"".join(self._sent)
        assert again == self._folded, f"seed {self.seed}: the log once more changes the fold"
        judged = set(choose.sample(range(len(self._steps)), min(len(self._steps), _JUDGED_STEPS_MAX)))
        steps = [
            {"updates": _texts(updates), "judged": number in judged}
            | ({"merged": _text(merged), "folded": _text(folded)} if number in judged else {})
            for number, (updates, merged, folded) in enumerate(self._steps)
        ]
        return {
            "op": "chain",
            "seed": self.seed,
            "steps": steps,
            "late": _texts(late),
            "merged": _text(self._merged),
            "folded": _text(self._folded),
            "gc": choose.random() < 0.5,
            "keepDeleted": self.keep_deleted,
            "parted": is_parted,
            "mixed": choose.choice(sorted(judged)) if judged else None,
        }

    @property
    def folds(self) -> int:
        return len(self._steps) + 1

    def assert_equal_in_pycrdt(self) -> None:
        """A fold loads in pycrdt, by one merge and one apply, as the merge does, whichever merge it was.

        Where a delete or a neighbour parts a surrogate pair, Yjs shows U+FFFD and pycrdt, fold or no fold, something
        else (it may even lose the order); exotic values its own merge changes. Such sessions are Yjs's alone to judge.
        """
        if self.is_exotic or _parts_a_pair(self._merged):
            return
        for merged, folded in ((self._merged, self._folded or b"\0\0"), _native(self._sent)):
            assert _vector(folded) == _vector(merged), f"seed {self.seed}"
            assert to_json(folded) == to_json(merged), f"seed {self.seed}"


def run_sessions(judge: Judge, seeds: Iterable[int]) -> int:
    """Runs the sessions of these seeds to their end. Returns how many folds were made; AssertionError names a seed."""
    sessions = [Session(seed) for seed in seeds]
    for phase in range(max(session.phases for session in sessions)):
        working = [session for session in sessions if phase < session.phases]
        answers = judge.ask(op="batch", questions=[session.question() for session in working])["answers"]
        for session, answer in zip(working, answers, strict=True):
            session.take(base64.b64decode(update) for update in answer["updates"])
    answers = judge.ask(op="batch", questions=[session.verdict() for session in sessions])["answers"]
    for session, answer in zip(sessions, answers, strict=True):
        assert answer["difference"] is None, f"seed {session.seed}: {answer['difference']}"
        session.assert_equal_in_pycrdt()
    return sum(session.folds for session in sessions)


def run_many(first: int, count: int) -> int:
    """Runs `count` sessions from seed `first` on, on every core. Returns how many folds were made.

    The first failure ends it, with the AssertionError that names the seed.
    """
    started = time.monotonic()
    folds = done = 0
    # A spawned process gets a judge of its own; a forked one would share its parent's.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        chunks = [range(at, min(at + _CHUNK, first + count)) for at in range(first, first + count, _CHUNK)]
        running = {pool.submit(_run_chunk, chunk): chunk for chunk in chunks}
        try:
            for finished in as_completed(running):
                folds += finished.result()
                done += len(running[finished])
                if done % (5 * _CHUNK) == 0 or done == count:
                    print(f"{done} sessions, {folds} folds, {time.monotonic() - started:.0f} s", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return folds


def _run_chunk(seeds: range) -> int:
    judge = shared_judge()
    return sum(run_sessions(judge, seeds[at : at + _LOCKSTEP]) for at in range(0, len(seeds), _LOCKSTEP))


def _native(updates: list[bytes]) -> tuple[bytes, bytes]:
    merged = merge(updates)
    return merged, fold(merged)


def _parts_a_pair(update: bytes) -> bool:
    """Whether a delete's bound or an item's place lies inside a surrogate pair."""
    decoded = read_update(update)
    cuts = {(client, clock) for client, ranges in decoded.deletes.items() for bounds in ranges for clock in bounds}
    for block in decoded.structs.values():
        cuts |= {(struct.origin[0], struct.origin[1] + 1) for struct in block if struct.origin is not None}
        cuts |= {struct.right_origin for struct in block if struct.right_origin is not None}
    for client, block in decoded.structs.items():
        for struct in block:
            if struct.kind == STRING and not struct.payload.isascii():
                units = Units(struct)
                if b"\xef\xbf\xbd" in struct.payload or any(
                    (client, clock) in cuts and units.parts_a_pair(clock - struct.clock)
                    for clock in range(struct.clock + 1, struct.end)
                ):
                    return True
    return False


def _vector(update: bytes) -> dict[int, int]:
    document: Doc[Any] = Doc()
    document.apply_update(update)
    return decode_state_vector(document.get_state(), clients_max=1000)


def _text(update: bytes) -> str:
    return base64.b64encode(update).decode()


def _texts(updates: Iterable[bytes]) -> list[str]:
    return [_text(update) for update in updates]


if __name__ == "__main__":
    run_many(int(sys.argv[1]), int(sys.argv[2]))
