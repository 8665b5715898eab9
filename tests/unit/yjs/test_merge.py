"""merge.py: the tree merge loses nothing, and nothing that pycrdt raises escapes as a BaseException."""

from __future__ import annotations

import pytest
from pycrdt import Doc, Text

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.merge import EMPTY_UPDATE, MERGE_FAN_IN, diff, fenced, merge, state_vector_of


def typed(text: str, client_id: int = 7) -> list[bytes]:
    """One update a character, as an editor sends them."""
    document: Doc[Text] = Doc(client_id=client_id)
    updates: list[bytes] = []
    document.observe(lambda event: updates.append(event.update))
    shared = document.get("text", type=Text)
    for character in text:
        shared += character
    return updates


def text_of(update: bytes) -> str:
    document: Doc[Text] = Doc()
    document.apply_update(update)
    return str(document.get("text", type=Text))


def test_no_update_is_the_empty_update() -> None:
    assert merge([]) == EMPTY_UPDATE
    assert text_of(EMPTY_UPDATE) == ""


def test_one_update_is_the_very_same_bytes() -> None:
    (update,) = typed("x")
    assert merge([update]) is update


def test_a_tree_of_several_levels_shows_the_same_text() -> None:
    text = "ab😀" * MERGE_FAN_IN * (MERGE_FAN_IN + 1)
    assert text_of(merge(typed(text))) == text


def test_order_does_not_matter() -> None:
    updates = typed("out of order" * 20)
    assert text_of(merge(updates[::-1])) == "out of order" * 20


def test_updates_behind_a_gap_are_kept_until_it_closes() -> None:
    updates = typed("abcdef")
    pending = merge([*updates[:2], *updates[4:]])
    assert text_of(pending) == "ab"
    assert text_of(merge([pending, updates[3], updates[2]])) == "abcdef"


def test_the_state_vector_counts_no_clock_behind_a_gap() -> None:
    updates = typed("abcdef")
    assert state_vector_of(merge(updates)) == bytes([1, 7, 6])
    assert state_vector_of(merge([*updates[:2], *updates[4:]])) == bytes([1, 7, 2])
    assert state_vector_of(merge(updates[4:])) == bytes([0])


def test_a_diff_holds_only_what_is_new() -> None:
    updates = typed("abcdef")
    whole = merge(updates)
    rest = diff(whole, bytes([1, 7, 4]))
    assert len(rest) < len(whole)
    assert text_of(merge([*updates[:4], rest])) == "abcdef"


def test_a_diff_keeps_what_waits_behind_a_gap() -> None:
    updates = typed("abcdef")
    gap = merge([*updates[:2], *updates[4:]])
    rest = diff(gap, bytes([1, 7, 2]))
    assert text_of(merge([*updates[:4], rest])) == "abcdef"


@pytest.mark.parametrize("bad", [b"", b"\x01", b"\x01\x01\x05", b"\xff" * 12])
def test_bytes_that_are_no_update_are_refused(bad: bytes) -> None:
    with pytest.raises(InvalidUpdate):
        merge([EMPTY_UPDATE, bad])
    with pytest.raises(InvalidUpdate):
        diff(bad, b"\0")
    with pytest.raises(InvalidUpdate):
        state_vector_of(bad)


def test_a_panic_of_native_code_becomes_an_invalid_update() -> None:
    block_without_structs = bytes.fromhex("0100018c010001")

    def apply(update: bytes) -> bytes:
        document: Doc[Text] = Doc(client_id=1)
        document.get("text", type=Text).insert(0, "x")
        document.apply_update(update)
        return b""

    with pytest.raises(BaseException, match="unwrap") as panic:
        apply(block_without_structs)
    assert not isinstance(panic.value, Exception), "pycrdt no longer panics here: find another input"
    with pytest.raises(InvalidUpdate):
        fenced(apply, block_without_structs)


@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_about_the_bytes_passes_the_fence(passing: type[BaseException]) -> None:
    def stop(_: bytes) -> bytes:
        raise passing

    with pytest.raises(passing):
        fenced(stop, b"")
