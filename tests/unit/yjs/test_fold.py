"""fold.py: deleted content goes, neighbours join, and nobody can tell."""

from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.checker import check_fold
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.structs import Id, Ranges, Struct, covers, read_update, write_update
from ydoc_store.yjs.walker import ANY, BINARY, DELETED, FORMAT, GC, SKIP, STRING, TYPE

ME = 7
YOU = 9
MAP, TEXT = b"\x01", b"\x02"


def text(clock: int, content: str, origin: Id | None = None, right_origin: Id | None = None) -> Struct:
    parent = "t" if origin is None and right_origin is None else None
    end = clock + len(content.encode("utf-16-le")) // 2
    return Struct(clock, end, STRING, origin, right_origin, parent, payload=content.encode())


def value(clock: int, content: str, origin: Id | None = None, key: str | None = None) -> Struct:
    parent = "root" if origin is None else None
    payload = b"\x77" + encode_string(content)
    return Struct(clock, clock + 1, ANY, origin, None, parent, key if origin is None else None, payload)


def folded(
    structs: dict[int, list[Struct]], deletes: dict[int, Ranges] | None = None, *, keep_deleted: bool = False
) -> dict[int, list[tuple[int, int, int, str]]]:
    """The fold of some structs as (clock, end, kind, text), having checked what every fold must be."""
    update = write_update(structs, deletes or {})
    result = fold(update, keep_deleted=keep_deleted)
    check_fold(update, result, keep_deleted=keep_deleted)
    assert fold(result, keep_deleted=keep_deleted) == result
    for client, ranges in (deletes or {}).items():
        assert all(covers(read_update(result).deletes[client], start, end) for start, end in ranges)
    return {
        client: [(s.clock, s.end, s.kind, s.payload.decode() if s.kind == STRING else "") for s in block]
        for client, block in read_update(result).structs.items()
    }


def test_an_empty_update_stays_empty() -> None:
    assert fold(b"\0\0") == b"\0\0"


def test_bytes_that_are_no_update_are_refused() -> None:
    with pytest.raises(InvalidUpdate):
        fold(b"\x01")


def test_letters_typed_one_by_one_become_one_string() -> None:
    typed = [text(0, "a"), text(1, "b", (ME, 0)), text(2, "😀", (ME, 1)), text(4, "c", (ME, 3))]
    assert folded({ME: typed}) == {ME: [(0, 5, STRING, "ab😀c")]}


@pytest.mark.parametrize(
    "second",
    [
        text(1, "b", (YOU, 0)),
        text(1, "b", None, (ME, 0)),
        text(1, "b", (ME, 0), (YOU, 0)),
    ],
)
def test_what_was_typed_elsewhere_is_not_joined(second: Struct) -> None:
    assert len(folded({ME: [text(0, "a"), second], YOU: [text(0, "z")]})[ME]) == 2


def test_a_deleted_middle_cuts_a_string() -> None:
    assert folded({ME: [text(0, "abcdef")]}, {ME: [(2, 4)]}) == {
        ME: [(0, 2, STRING, "ab"), (2, 4, DELETED, ""), (4, 6, STRING, "ef")]
    }


def test_deleted_runs_of_several_deletes_join() -> None:
    typed = [text(0, "ab"), text(2, "cd", (ME, 1)), text(4, "ef", (ME, 3))]
    assert folded({ME: typed}, {ME: [(1, 5)]}) == {ME: [(0, 1, STRING, "a"), (1, 5, DELETED, ""), (5, 6, STRING, "f")]}


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        ((1, 2), [(0, 4, STRING, "a😀b")]),
        ((2, 3), [(0, 4, STRING, "a😀b")]),
        ((2, 4), [(0, 3, STRING, "a😀"), (3, 4, DELETED, "")]),
        ((0, 2), [(0, 1, DELETED, ""), (1, 4, STRING, "😀b")]),
        ((1, 3), [(0, 1, STRING, "a"), (1, 3, DELETED, ""), (3, 4, STRING, "b")]),
    ],
)
def test_a_deleted_surrogate_half_leaves_the_pair_whole(
    deleted: tuple[int, int], expected: list[tuple[int, int, int, str]]
) -> None:
    assert folded({ME: [text(0, "a😀b")]}, {ME: [deleted]}) == {ME: expected}


