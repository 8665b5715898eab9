"""What the headers of the Durable Streams protocols may say; streams and documents read them by the same code."""

from __future__ import annotations

import hashlib

import pytest

from ydoc_store.errors import InvalidRequest
from ydoc_store.http.protocol_headers import (
    PRODUCER_ID_BYTES_TAKEN_MAX,
    read_closed,
    read_headers,
    read_producer,
    read_text,
)
from ydoc_store.storage.guards import PRODUCER_ID_BYTES_MAX, Producer

WHOLE = {b"producer-id": "p-é".encode(), b"producer-epoch": b"0", b"producer-seq": b"12"}


@pytest.mark.parametrize("name", [*WHOLE, b"stream-seq", b"stream-closed", b"stream-ttl", b"content-type"])
def test_a_header_of_the_protocol_that_comes_twice_is_refused_by_its_name(name: bytes) -> None:
    for second in (b"1", b"2"):
        with pytest.raises(InvalidRequest, match=name.decode()):
            read_headers([(b"host", b"h"), (name, b"1"), (b"accept", b"*/*"), (name, second)])


def test_other_headers_may_come_twice() -> None:
    sent = [
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"x-forwarded-for", b"1"),
        (b"x-forwarded-for", b"2"),
        *WHOLE.items(),
    ]
    assert read_headers(sent)[b"producer-seq"] == b"12"


def test_a_producer_says_all_of_who_it_is_or_nothing() -> None:
    assert read_producer(WHOLE) == Producer("p-é", 0, 12)
    assert read_producer({}) is None
    for left_out in WHOLE:
        with pytest.raises(InvalidRequest):
            read_producer({name: value for name, value in WHOLE.items() if name != left_out})


@pytest.mark.parametrize("number", [b"", b"-1", b"+1", b"1.0", b"1abc", b"1e3", b" 1", b"9007199254740992", b"9" * 17])
def test_a_producers_number_that_is_none_is_refused(number: bytes) -> None:
    for name in (b"producer-epoch", b"producer-seq"):
        with pytest.raises(InvalidRequest):
            read_producer(WHOLE | {name: number})


def test_a_producers_id_that_is_longer_than_what_is_kept_is_kept_as_its_hash() -> None:
    for size in (1, PRODUCER_ID_BYTES_MAX):
        assert read_producer(WHOLE | {b"producer-id": b"p" * size}) == Producer("p" * size, 0, 12)
    for size in (PRODUCER_ID_BYTES_MAX + 1, PRODUCER_ID_BYTES_TAKEN_MAX):
        kept = "sha256:" + hashlib.sha256(b"p" * size).hexdigest()
        assert read_producer(WHOLE | {b"producer-id": b"p" * size}) == Producer(kept, 0, 12)
    for bad in (b"", b"p" * (PRODUCER_ID_BYTES_TAKEN_MAX + 1), b"\xff", b"a\0b"):
        with pytest.raises(InvalidRequest):
            read_producer(WHOLE | {b"producer-id": bad})


def test_what_is_no_text_is_refused_and_only_true_closes() -> None:
    with pytest.raises(InvalidRequest):
        read_text({b"stream-seq": b"\xff"}, b"stream-seq")
    assert read_text({}, b"stream-seq") is None
    assert [read_closed({b"stream-closed": value}) for value in (b"true", b"True", b"false", b"1", b"")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not read_closed({})
