"""What is new in an update: cut out exactly, whatever was known before, and nothing of what was."""

from __future__ import annotations

import pytest

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.join import join
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.news import news
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import walk


def knowing(*updates: bytes) -> Knowledge:
    known = Knowledge()
    for update in updates:
        known.add(walk(update, UNLIMITED))
    return known


@pytest.mark.parametrize("seed", range(40))
def test_what_is_new_and_what_was_known_are_the_whole(seed: int) -> None:
    """Whatever was known: the beginning, a part with gaps, or nothing."""
    updates = shared_judge().history(seed).updates
    whole = join(updates)
    for known_updates in (updates[: len(updates) // 2], updates[seed % 3 :: 3], []):
        known = knowing(*known_updates)
        found = news(whole, known)
        before = join(known_updates)
        assert shared_judge().difference([whole], [join([before, found])]) is None
        known.add(walk(found, UNLIMITED))
        assert known == knowing(whole)
        assert news(whole, known) == EMPTY_UPDATE


def test_deletes_that_are_known_are_left_out() -> None:
    # Client 7, and its clocks: 0 to 10 and 20 to 30 are deleted; of those 2 to 5, 8 to 22 and 29 to 40 are known.
    known = knowing(bytes((0, 1, 7, 3, 2, 3, 8, 14, 29, 11)))
    assert news(bytes((0, 1, 7, 2, 0, 10, 20, 10)), known) == bytes((0, 1, 7, 3, 0, 2, 5, 3, 22, 7))
    assert news(bytes((0, 1, 7, 1, 9, 12)), known) == EMPTY_UPDATE
    assert news(bytes((0, 1, 8, 1, 9, 12)), known) == bytes((0, 1, 8, 1, 9, 12))


def test_of_one_more_letter_there_is_one_letter() -> None:
    # Client 7 typed "ab" in one update, and then has "abc" in one.
    before = bytes((1, 1, 7, 0, 4, 1, 1)) + b"t" + bytes((2,)) + b"ab\0"
    after = bytes((1, 1, 7, 0, 4, 1, 1)) + b"t" + bytes((3,)) + b"abc\0"
    assert news(after, knowing(before)) == bytes((1, 1, 7, 2, 0x84, 7, 1, 1)) + b"c\0"
