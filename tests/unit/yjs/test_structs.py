"""structs.py: records are read and written back without touching what they hold."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.lib0 import encode_string, encode_uint
from ydoc_store.yjs.structs import (
    Struct,
    StructUpdate,
    Units,
    add_update,
    covers,
    join_ranges,
    piece,
    read_update,
    write_update,
)
from ydoc_store.yjs.walker import ANY, DELETED, GC, SKIP, STRING

BIG_CLIENT = 2**53 - 1


def any_values(*texts: str) -> bytes:
    return b"".join(b"\x77" + encode_string(text) for text in texts)


def a_document_of_everything() -> bytes:
    document: Doc[Any] = Doc(client_id=77)
    text = document.get("text", type=Text)
    text += "plain and 😀"
    text.format(0, 5, {"bold": True})
    text.insert_embed(3, {"image": "x.png"})
    document.get("map", type=Map)["key"] = Map({"inner": [1, None, True, {"deep": "é"}]})
    document.get("array", type=Array).extend([b"bytes", 1.5, "x", Array([Text("y")])])
    del text[1:4]
    return document.get_update()


def test_what_is_read_is_written_back_byte_for_byte() -> None:
    update = a_document_of_everything()
    assert write_update(*read_update(update)) == update


def test_gaps_and_gc_runs_are_records_too() -> None:
    structs = {BIG_CLIENT: [Struct(5, 7, GC), Struct(7, 9, SKIP), Struct(9, 10, DELETED, (3, 1), (BIG_CLIENT, 6))]}
    update = write_update(structs, {})
    assert write_update(*read_update(update)) == update
    assert [(s.clock, s.end, s.kind) for s in read_update(update).structs[BIG_CLIENT]] == [
        (5, 7, GC),
        (7, 9, SKIP),
        (9, 10, DELETED),
    ]


def test_a_string_is_as_long_as_its_utf16_units() -> None:
    update = write_update({1: [Struct(0, 4, STRING, parent="t", payload="a😀b".encode())]}, {})
    (struct,) = read_update(update).structs[1]
    assert (struct.clock, struct.end) == (0, 4)


def test_delete_ranges_come_sorted_and_joined() -> None:
    raw = b"\0" + encode_uint(1) + encode_uint(9) + encode_uint(3) + bytes([5, 2, 0, 1, 1, 4])
    assert read_update(raw).deletes == {9: [(0, 7)]}
    assert join_ranges([(4, 6), (1, 2), (5, 9), (3, 3)]) == [(1, 2), (4, 9)]


def test_several_updates_gather_in_the_order_in_which_they_come() -> None:
    found = StructUpdate({}, {})
    for clock in (4, 0):
        add_update(write_update({1: [Struct(clock, clock + 1, GC)]}, {2: [(clock, clock + 1)]}), found)
    assert [struct.clock for struct in found.structs[1]] == [4, 0]
    assert found.deletes == {2: [(4, 5), (0, 1)]}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0",
        b"\0\0\0",
        bytes([1, 0, 5, 0, 0]),  # a client without structs
        bytes([2, 1, 5, 0, 0, 1, 1, 5, 1, 0, 1, 0]),  # a client twice
        bytes([1, 1, 5, 0, 0, 0, 0]),  # a GC run of no length
        bytes([1, 1, 5, 0, 4, 1, 1, 116, 9, 120, 0]),  # a string past the end
        bytes([1, 1, 5, 0, 4, 1, 1, 116, 1, 255, 0]),  # a string that is no UTF-8
        bytes([1, 1, 5, 0, 30, 1, 1, 116, 0]),  # an unknown kind
    ],
)
def test_bytes_that_are_no_update_are_refused(bad: bytes) -> None:
    with pytest.raises(InvalidUpdate):
        read_update(bad)


def test_a_string_is_cut_in_utf16_units() -> None:
    struct = Struct(10, 16, STRING, (1, 2), (3, 4), payload="aé😀bc".encode())
    units = Units(struct)
    left, right = piece(5, struct, units, 10, 12), piece(5, struct, units, 14, 16)
    assert (left.payload.decode(), left.origin, left.right_origin) == ("aé", (1, 2), (3, 4))
    assert (right.payload.decode(), right.origin, right.right_origin) == ("bc", (5, 13), (3, 4))
    assert [offset for offset in range(7) if units.parts_a_pair(offset)] == [3]


def test_half_of_a_pair_becomes_a_replacement_character() -> None:
    units = Units(Struct(0, 4, STRING, parent="t", payload="a😀b".encode()))
    assert units.payload(0, 2).decode() == "a�"
    assert units.payload(2, 4).decode() == "�b"


def test_values_are_cut_between_values() -> None:
    struct = Struct(0, 3, ANY, parent="a", parent_key="k", payload=any_values("one", "two", "three"))
    units = Units(struct)
    first, rest = piece(5, struct, units, 0, 1), piece(5, struct, units, 1, 3)
    assert (first.payload, first.parent, first.parent_key) == (any_values("one"), "a", "k")
    assert (rest.payload, rest.parent, rest.parent_key, rest.origin) == (any_values("two", "three"), None, None, (5, 0))


@pytest.mark.parametrize("text", ["plain", "né", "a😀b😀c😀"])
def test_cuts_leave_parts_within_the_limit_and_pairs_whole(text: str) -> None:
    struct = Struct(0, len(text.encode("utf-16-le")) // 2, STRING, parent="t", payload=text.encode())
    units = Units(struct)
    bounds = [0, *units.cuts(4), struct.end]
    parts = [units.payload(start, end).decode() for start, end in pairwise(bounds)]
    assert "".join(parts) == text
    assert all(len(part.encode()) <= 6 for part in parts)


def test_one_range_covers_or_none_does() -> None:
    ranges = [(2, 4), (6, 9)]
    assert covers(ranges, 2, 4)
    assert covers(ranges, 7, 8)
    assert not covers(ranges, 3, 7)
    assert not covers(ranges, 0, 1)
    assert not covers([], 0, 1)
