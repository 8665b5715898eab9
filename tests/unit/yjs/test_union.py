"""union.py: the exact merge keeps every unit, every byte of content, and what came first."""

from __future__ import annotations

from pycrdt import Doc, Text

from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.structs import Struct, read_update, write_update
from ydoc_store.yjs.union import diff_exactly, merge_exactly
from ydoc_store.yjs.walker import ANY, DELETED, DOCUMENT, GC, SKIP, STRING, TYPE

BIGINT = b"\x7a\0\0\0\0\0\0\0\x03"


def update_of(*structs: Struct, client: int = 1, deletes: dict[int, list[tuple[int, int]]] | None = None) -> bytes:
    return write_update({client: list(structs)} if structs else {}, deletes or {})


def shape(update: bytes, client: int = 1) -> list[tuple[int, int, int, bytes]]:
    return [(s.clock, s.end, s.kind, s.payload) for s in read_update(update).structs[client]]


def text(clock: int, content: str) -> Struct:
    origin = (1, clock - 1) if clock else None
    end = clock + len(content.encode("utf-16-le")) // 2
    return Struct(clock, end, STRING, origin, None, None if clock else "t", payload=content.encode())


def test_nothing_makes_the_empty_update() -> None:
    assert merge_exactly([]) == b"\0\0"
    assert merge_exactly([b"\0\0", b"\0\0"]) == b"\0\0"


def test_content_stays_byte_for_byte() -> None:
    update = update_of(
        Struct(0, 1, ANY, parent="a", payload=BIGINT),
        Struct(1, 2, DOCUMENT, (1, 0), payload=b"\x01gv\x01\x04metav\x01\x01a}\x01"),
        Struct(2, 3, TYPE, (1, 1), payload=b"\x05\x04hook"),
    )
    assert merge_exactly([update, update]) == update


def test_a_gap_becomes_a_skip_and_closes_again() -> None:
    first, second, third = (update_of(text(at, letter)) for at, letter in enumerate("abc"))
    gap = merge_exactly([third, first])
    assert [kind for _, _, kind, _ in shape(gap)] == [STRING, SKIP, STRING]
    assert [payload for _, _, _, payload in shape(merge_exactly([gap, second]))] == [b"a", b"b", b"c"]


def test_no_skip_stands_before_the_first_struct() -> None:
    assert shape(merge_exactly([update_of(text(5, "x")), b"\0\0"])) == [(5, 6, STRING, b"x")]


def test_of_a_unit_that_came_twice_the_first_one_is_kept() -> None:
    emptied = update_of(text(0, "ab"), Struct(2, 5, DELETED, (1, 1)))
    sent_again = update_of(text(0, "abcdefg"))
    assert shape(merge_exactly([emptied, sent_again])) == [
        (0, 2, STRING, b"ab"),
        (2, 5, DELETED, b""),
        (5, 7, STRING, b"fg"),
    ]
    assert shape(merge_exactly([sent_again, emptied])) == [(0, 7, STRING, b"abcdefg")]


def test_a_later_struct_goes_on_behind_an_earlier_one_inside_it() -> None:
    inside, around = update_of(text(2, "CD")), update_of(text(0, "abcdef"))
    assert [payload for _, _, _, payload in shape(merge_exactly([inside, around]))] == [b"ab", b"CD", b"ef"]


def test_runs_are_cut_where_they_overlap() -> None:
    merged = merge_exactly([update_of(Struct(0, 3, GC)), update_of(Struct(1, 6, GC))])
    assert shape(merged) == [(0, 3, GC, b""), (3, 6, GC, b"")]


def test_delete_sets_are_united() -> None:
    one, two = update_of(deletes={1: [(0, 2)], 5: [(3, 4)]}), update_of(deletes={1: [(2, 3)]})
    assert read_update(merge_exactly([one, two])).deletes == {5: [(3, 4)], 1: [(0, 3)]}


def test_an_exact_difference_brings_a_reader_to_the_same_document_as_the_whole() -> None:
    doc: Doc[Text] = Doc(client_id=5)
    text = doc.get("text", type=Text)
    vectors: list[bytes] = [doc.get_state()]
    states: list[bytes] = [doc.get_update()]
    for number in range(12):
        text.insert(number // 2, "word😀")
        if number % 3 == 2:
            del text[0:2]
        vectors.append(doc.get_state())
        states.append(doc.get_update())
    whole = doc.get_update()
    for vector, state in zip(vectors, states, strict=True):
        lacking = diff_exactly(whole, decode_state_vector(vector, clients_max=10))
        reader: Doc[Text] = Doc()
        reader.apply_update(state)
        reader.apply_update(lacking)
        assert str(reader.get("text", type=Text)) == str(text)
        assert reader.get_state() == doc.get_state()
    assert len(lacking) < len(whole) / 2


def test_an_exact_difference_keeps_what_stands_behind_a_gap() -> None:
    behind_gap = b"\x01\x01\x07\x05\x04\x01\x01t\x02hi\x00"
    assert diff_exactly(behind_gap, {7: 2}) == behind_gap
    assert diff_exactly(behind_gap, {7: 7}) == b"\x00\x00"
    assert diff_exactly(behind_gap, {7: 6}) == b"\x01\x01\x07\x06\x84\x07\x05\x01i\x00"
