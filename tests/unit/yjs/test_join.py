"""Joining updates: exact for everything, quick for typing."""

from __future__ import annotations

import random

import pytest
from pycrdt import Array, Doc, Text

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.merge import EMPTY_UPDATE, merge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.union import merge_exactly
from ydoc_store.yjs.walker import walk

# One Any item, 1n: type byte 122 and eight bytes, in the root array `a`, as Yjs writes it.
BIGINT = b"\x01\x01\x07\x00\x08\x01\x01a\x01\x7a" + (1).to_bytes(8, "big") + b"\x00"


def typed(count: int, client: int = 9) -> list[bytes]:
    doc: Doc[Text] = Doc(client_id=client)
    text = doc.get("text", type=Text)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    for number in range(count):
        if number % 7 == 6:
            del text[0]
        else:
            text.insert(len(str(text)) // 2, "abcdefg"[number % 7])
    return updates


def known(updates: list[bytes]) -> Knowledge:
    knowledge = Knowledge()
    for update in updates:
        knowledge.add(walk(update))
    return knowledge


def test_no_update_is_the_empty_update_and_one_is_itself() -> None:
    assert join([]) == EMPTY_UPDATE
    assert join([BIGINT]) is BIGINT


def test_a_bigint_is_still_a_bigint_after_joining_though_the_native_merge_changes_it() -> None:
    updates = [BIGINT, *typed(3)]
    assert b"\x7a" + (1).to_bytes(8, "big") in join(updates)
    assert b"\x7a" + (1).to_bytes(8, "big") not in merge(updates)


@pytest.mark.parametrize("count", [2, 31, 32, 33, 65, 500])
def test_typing_joins_to_what_the_exact_merge_gives(count: int) -> None:
    updates = typed(count)
    assert known([join(updates)]) == known(updates)
    doc: Doc[Text] = Doc()
    doc.apply_update(join(updates))
    other: Doc[Text] = Doc()
    other.apply_update(merge_exactly(updates))
    assert str(doc.get("text", type=Text)) == str(other.get("text", type=Text))


@pytest.mark.parametrize("seed", range(20))
def test_mixed_and_shuffled_updates_lose_nothing(seed: int) -> None:
    chance = random.Random(seed)
    doc: Doc[Array[int]] = Doc(client_id=3)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    array = doc.get("numbers", type=Array)
    for number in range(40):
        array.insert(chance.randint(0, len(array)), number)
    mixed = [*updates, *typed(60)]
    chance.shuffle(mixed)
    missing = [update for update in mixed if chance.random() > 0.1]
    assert known([join(missing)]) == known(missing)


def test_what_is_no_update_is_refused() -> None:
    with pytest.raises(InvalidUpdate):
        join([BIGINT, encode_uint(5)])
