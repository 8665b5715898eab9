"""What a client's copy applies, and when: in the order of each client's clocks, whatever order it came in."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text

from ydoc_store.client.replica import Replica, cut_at_gaps
from ydoc_store.yjs.merge import EMPTY_UPDATE, merge
from ydoc_store.yjs.union import merge_exactly


def replica_of(doc: Doc[Any]) -> Replica:
    return Replica(doc, edited=lambda _update: None, failed=lambda error: pytest.fail(repr(error)))


def history(seed: int, clients: int = 3, steps: int = 40) -> list[bytes]:
    """Updates of some editors who hear of each other now and then."""
    dice = Random(seed)
    updates: list[bytes] = []
    docs: list[Doc[Any]] = [Doc(client_id=number + 1) for number in range(clients)]
    heard = [0] * clients
    subscriptions = [doc.observe(lambda event: updates.append(event.update)) for doc in docs]
    for _ in range(steps):
        at = dice.randrange(clients)
        doc = docs[at]
        text, kept = doc.get("text", type=Text), doc.get("map", type=Map)
        match dice.randrange(5):
            case 0 | 1:
                text.insert(dice.randrange(len(text) + 1), dice.choice(["a", "bc", "defg"]))
            case 2 if len(text) > 3:
                del text[0:2]
            case 3:
                kept[dice.choice("kl")] = Array([1, 2])
            case _:
                missed, heard[at] = updates[heard[at] :], len(updates)
                seen = len(updates)
                for update in missed:
                    doc.apply_update(update)
                del updates[seen:]
    for doc, subscription in zip(docs, subscriptions, strict=True):
        doc.unobserve(subscription)
    return [update for update in updates if update != EMPTY_UPDATE]


def shown(doc: Doc[Any]) -> tuple[str, Any]:
    return str(doc.get("text", type=Text)), doc.get("map", type=Map).to_py()


@pytest.mark.parametrize("seed", range(150))
def test_updates_in_any_order_come_to_the_same_document(seed: int) -> None:
    updates = history(seed)
    whole: Doc[Any] = Doc()
    whole.apply_update(merge(updates))
    Random(seed).shuffle(updates)
    doc: Doc[Any] = Doc()
    replica = replica_of(doc)
    for update in updates:
        replica.apply(update)
    assert replica.held_count == 0
    assert shown(doc) == shown(whole)


@pytest.mark.parametrize("seed", range(30))
def test_a_merge_with_a_hole_shows_what_stands_before_it_and_the_rest_when_it_is_filled(seed: int) -> None:
    updates = history(seed)
    hole = Random(seed).randrange(len(updates) // 2)
    replica = replica_of(Doc())
    replica.apply(merge_exactly([update for number, update in enumerate(updates) if number != hole]))
    replica.apply(updates[hole])
    whole: Doc[Any] = Doc()
    whole.apply_update(merge(updates))
    assert replica.held_count == 0
    assert shown(replica.ydoc) == shown(whole)


def typed(*words: str) -> list[bytes]:
    doc: Doc[Any] = Doc(client_id=5)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    text = doc.get("text", type=Text)
    for word in words:
        text.insert(len(text), word)
    return updates


def test_what_lies_behind_a_gap_is_not_shown_until_the_gap_is_filled() -> None:
    first, second, third = typed("a", "b", "c")
    replica = replica_of(Doc())
    replica.apply(first)
    replica.apply(third)
    assert shown(replica.ydoc)[0] == "a"
    assert replica.held_count == 1
    replica.apply(second)
    assert shown(replica.ydoc)[0] == "abc"
    assert replica.held_count == 0


def test_a_gap_holds_up_nobody_else() -> None:
    _first, second = typed("a", "b")
    other: Doc[Any] = Doc(client_id=6)
    other.get("text", type=Text).insert(0, "there")
    replica = replica_of(Doc())
    replica.apply(second)
    replica.apply(other.get_update())
    assert shown(replica.ydoc)[0] == "there"


def test_what_waits_is_asked_for_again_at_a_new_connection_and_not_kept_twice() -> None:
    _first, second = typed("a", "b")
    replica = replica_of(Doc())
    replica.apply(second)
    assert replica.state_vector() == b"\0"
    assert replica.held_count == 0


def test_what_the_caller_applies_itself_counts_as_here() -> None:
    first, second = typed("a", "b")
    doc: Doc[Any] = Doc()
    told: list[bytes] = []
    replica = Replica(doc, edited=told.append, failed=lambda error: pytest.fail(repr(error)))
    doc.apply_update(first)
    replica.apply(second)
    assert shown(doc)[0] == "ab"
    assert told == [first]


def test_a_cut_takes_deletes_to_what_they_delete() -> None:
    doc: Doc[Any] = Doc(client_id=5)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(event.update))
    text = doc.get("text", type=Text)
    for word in ("ab", "cd", "ef"):
        text.insert(len(text), word)
    del text[1:5]
    before, behind = cut_at_gaps(merge_exactly([updates[0], updates[2], updates[3]]), {})
    target: Doc[Any] = Doc()
    target.apply_update(before)
    assert shown(target)[0] == "a"
    target.apply_update(merge_exactly([updates[1], behind]))
    assert shown(target)[0] == "af"
