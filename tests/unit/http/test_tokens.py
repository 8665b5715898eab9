"""Positions in a stream: what a token says, how it sorts, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.errors import InvalidRequest
from ydoc_store.http.tokens import (
    CURSOR_EPOCH_S,
    CURSOR_INTERVAL_S,
    Sentinel,
    SnapshotAt,
    Token,
    cursor_after,
    parse_offset,
)

seqs = st.integers(0, 4 * 10**15)


def test_a_token_is_the_epoch_and_twice_the_seq() -> None:
    assert str(Token(3, 21)) == "0000000000000003_0000000000000042"


def test_a_reader_of_a_snapshot_goes_on_one_further_and_skips_nothing() -> None:
    at = Token(1, 21)
    after = parse_offset(str(at.behind_snapshot))
    assert str(after) == "0000000000000001_0000000000000043"
    assert isinstance(after, Token)
    assert (after.seq, after.follows_snapshot) == (21, True)


@given(epoch=st.integers(1, 2**31 - 1), seq=seqs, follows=st.booleans())
def test_a_token_reads_as_what_was_written(epoch: int, seq: int, follows: bool) -> None:
    token = Token(epoch, seq, follows)
    assert parse_offset(str(token)) == token


@given(a=st.tuples(st.integers(1, 99), seqs), b=st.tuples(st.integers(1, 99), seqs))
def test_tokens_sort_as_text_as_what_they_stand_for(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (str(Token(*a)) < str(Token(*b))) == (a < b)


def test_a_snapshot_is_named_by_its_position() -> None:
    named = SnapshotAt(Token(1, 5))
    assert str(named) == "0000000000000001_0000000000000010_snapshot"
    assert parse_offset(str(named)) == named


@pytest.mark.parametrize("word", ["-1", "now", "snapshot"])
def test_the_words_are_understood(word: str) -> None:
    assert parse_offset(word) == Sentinel(word)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-2",
        "NOW",
        " now",
        "_snapshot",
        "now_snapshot",
        "1_2",
        "0000000000000001_000000000000000a",
        "0000000000000001_0000000000000010 ",
        "0000000000000001_0000000000000010\n",
        "0000000000000001_00000000000000100",
        "0000000000000001_0000000000000011_snapshot",
        "0000000000000001_0000000000000010_snapshot_snapshot",
        "\u0660000000000000001_0000000000000010",
        "0000000000000001,0000000000000010",
    ],
)
def test_what_no_answer_has_given_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_offset(text)


def test_a_cursor_is_the_number_of_the_interval() -> None:
    assert cursor_after(None, CURSOR_EPOCH_S + 7 * CURSOR_INTERVAL_S + 3) == "7"
    assert cursor_after("6", CURSOR_EPOCH_S + 7 * CURSOR_INTERVAL_S) == "7"


@given(echoed=st.integers(0, 10**9), interval=st.integers(0, 10**9))
def test_a_cursor_never_stands_still_and_never_goes_back(echoed: int, interval: int) -> None:
    now_s = CURSOR_EPOCH_S + interval * CURSOR_INTERVAL_S
    assert int(cursor_after(str(echoed), now_s)) > echoed or int(cursor_after(str(echoed), now_s)) == interval > echoed


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "\u0661", "9" * 17])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        cursor_after(text, CURSOR_EPOCH_S)
