"""split.py: pieces that are small, in an order to apply at once, and together the same update."""

from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.split import split
from ydoc_store.yjs.structs import Struct, read_update, write_update
from ydoc_store.yjs.union import merge_exactly
from ydoc_store.yjs.walker import ANY, BINARY, SKIP, STRING

ME = 7
YOU = 9


def text(length: int) -> bytes:
    return write_update({ME: [Struct(0, length, STRING, parent="t", payload=b"x" * length)]}, {})


def test_an_update_that_is_small_enough_is_the_only_piece() -> None:
    update = text(50)
    assert split(update, 1000) == [update]
    assert split(update, len(update)) == [update]


def test_bytes_that_are_no_update_are_refused() -> None:
    with pytest.raises(InvalidUpdate):
        split(b"\x01" * 100, 10)


@pytest.mark.parametrize("letters", ["x", "né", "a😀"])
def test_a_long_string_is_cut_and_joins_again(letters: str) -> None:
    payload = letters.encode() * 2000
    update = write_update(
        {ME: [Struct(0, len(payload.decode().encode("utf-16-le")) // 2, STRING, parent="t", payload=payload)]}, {}
    )
    pieces = split(update, 500)
    assert len(pieces) >= 5
    assert all(len(piece) <= 500 for piece in pieces)
    assert "�".encode() not in b"".join(pieces)
    assert fold(merge_exactly(pieces)) == update


def test_values_are_cut_between_values_and_one_huge_value_stays_whole() -> None:
    values = [b"\x77" + encode_string(letter * size) for letter, size in (("a", 10), ("b", 900), ("c", 10))]
    update = write_update({ME: [Struct(0, 3, ANY, parent="a", payload=b"".join(values))]}, {})
    assert [len(piece) > 500 for piece in split(update, 200)] == [False, True, False]
    assert fold(merge_exactly(split(update, 200))) == update
    binary = write_update({ME: [Struct(0, 1, BINARY, parent="a", payload=b"\xe8\x07" + b"x" * 1000)]}, {})
    assert split(binary, 200) == [binary]


def test_each_piece_can_be_applied_as_soon_as_it_comes() -> None:
    """Two people who typed in turn: either one's structs alone would have to wait for the other's."""
    mine, yours = [], []
    for at in range(500):
        origin = (YOU, at - 1) if at else None
        mine.append(Struct(at, at + 1, STRING, origin, None, None if at else "t", payload=b"m"))
        yours.append(Struct(at, at + 1, STRING, (ME, at), payload=b"y"))
    pieces = split(write_update({YOU: yours, ME: mine}, {}), 300)
    assert len(pieces) > 10
    for count in range(1, len(pieces) + 1):
        so_far = read_update(merge_exactly(pieces[:count]))
        replay = Replay(so_far)
        assert all(replay.applied(client) == block[-1].end for client, block in so_far.structs.items())


def test_what_waits_for_a_predecessor_comes_behind_and_its_gap_stays_a_gap() -> None:
    gap = write_update(
        {
            ME: [
                Struct(0, 100, STRING, parent="t", payload=b"a" * 100),
                Struct(100, 150, SKIP),
                Struct(150, 250, STRING, (ME, 149), payload=b"b" * 100),
            ],
            YOU: [Struct(3, 103, STRING, (ME, 0), payload=b"c" * 100)],
        },
        {},
    )
    pieces = split(gap, 150)
    assert len(pieces) == 3
    assert b"a" * 100 in pieces[0]
    assert read_update(merge_exactly(pieces)).structs[ME][1].kind == SKIP
    assert fold(merge_exactly(pieces)) == fold(merge_exactly([gap]))


def test_the_delete_set_comes_last_and_is_cut_too() -> None:
    deletes = {client: [(at * 2, at * 2 + 1) for at in range(100)] for client in (ME, YOU)}
    update = write_update({ME: [Struct(0, 200, STRING, parent="t", payload=b"x" * 200)]}, deletes)
    pieces = split(update, 250)
    assert [bool(read_update(piece).deletes) for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert all(len(piece) <= 250 for piece in pieces)
    assert read_update(merge_exactly(pieces)).deletes == deletes
