"""The new snapshot: equal to what went in, verified, and the merge itself wherever the fold is in doubt."""

from __future__ import annotations

import random

import pytest

from compactor import fold as fold_module
from compactor.fold import MergeLost, check_whole, fold_document
from tests.log_rows import Writer, text_of
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.structs import Struct, write_update
from ydoc_store.yjs.walker import STRING, TYPE, walk

EMPTY_STATE = b"\x00"


def test_typed_and_deleted_text_folds_to_what_the_editor_shows() -> None:
    writer = Writer()
    updates = [*writer.type_each("hello world"), writer.delete(0, 6)]
    folded = fold_document(None, updates, keep_deleted=False)
    assert (folded.way, folded.doubt) == ("fold", None)
    assert text_of([folded.snapshot]) == "world"
    assert b"hello" not in folded.snapshot
    assert len(folded.snapshot) < len(merge(updates))


def test_folding_in_bites_comes_to_the_same_text_as_folding_once() -> None:
    writer = Writer()
    updates = writer.type_each("a sentence that is written and then cut")
    updates += [writer.delete(3, 9), writer.type("😀", 2), writer.delete(0, 1)]
    snapshot = None
    for at in range(0, len(updates), 7):
        snapshot = fold_document(snapshot, updates[at : at + 7], keep_deleted=False).snapshot
    assert snapshot is not None
    assert text_of([snapshot]) == str(writer.text) == text_of(updates)


def test_with_keep_deleted_the_deleted_text_stays_in_the_bytes() -> None:
    writer = Writer()
    updates = [writer.type("secret"), writer.delete(0, 6)]
    folded = fold_document(None, updates, keep_deleted=True)
    assert folded.way == "join"
    assert b"secret" in folded.snapshot
    assert text_of([folded.snapshot]) == ""


def test_structs_whose_predecessors_have_not_come_stay_and_are_no_part_of_the_state_vector() -> None:
    writer = Writer(client_id=5)
    first, second, third = writer.type("a"), writer.type("b"), writer.type("c")
    folded = fold_document(None, [first, third], keep_deleted=False)
    known = Knowledge()
    known.add(walk(folded.snapshot))
    assert known.state_vector() == {5: 1}
    assert Knowledge.decode(folded.state_vector, folded.delete_set).state_vector() == {5: 1}
    assert text_of([folded.snapshot, second]) == "abc"


def test_what_stands_in_a_deleted_type_goes_and_is_in_the_delete_set() -> None:
    structs = {
        5: [Struct(0, 1, TYPE, parent="m", parent_key="k", payload=b"\x02")],
        6: [Struct(0, 5, STRING, parent=(5, 0), payload=b"aware")],
    }
    unaware = write_update({6: structs[6]}, {})
    folded = fold_document(None, [write_update({5: structs[5]}, {5: [(0, 1)]}), unaware], keep_deleted=False)
    assert (folded.way, folded.doubt) == ("fold", None)
    assert b"aware" not in folded.snapshot
    known = Knowledge()
    known.add(walk(folded.snapshot))
    assert known.encode_delete_set() == folded.delete_set
    assert known.covers(walk(write_update({}, {5: [(0, 1)], 6: [(0, 5)]})))


def test_the_vector_and_the_delete_set_are_those_of_the_snapshot() -> None:
    writer = Writer(client_id=9)
    updates = [*writer.type_each("abcdef"), writer.delete(1, 3)]
    folded = fold_document(None, updates, keep_deleted=False)
    known = Knowledge()
    known.add(walk(folded.snapshot))
    assert folded.state_vector == known.encode_state_vector()
    assert folded.delete_set == known.encode_delete_set()


def test_a_fold_that_raises_keeps_the_merge_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(update: bytes, *, keep_deleted: bool = False) -> bytes:
        raise ValueError("no such struct")

    monkeypatch.setattr(fold_module, "fold", broken)
    updates = Writer().type_each("abc")
    folded = fold_document(None, updates, keep_deleted=False)
    assert (folded.way, folded.doubt) == ("merge", "ValueError: no such struct")
    assert folded.snapshot == merge(updates)


def test_a_fold_that_loses_a_character_is_caught_and_the_merge_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = Writer().type_each("abc")
    wrong = merge(updates[:2])
    monkeypatch.setattr(fold_module, "fold", lambda update, *, keep_deleted=False: wrong)
    folded = fold_document(None, updates, keep_deleted=False)
    assert folded.way == "merge"
    assert folded.doubt is not None
    assert folded.snapshot == merge(updates)


def test_a_fold_that_is_not_idempotent_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    updates = [*writer.type_each("abcd"), writer.delete(1, 2)]
    answers = iter([merge(updates), b"another"])
    monkeypatch.setattr(fold_module, "fold", lambda update, *, keep_deleted=False: next(answers))
    assert fold_document(None, updates, keep_deleted=False).doubt == "a second fold changes the first"


def test_a_document_of_too_many_structs_to_fold_is_merged_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "FOLD_STRUCTS_MAX", 1)
    writer = Writer()
    updates = [writer.type("ac"), writer.type("b", 1), writer.type("d", 0)]
    folded = fold_document(None, updates, keep_deleted=False)
    assert (folded.way, folded.snapshot) == ("merge", merge(updates))
    assert folded.doubt is not None
    assert folded.doubt.endswith("structs are too many to fold, at most 1")


def test_a_fold_that_runs_out_of_memory_keeps_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(update: bytes, *, keep_deleted: bool = False) -> bytes:
        raise MemoryError

    monkeypatch.setattr(fold_module, "fold", exhausted)
    updates = Writer().type_each("abc")
    folded = fold_document(None, updates, keep_deleted=False)
    assert (folded.way, folded.doubt, folded.snapshot) == ("merge", "MemoryError: ", merge(updates))


def test_a_merge_that_lacks_an_update_or_the_snapshot_is_refused() -> None:
    writer = Writer()
    updates = writer.type_each("abc")
    known = Knowledge()
    known.add(walk(merge(updates[:2])))
    with pytest.raises(MergeLost, match="update 3 of 3"):
        check_whole(known, None, updates)
    with pytest.raises(MergeLost, match="snapshot"):
        check_whole(known, merge(updates), [])


def test_shuffled_sessions_of_two_writers_fold_to_the_same_text_in_any_chain() -> None:
    dice = random.Random(7)
    for _ in range(50):
        left, right = Writer(1), Writer(2)
        sent: list[bytes] = []
        for _ in range(30):
            writer, other = (left, right) if dice.random() < 0.5 else (right, left)
            if len(writer.text) and dice.random() < 0.3:
                start = dice.randrange(len(writer.text))
                update = writer.delete(start, min(len(writer.text), start + dice.randint(1, 3)))
            else:
                update = writer.type(dice.choice(["ab", "x", "longer", "line\n"]), dice.randint(0, len(writer.text)))
            sent.append(update)
            other.receive([update])
        dice.shuffle(sent)
        snapshot = None
        for at in range(0, len(sent), 5):
            folded = fold_document(snapshot, sent[at : at + 5], keep_deleted=False)
            assert folded.doubt is None
            snapshot = folded.snapshot
        assert snapshot is not None
        assert text_of([snapshot]) == str(left.text)