def test_values_binary_and_format_marks_become_deleted_runs() -> None:
    structs = [
        value(0, "one"),
        value(1, "two", (ME, 0)),
        Struct(2, 3, BINARY, (ME, 1), payload=b"\x02xy"),
        Struct(3, 4, FORMAT, (ME, 2), payload=b"\x01b\x04true"),
    ]
    assert folded({ME: structs}, {ME: [(1, 4)]}) == {ME: [(0, 1, ANY, ""), (1, 4, DELETED, "")]}


def test_nothing_is_dropped_where_deleted_content_is_kept() -> None:
    typed = [text(0, "abc"), text(3, "d", (ME, 2))]
    assert folded({ME: typed}, {ME: [(1, 4)]}, keep_deleted=True) == {ME: [(0, 4, STRING, "abcd")]}


def test_entries_of_a_map_are_not_joined_alive() -> None:
    entries = [value(0, "old", key="k"), value(1, "new", (ME, 0))]
    assert folded({ME: entries}) == {ME: [(0, 1, ANY, ""), (1, 2, ANY, "")]}
    assert folded({ME: entries}, {ME: [(0, 2)]}) == {ME: [(0, 2, DELETED, "")]}


def test_an_entry_of_a_map_is_not_cut() -> None:
    entry = Struct(0, 2, STRING, parent="m", parent_key="k", payload=b"ab")
    assert folded({ME: [entry]}, {ME: [(1, 2)]}) == {ME: [(0, 2, STRING, "ab")]}


def test_values_of_an_array_are_joined() -> None:
    assert folded({ME: [value(0, "x"), value(1, "y", (ME, 0))]}) == {ME: [(0, 2, ANY, "")]}


def test_gc_runs_and_gaps_stay_where_they_are() -> None:
    structs = [Struct(3, 4, GC), Struct(4, 6, GC), Struct(6, 8, SKIP), text(8, "x", (ME, 7))]
    assert folded({ME: structs}) == {ME: [(3, 6, GC, ""), (6, 8, SKIP, ""), (8, 9, STRING, "x")]}


def nested() -> dict[int, list[Struct]]:
    """A map with a text in it, and `you` who typed into that text."""
    return {
        ME: [
            Struct(0, 1, TYPE, parent="root", parent_key="k", payload=MAP),
            Struct(1, 2, TYPE, parent=(ME, 0), parent_key="in", payload=TEXT),
            Struct(2, 5, STRING, parent=(ME, 1), payload=b"abc"),
        ],
        YOU: [Struct(0, 2, STRING, (ME, 3), (ME, 4), payload=b"XY")],
    }


def test_children_of_a_deleted_type_become_gc_runs() -> None:
    assert folded(nested(), {ME: [(0, 5)], YOU: [(0, 2)]}) == {
        ME: [(0, 1, DELETED, ""), (1, 5, GC, "")],
        YOU: [(0, 2, GC, "")],
    }


def test_a_child_goes_with_its_deleted_type_though_nobody_sent_a_delete_for_it() -> None:
    assert folded(nested(), {ME: [(0, 1)]}) == {ME: [(0, 1, DELETED, ""), (1, 5, GC, "")], YOU: [(0, 2, GC, "")]}


def test_what_goes_with_a_deleted_type_is_named_by_the_delete_set_from_then_on() -> None:
    result = read_update(fold(write_update(nested(), {ME: [(0, 1)]})))
    assert result.deletes == {YOU: [(0, 2)], ME: [(0, 5)]}


def test_a_child_of_a_live_type_stays() -> None:
    assert folded(nested(), {ME: [(2, 5)]})[YOU] == [(0, 2, STRING, "XY")]


def test_children_that_wait_for_a_predecessor_keep_their_type() -> None:
    structs = nested()
    structs[YOU] = [Struct(4, 6, STRING, (ME, 3), (ME, 4), payload=b"XY")]
    assert folded(structs, {ME: [(0, 5)], YOU: [(4, 6)]}) == {
        ME: [(0, 1, TYPE, ""), (1, 2, TYPE, ""), (2, 5, DELETED, "")],
        YOU: [(4, 6, DELETED, "")],
    }


