"""A body in pieces is the same body."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.http.bodies import PIECE_BYTES, in_pieces

SIZES = st.sampled_from([0, 1, 20, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])


@given(st.lists(SIZES, max_size=8))
def test_pieces_are_the_parts_and_none_is_long(sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    pieces = list(in_pieces(parts))
    assert b"".join(pieces) == b"".join(parts)
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert len(pieces) <= sum(map(len, parts)) // PIECE_BYTES * 2 + len(sizes) + 1


def test_typing_is_put_together() -> None:
    assert len(list(in_pieces([b"x"] * 10_000))) == 1
