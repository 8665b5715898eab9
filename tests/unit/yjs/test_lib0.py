from __future__ import annotations

import pytest

from ydoc_store.yjs.lib0 import (
    JSON_VALUES_MAX,
    UINT_MAX,
    Malformed,
    Reader,
    check_json,
    encode_buf,
    encode_string,
    encode_uint,
    frame,
    frames,
    join_frames,
    json_nesting,
    utf16_length,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (2**31, "8080808008"),
        (2**32 - 1, "ffffffff0f"),
        (UINT_MAX, "ffffffffffffff0f"),
    ],
)
def test_an_integer_reads_as_it_was_written(value: int, encoded: str) -> None:
    assert encode_uint(value).hex() == encoded
    reader = Reader(bytes.fromhex(encoded))
    assert reader.uint() == value
    assert reader.done


@pytest.mark.parametrize("value", [-1, UINT_MAX + 1])
def test_an_integer_that_javascript_cannot_hold_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="no varUint"):
        encode_uint(value)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "truncated"),
        ("80", "truncated"),
        ("ffffff", "truncated"),
        ("8000", "overlong"),
        ("ff80808000", "overlong"),
        ("ffffffffffffff10", "too large"),
        ("808080808080808001", "too large"),
        ("ff" * 100, "too large"),
    ],
)
def test_an_integer_that_is_not_canonical_is_refused(encoded: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        Reader(bytes.fromhex(encoded)).uint()


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("00", 0),
        ("40", 0),
        ("3f", 63),
        ("7f", -63),
        ("8001", 64),
        ("c001", -64),
        ("bfffffffffffff1f", UINT_MAX),
        ("ffffffffffffff1f", -UINT_MAX),
    ],
)
def test_a_signed_integer_reads_as_lib0_writes_it(encoded: str, value: int) -> None:
    reader = Reader(bytes.fromhex(encoded))
    assert reader.int_() == value
    assert reader.done


@pytest.mark.parametrize("encoded", ["", "80", "8000", "80808080808080 8001", "bfffffffffffff20"])
def test_a_signed_integer_that_is_not_canonical_is_refused(encoded: str) -> None:
    with pytest.raises(Malformed):
        Reader(bytes.fromhex(encoded)).int_()


def test_a_reader_stops_at_its_end_although_the_bytes_go_on() -> None:
    reader = Reader(b"\x01\x02abc", 1, 4)
    assert reader.buf() == b"ab"
    assert reader.done
    with pytest.raises(Malformed, match="truncated"):
        reader.byte()
    with pytest.raises(Malformed, match="truncated"):
        reader.uint()
    with pytest.raises(Malformed, match="past the end"):
        Reader(b"\x03abc", 0, 3).buf()
    with pytest.raises(Malformed, match="truncated"):
        Reader(b"\x80\x01", 0, 1).uint()


def test_a_string_is_valid_utf8_or_refused() -> None:
    assert Reader(encode_string("é漢😀\0")).string() == "é漢😀\0"
    for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"):
        with pytest.raises(Malformed, match="UTF-8"):
            Reader(encode_buf(raw)).string()


def test_a_lone_surrogate_is_not_written() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_string("\ud83d")


@pytest.mark.parametrize(("text", "units"), [("", 0), ("abc", 3), ("é", 1), ("漢字", 2), ("a😀b", 4)])
def test_length_is_counted_in_utf16_units(text: str, units: int) -> None:
    assert utf16_length(text) == units


def test_frames_give_back_the_updates_that_were_joined() -> None:
    updates = [b"\x00\x00", b"", b"x" * 300]
    joined = join_frames(updates)
    assert joined == b"".join(frame(update) for update in updates)
    assert list(frames(joined)) == updates
    assert list(frames(b"")) == []


def test_a_frame_that_is_cut_short_is_refused_after_the_whole_ones() -> None:
    found = frames(join_frames([b"ab", b"cd"])[:-1])
    assert next(found) == b"ab"
    with pytest.raises(Malformed, match="past the end"):
        next(found)


VALUES = (
    *("7f", "7e", "7d40", "7c00000000", "7b0000000000000000", "7aff00000000000000", "79", "78", "770161", "740100"),
    *("7500", "7600", "75027e79", "7601016178", "760101617601016275027f7500"),
)


@pytest.mark.parametrize("encoded", VALUES)
def test_a_value_of_each_kind_is_stepped_over_to_its_end(encoded: str) -> None:
    reader = Reader(bytes.fromhex(encoded) + b"\xee")
    reader.skip_any()
    assert reader.byte() == 0xEE
    for cut in range(1, len(bytes.fromhex(encoded))):
        with pytest.raises(Malformed):
            Reader(bytes.fromhex(encoded)[:cut]).skip_any()


def test_values_nest_as_deep_as_the_limit_and_no_deeper() -> None:
    Reader(b"\x75\x01" * 5 + b"\x7f").skip_any(5)
    Reader(b"\x76\x01\x01a" * 5 + b"\x7f").skip_any(5)
    with pytest.raises(Malformed, match="nested deeper than 5"):
        Reader(b"\x75\x01" * 6 + b"\x7f").skip_any(5)
    with pytest.raises(Malformed, match="nested deeper than 5"):
        Reader(b"\x75\x01" * 5 + b"\x75\x00").skip_any(5)
    with pytest.raises(Malformed, match="nested deeper"):
        Reader(b"\x75\x01" * 1_000_000).skip_any()


@pytest.mark.parametrize(
    ("text", "nesting"), [("1", 0), ("[]", 1), ('{"a":[{}]}', 3), ('["[[[[", "\\"[[", []]', 2), ('["\\\\", [[]]]', 3)]
)
def test_brackets_in_json_strings_do_not_nest(text: str, nesting: int) -> None:
    assert json_nesting(text) == nesting
    check_json(text, nesting)
    if nesting:
        with pytest.raises(Malformed, match="nested deeper"):
            check_json(text, nesting - 1)


@pytest.mark.parametrize("text", ["", "NaN", "undefined", "[1,]", "1e999", r'"\ud800"', '"\x01"', "'a'", "{", "1 2"])
def test_what_yjs_or_yrs_cannot_parse_is_no_json(text: str) -> None:
    with pytest.raises(Malformed, match="invalid JSON"):
        check_json(text)


def test_json_of_too_many_values_is_refused_before_they_are_built() -> None:
    with pytest.raises(Malformed, match="more than"):
        check_json("[" + "0," * JSON_VALUES_MAX + "0]")


def test_checking_hostile_json_takes_linear_time() -> None:
    """A search for strings that starts anew at each quote would take hours here."""
    with pytest.raises(Malformed):
        check_json('"' + '\\"' * 2_000_000 + "[" * 100)
    with pytest.raises(Malformed):
        check_json("[" * 100 + '"\\' * 2_000_000)
