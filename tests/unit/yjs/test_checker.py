"""checker.py: whatever a fold might get wrong is caught before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.checker import FoldMismatch, check_fold
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.structs import Ranges, Struct, read_update, write_update
from ydoc_store.yjs.walker import ANY, BINARY, DELETED, GC, SKIP, STRING, TYPE

ME = 7
YOU = 9
Structs = dict[int, list[Struct]]

DELETES: dict[int, Ranges] = {ME: [(2, 4), (9, 13)]}


def merged_structs() -> Structs:
    """Text with a deleted middle, an array, a gap, a deleted map with a deleted child, and someone else."""
    return {
        ME: [
            Struct(0, 3, STRING, parent="t", payload=b"abc"),
            Struct(3, 6, STRING, (ME, 2), payload="d😀".encode()),
            Struct(6, 7, ANY, parent="a", payload=b"\x7d\x01"),
            Struct(7, 8, ANY, (ME, 6), payload=b"\x7d\x02"),
            Struct(8, 9, BINARY, (ME, 7), payload=b"\x01x"),
            Struct(9, 10, TYPE, parent="m", parent_key="k", payload=b"\x01"),
            Struct(10, 13, STRING, parent=(ME, 9), payload=b"bye"),
            Struct(13, 15, SKIP),
            Struct(15, 16, STRING, (ME, 14), (YOU, 0), payload=b"z"),
        ],
        YOU: [Struct(0, 1, STRING, (ME, 0), (ME, 1), payload=b"y"), Struct(1, 3, GC)],
    }


MERGED = write_update(merged_structs(), DELETES)


def test_a_true_fold_passes() -> None:
    result = fold(MERGED)
    assert len(result) < len(MERGED)
    check_fold(MERGED, result)
    check_fold(MERGED, MERGED)
    check_fold(MERGED, fold(MERGED, keep_deleted=True), keep_deleted=True)


def test_dropped_content_fails_where_it_was_to_be_kept() -> None:
    with pytest.raises(FoldMismatch):
        check_fold(MERGED, fold(MERGED), keep_deleted=True)


def changed(struct: Struct, **fields: Any) -> Struct:
    return Struct(**{name: fields.get(name, getattr(struct, name)) for name in Struct.__slots__})


def replace(client: int, of_kind: int, /, **fields: Any) -> Callable[[Structs], None]:
    """Changes the first struct of a kind for which the fields make a difference."""

    def mutate(structs: Structs) -> None:
        block = structs[client]
        at = next(
            at
            for at, struct in enumerate(block)
            if struct.kind == of_kind and any(getattr(struct, name) != new for name, new in fields.items())
        )
        block[at] = changed(block[at], **fields)

    return mutate


def drop_last(structs: Structs) -> None:
    structs[ME].pop()


def drop_client(structs: Structs) -> None:
    del structs[YOU]


def shift_clocks(structs: Structs) -> None:
    structs[YOU] = [changed(struct, clock=struct.clock + 1, end=struct.end + 1) for struct in structs[YOU]]


def fill_the_gap(structs: Structs) -> None:
    structs[ME] = [changed(struct, kind=GC) if struct.kind == SKIP else struct for struct in structs[ME]]


def swap_halves(structs: Structs) -> None:
    at = next(at for at, struct in enumerate(structs[ME]) if struct.kind == STRING and struct.payload != b"ab")
    structs[ME][at] = changed(structs[ME][at], payload=structs[ME][at].payload[::-1].decode("latin-1").encode()[:4])


@pytest.mark.parametrize(
    "mutate",
    [
        drop_last,
        drop_client,
        shift_clocks,
        fill_the_gap,
        swap_halves,
        replace(ME, STRING, payload=b"xy"),
        replace(ME, ANY, payload=b"\x7d\x01\x7d\x03"),
        replace(ME, ANY, parent="b"),
        replace(ME, ANY, parent_key="k"),
        replace(ME, DELETED, origin=None, parent="t"),
        replace(ME, DELETED, origin=(ME, 0)),
        replace(ME, DELETED, right_origin=(ME, 0)),
        replace(ME, DELETED, kind=GC),
        replace(ME, DELETED, kind=STRING, payload=b"cc"),
        replace(ME, BINARY, kind=DELETED, payload=b""),
        replace(ME, BINARY, kind=GC, payload=b""),
        replace(ME, BINARY, payload=b"\x01y"),
        replace(YOU, STRING, origin=(ME, 1)),
        replace(YOU, STRING, right_origin=None),
        replace(YOU, STRING, kind=DELETED, payload=b""),
        replace(YOU, GC, kind=SKIP),
    ],
)
def test_a_fold_with_one_mistake_is_caught(mutate: Callable[[Structs], None]) -> None:
    folded = read_update(fold(MERGED))
    mutate(folded.structs)
    with pytest.raises(FoldMismatch):
        check_fold(MERGED, write_update(folded.structs, folded.deletes))


@pytest.mark.parametrize(
    "deletes", [{}, {ME: [(2, 4)]}, {ME: [(2, 4), (9, 14)]}, {**DELETES, YOU: [(0, 1)]}, {YOU: DELETES[ME]}]
)
def test_another_delete_set_is_caught(deletes: dict[int, Ranges]) -> None:
    folded = read_update(fold(MERGED))
    with pytest.raises(FoldMismatch, match="delete sets"):
        check_fold(MERGED, write_update(folded.structs, deletes))


def test_a_fold_that_cannot_be_read_is_caught() -> None:
    with pytest.raises(FoldMismatch):
        check_fold(MERGED, b"\x01")
    with pytest.raises(InvalidUpdate):
        check_fold(b"\x01", MERGED)


def refused(before: Structs, after: Structs, deletes: dict[int, Ranges], reason: str) -> None:
    with pytest.raises(FoldMismatch, match=reason):
        check_fold(write_update(before, deletes), write_update(after, deletes))


def test_a_root_types_item_never_becomes_gc() -> None:
    before = {ME: [Struct(0, 1, STRING, parent="t", payload=b"x")]}
    refused(before, {ME: [Struct(0, 1, GC)]}, {ME: [(0, 1)]}, "outside of any deleted type")


TYPE_AND_CHILD = [
    Struct(0, 1, TYPE, parent="m", parent_key="k", payload=b"\x01"),
    Struct(1, 2, STRING, parent=(ME, 0), payload=b"x"),
]


def test_a_child_becomes_gc_only_with_its_type() -> None:
    refused({ME: TYPE_AND_CHILD}, {ME: [TYPE_AND_CHILD[0], Struct(1, 2, GC)]}, {ME: [(0, 2)]}, "that is still there")


def test_a_type_goes_only_with_all_its_children() -> None:
    emptied = changed(TYPE_AND_CHILD[0], kind=DELETED, payload=b"")
    refused({ME: TYPE_AND_CHILD}, {ME: [emptied, TYPE_AND_CHILD[1]]}, {ME: [(0, 2)]}, "not all of its children")


def test_nothing_that_is_left_may_refer_to_what_became_gc() -> None:
    sibling = [Struct(0, 1, STRING, (ME, 1), payload=b"y")]
    emptied = changed(TYPE_AND_CHILD[0], kind=DELETED, payload=b"")
    after = {ME: [emptied, Struct(1, 2, GC)], YOU: sibling}
    refused({ME: TYPE_AND_CHILD, YOU: sibling}, after, {ME: [(0, 2)]}, "refers to")


def test_what_waits_for_a_predecessor_never_becomes_gc() -> None:
    waiting = [Struct(5, 6, STRING, parent=(ME, 0), payload=b"y")]
    emptied = changed(TYPE_AND_CHILD[0], kind=DELETED, payload=b"")
    after = {ME: [emptied, Struct(1, 2, GC)], YOU: [Struct(5, 6, GC)]}
    refused({ME: TYPE_AND_CHILD, YOU: waiting}, after, {ME: [(0, 2)], YOU: [(5, 6)]}, "waits for a predecessor")


GRANDCHILD = [
    *TYPE_AND_CHILD[:1],
    Struct(1, 2, TYPE, parent=(ME, 0), parent_key="in", payload=b"\x02"),
    Struct(2, 3, STRING, parent=(ME, 1), payload=b"x"),
]
EMPTIED_GRANDCHILD = [*GRANDCHILD[:2], changed(GRANDCHILD[2], kind=DELETED, payload=b"")]


def test_content_may_go_with_a_deleted_type_though_no_delete_names_it() -> None:
    check_fold(write_update({ME: GRANDCHILD}, {ME: [(0, 1)]}), write_update({ME: EMPTIED_GRANDCHILD}, {ME: [(0, 1)]}))


@pytest.mark.parametrize("deletes", [{}, {YOU: [(0, 1)]}, {ME: [(3, 4)]}])
def test_content_in_a_live_type_stays(deletes: dict[int, Ranges]) -> None:
    refused({ME: GRANDCHILD}, {ME: EMPTIED_GRANDCHILD}, deletes, "dropped that is not deleted")


def test_content_that_waits_stays_though_its_type_is_deleted() -> None:
    waiting = Struct(5, 6, STRING, parent=(ME, 0), payload=b"y")
    emptied = changed(waiting, kind=DELETED, payload=b"")
    before = {ME: TYPE_AND_CHILD, YOU: [waiting]}
    refused(before, {ME: TYPE_AND_CHILD, YOU: [emptied]}, {ME: [(0, 1)]}, "dropped that is not deleted")


def test_content_beside_a_gc_run_stays() -> None:
    before = {ME: [Struct(0, 1, GC), Struct(1, 2, STRING, (ME, 0), payload=b"x")]}
    after = {ME: [Struct(0, 1, GC), Struct(1, 2, DELETED, (ME, 0))]}
    refused(before, after, {}, "dropped that is not deleted")


def test_what_only_stands_near_a_child_of_an_emptied_type_stays() -> None:
    emptied = Struct(0, 1, DELETED, parent="m", parent_key="k")
    child = Struct(1, 2, DELETED, parent=(ME, 0))
    near = Struct(2, 3, STRING, (ME, 1), (YOU, 0), payload=b"x")
    live = [Struct(0, 1, STRING, parent="t", payload=b"y")]
    after = {ME: [emptied, child, changed(near, kind=DELETED, payload=b"")], YOU: live}
    refused({ME: [emptied, child, near], YOU: live}, after, {ME: [(0, 2)]}, "dropped that is not deleted")


def test_a_cut_entry_of_a_map_is_caught() -> None:
    before = {ME: [Struct(0, 2, STRING, parent="m", parent_key="k", payload=b"ab")]}
    left = Struct(0, 1, STRING, parent="m", parent_key="k", payload=b"a")
    refused(before, {ME: [left, Struct(1, 2, DELETED, (ME, 0))]}, {ME: [(1, 2)]}, "entries of a map")


def test_joined_entries_of_a_map_are_caught() -> None:
    before = {
        ME: [
            Struct(0, 1, ANY, parent="m", parent_key="k", payload=b"\x7e"),
            Struct(1, 2, ANY, (ME, 0), payload=b"\x7f"),
        ]
    }
    after = {ME: [Struct(0, 2, ANY, parent="m", parent_key="k", payload=b"\x7e\x7f")]}
    refused(before, after, {}, "entries of a map")
