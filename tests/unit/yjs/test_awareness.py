from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import UINT_MAX, encode_string, encode_uint


def decode(payload: bytes) -> list[AwarenessEntry]:
    return decode_awareness(payload, entries_max=3, bytes_max=1000, json_depth_max=4)


def payload_of(*entries: tuple[int, int, str]) -> bytes:
    return encode_uint(len(entries)) + b"".join(
        encode_uint(client_id) + encode_uint(clock) + encode_string(text) for client_id, clock, text in entries
    )


def test_entries_come_back_as_they_were_written() -> None:
    entries = [
        AwarenessEntry(1, 0, "{}"),
        AwarenessEntry(UINT_MAX, 2**31 - 1, '{"user": {"name": "Zoë 😀", "cursor": [1, 2]}}'),
        AwarenessEntry(300, 7, None),
    ]
    assert decode(encode_awareness_entries(entries)) == entries
    assert decode(encode_awareness_entries([])) == []


def test_one_that_is_gone_is_written_as_null() -> None:
    assert encode_awareness_entries([AwarenessEntry(5, 2, None)]) == b"\x01\x05\x02\x04null"
    assert decode(payload_of((5, 2, " null "))) == [AwarenessEntry(5, 2, None)]


def test_a_name_cut_inside_an_emoji_is_passed_on() -> None:
    text = r'{"name":"\ud83d"}'
    assert decode(payload_of((1, 1, text))) == [AwarenessEntry(1, 1, text)]


@pytest.mark.parametrize(
    "text", ["", "1", "[]", '"a"', "true", "undefined", "{", '{"a":NaN}', '{"a":-1e999}', "{'a':1}", '{"a":1}}']
)
def test_a_state_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame):
        decode(payload_of((1, 1, text)))


def test_a_state_nests_as_deep_as_the_limit_and_no_deeper() -> None:
    assert decode(payload_of((1, 1, '{"a":[[[]]]}')))
    assert decode(payload_of((1, 1, '{"a":"[[[[[["}')))
    with pytest.raises(InvalidFrame, match="nested deeper"):
        decode(payload_of((1, 1, '{"a":[[[[]]]]}')))


def test_a_deep_state_within_the_bytes_does_not_recurse() -> None:
    with pytest.raises(InvalidFrame, match="nested deeper"):
        decode_awareness(
            payload_of((1, 1, '{"a":' + "[" * 1_000_000)), entries_max=1, bytes_max=2_000_000, json_depth_max=4
        )


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (payload_of(*((client, 1, "{}") for client in range(4))), "4 editors, at most 3"),
        (encode_uint(100_000), "100000 editors, at most 3"),
        (payload_of((1, 1, '{"a":"' + "x" * 1000 + '"}')), "at most 1000"),
        (payload_of((1, 2**31, "{}")), "a clock too large"),
        (payload_of((1, 2**50, "null")), "a clock too large"),
        (payload_of((1, 1, "{}"), (1, 2, "{}")), "one editor twice"),
        (payload_of((1, 1, "{}")) + b"\x00", "bytes behind"),
        (payload_of((1, 1, "{}"))[:-1], "past the end"),
        (b"", "truncated"),
        (b"\x01\xff\xff\xff\xff\xff\xff\xff\x10\x01\x02{}", "integer too large"),
        (b"\x01\x01\x01\x02{\xff", "UTF-8"),
    ],
)
def test_hostile_awareness_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(InvalidFrame, match=reason):
        decode(payload)