def test_a_stranger_that_leans_on_a_child_keeps_its_type() -> None:
    structs = nested()
    structs[YOU] = [
        Struct(0, 1, STRING, parent="t", payload=b"x"),
        Struct(1, 2, STRING, (YOU, 0), (ME, 3), payload=b"y"),
    ]
    result = folded(structs, {ME: [(0, 5)]})
    assert result[ME] == [(0, 1, TYPE, ""), (1, 2, TYPE, ""), (2, 5, DELETED, "")]


def test_a_late_child_of_a_type_that_went_goes_too() -> None:
    structs = {
        ME: [Struct(0, 1, DELETED, parent="root", parent_key="k")],
        YOU: [Struct(0, 1, STRING, parent=(ME, 0), payload=b"x")],
    }
    assert folded(structs, {ME: [(0, 1)]})[YOU] == [(0, 1, GC, "")]


def test_a_late_child_of_an_emptied_type_goes_with_what_holds_that_type() -> None:
    structs = {
        ME: [
            Struct(0, 1, TYPE, parent="root", parent_key="k", payload=MAP),
            Struct(1, 2, DELETED, parent=(ME, 0), parent_key="in"),
        ],
        YOU: [Struct(0, 1, STRING, parent=(ME, 1), payload=b"x")],
    }
    assert folded(structs, {ME: [(0, 2)]}) == {ME: [(0, 1, DELETED, ""), (1, 2, GC, "")], YOU: [(0, 1, GC, "")]}


def test_a_type_in_a_deleted_type_stays_while_a_child_of_it_waits() -> None:
    structs = nested()
    structs[YOU] = [Struct(4, 6, STRING, (ME, 3), (ME, 4), payload=b"XY")]
    assert folded(structs, {ME: [(0, 1)]}) == {
        ME: [(0, 1, TYPE, ""), (1, 2, TYPE, ""), (2, 5, DELETED, "")],
        YOU: [(4, 6, STRING, "XY")],
    }


def test_text_beside_a_gc_run_keeps_its_content() -> None:
    """I7: Yjs hides it and pycrdt shows it, if its other neighbour is alive; a fold takes no side."""
    structs = {
        ME: [Struct(0, 3, GC)],
        YOU: [text(0, "live"), Struct(4, 6, STRING, (ME, 0), (YOU, 0), payload=b"XY")],
    }
    assert folded(structs)[YOU] == [(0, 4, STRING, "live"), (4, 6, STRING, "XY")]
    assert to_json(write_update(structs, {})) == {"t": "XYlive"}


def test_a_type_whose_content_somebody_dropped_without_a_delete_takes_nothing_with_it() -> None:
    structs = {
        ME: [Struct(0, 1, DELETED, parent="root", parent_key="k")],
        YOU: [Struct(0, 1, STRING, parent=(ME, 0), payload=b"x")],
    }
    assert folded(structs)[YOU] == [(0, 1, STRING, "x")]


def test_the_marker_of_an_epoch_takes_nothing_with_it() -> None:
    marker = 2**53 - 5
    assert folded({marker: [Struct(0, 1, GC)], ME: [text(0, "abc")]})[ME] == [(0, 3, STRING, "abc")]


def test_structs_that_need_each_other_in_a_circle_are_left_alone() -> None:
    structs = {ME: [text(0, "a", (YOU, 0))], YOU: [text(0, "b", (ME, 0))]}
    assert folded(structs) == {ME: [(0, 1, STRING, "a")], YOU: [(0, 1, STRING, "b")]}
    types = {
        ME: [Struct(0, 1, TYPE, parent=(YOU, 0), parent_key="k", payload=MAP)],
        YOU: [Struct(0, 1, TYPE, parent=(ME, 0), parent_key="k", payload=MAP)],
    }
    assert folded(types, {ME: [(0, 1)], YOU: [(0, 1)]}) == {ME: [(0, 1, TYPE, "")], YOU: [(0, 1, TYPE, "")]}


def test_a_long_chain_of_origins_needs_no_recursion() -> None:
    depth = 30_000
    structs: dict[int, list[Struct]] = {ME: [], YOU: []}
    for at in range(depth):
        origin = (YOU, at - 1) if at else None
        structs[ME].append(Struct(at, at + 1, STRING, origin, None, None if at else "t", payload=b"x"))
        structs[YOU].append(Struct(at, at + 1, STRING, (ME, at), payload=b"y"))
    assert len(folded(structs, {ME: [(0, depth)]})[YOU]) == depth
