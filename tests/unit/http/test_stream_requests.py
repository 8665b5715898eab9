"""What requests of the base protocol may say; whatever cannot be right is refused before anything is looked up."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.errors import InvalidRequest
from ydoc_store.http.stream_requests import (
    TTL_S_MAX,
    flatten_json,
    is_text,
    read_content_type,
    read_offset,
    read_parameters,
    read_settings,
    same_type,
)
from ydoc_store.http.tokens import Sentinel, Token

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


# JSON


@given(st.lists(st.lists(JSON_VALUES, min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_many_bodies_bring_reads_as_one_array_of_their_messages(bodies: list[list[object]]) -> None:
    stored = [flatten_json(orjson.dumps(body)) for body in bodies]
    assert orjson.loads(b"[" + b",".join(stored) + b"]") == [message for body in bodies for message in body]


@given(JSON_VALUES.filter(lambda value: not isinstance(value, list)))
def test_a_body_that_is_no_array_is_one_message(value: object) -> None:
    assert orjson.loads(b"[" + flatten_json(orjson.dumps(value)) + b"]") == [value]


def test_one_level_of_an_array_is_taken_away_and_what_was_written_stays_as_it_was() -> None:
    assert flatten_json(b' [ [1, 2] , {"a" : 1.50} ]\r\n') == b'[1, 2] , {"a" : 1.50}'
    assert flatten_json(b"\n 12345678901234567890.0100 ") == b"12345678901234567890.0100"


@pytest.mark.parametrize("body", [b"[]", b" [ \n] "])
def test_an_empty_array_has_nothing_to_append_and_begins_an_empty_stream(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        flatten_json(body)
    assert flatten_json(body, may_be_empty=True) == b""


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,]", b"1 2", b"[1],[2]", b"NaN", b"'a'", b"\xff", b'"\xff"', b"\xef\xbb\xbf1", b"[" * 5_000],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        flatten_json(body)


# Headers


@pytest.mark.parametrize("ttl", ["0", "1", "3600", str(TTL_S_MAX)])
def test_a_ttl_is_a_whole_number_of_seconds(ttl: str) -> None:
    assert read_settings({b"stream-ttl": ttl.encode()}).ttl_s == int(ttl)


@pytest.mark.parametrize("ttl", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "x", str(TTL_S_MAX + 1), "9" * 30, "\u0661"])
def test_a_ttl_that_is_none_is_refused(ttl: str) -> None:
    with pytest.raises(InvalidRequest):
        read_settings({b"stream-ttl": ttl.encode()})


@pytest.mark.parametrize(
    "text", ["2030-01-02T03:04:05Z", "2030-01-02t03:04:05.000z", "2030-01-02T05:04:05.000000000+02:00"]
)
def test_a_moment_is_one_of_rfc_3339_and_keeps_its_text(text: str) -> None:
    settings = read_settings({b"stream-expires-at": text.encode()})
    assert settings.expires_at == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert settings.expires_text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2030-01-02",
        "2030-01-02T03:04:05",
        "20300102T030405Z",
        "2030-13-02T03:04:05Z",
        "2030-01-02T03:04:60Z",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
    ],
)
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_settings({b"stream-expires-at": text.encode()})


def test_a_stream_ends_in_one_way() -> None:
    with pytest.raises(InvalidRequest):
        read_settings({b"stream-ttl": b"1", b"stream-expires-at": b"2030-01-02T03:04:05Z"})


@pytest.mark.parametrize(
    "text", ["text", "text/", "/plain", "a b/c", "text/plain; \0", "text/plain\xe9", "x/" + "y" * 300]
)
def test_a_content_type_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_content_type({b"content-type": text.encode()})


def test_a_type_is_compared_without_its_case_and_its_parameters() -> None:
    assert read_content_type({b"content-type": b" Text/Plain; charset=utf-8 "}) == "Text/Plain; charset=utf-8"
    assert same_type("Text/Plain; charset=utf-8", "text/plain")
    assert not same_type("text/html", "text/plain")
    assert read_content_type({}) is read_content_type({b"content-type": b" "}) is None
    assert [is_text(kind) for kind in ("text/csv", "application/json", "application/x-ndjson", "image/png")] == [
        True,
        True,
        False,
        False,
    ]


# Parameters


def test_a_parameter_is_given_once_and_others_are_no_concern() -> None:
    assert read_parameters(b"offset=-1&x=1&x=2", "offset", "live") == ["-1", None]
    assert read_parameters(b"offset=", "offset") == [""]
    with pytest.raises(InvalidRequest):
        read_parameters(b"offset=a&offset=a", "offset")


def test_a_reader_stands_at_the_beginning_at_the_end_or_at_a_token() -> None:
    assert read_offset(None) is read_offset("-1") is Sentinel.BEGINNING
    assert read_offset("now") is Sentinel.NOW
    assert read_offset(str(Token(2, 7))) == Token(2, 7)
    for other in ("snapshot", f"{Token(2, 7)}_snapshot", "", "0", "-2"):
        with pytest.raises(InvalidRequest):
            read_offset(other)
