from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs import messages as m
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import (
    UINT_MAX,
    Malformed,
    Reader,
    check_json,
    encode_buf,
    encode_string,
    encode_uint,
    frames,
    join_frames,
    json_nesting,
)
from ydoc_store.yjs.ranges import decode_state_vector, encode_state_vector

uints = st.integers(0, UINT_MAX) | st.integers(0, 300)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(uints, st.binary(), st.text())
def test_primitives_read_as_they_were_written(number: int, payload: bytes, text: str) -> None:
    reader = Reader(encode_uint(number) + encode_buf(payload) + encode_string(text))
    assert (reader.uint(), reader.buf(), reader.string()) == (number, payload, text)
    assert reader.done


@given(st.binary(max_size=10))
def test_only_the_canonical_bytes_of_an_integer_are_read(data: bytes) -> None:
    reader = Reader(data)
    with suppress(Malformed):
        number = reader.uint()
        assert data.startswith(encode_uint(number))
        assert reader.at == len(encode_uint(number))


@given(st.binary(), st.integers(0, 5), st.integers(0, 5))
def test_a_reader_never_reads_past_its_end(data: bytes, at: int, spare: int) -> None:
    end = max(at, len(data) - spare)
    for read in (Reader.uint, Reader.int_, Reader.string, Reader.buf, Reader.byte, Reader.skip_any):
        reader = Reader(data, at, min(end, len(data)))
        with suppress(Malformed):
            read(reader)
            assert at <= reader.at <= reader.end


@given(st.lists(st.binary()))
def test_frames_give_back_what_was_joined(updates: list[bytes]) -> None:
    assert list(frames(join_frames(updates))) == updates


@given(json_values)
def test_json_is_checked_without_changing_its_meaning(value: object) -> None:
    def nesting(inner: object) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(nesting, inner.values()), default=0)
        if isinstance(inner, list):
            return 1 + max(map(nesting, inner), default=0)
        return 0

    text = json.dumps(value)
    assert json_nesting(text) == nesting(value)


@given(st.text('[]{}",\\1', max_size=30))
def test_text_of_brackets_and_quotes_is_json_or_refused(text: str) -> None:
    try:
        check_json(text, 3)
    except Malformed:
        return
    json.loads(text)
    assert json_nesting(text) <= 3


def encode_message(message: m.Message) -> bytes:
    match message:
        case m.SyncStep1(state_vector):
            return m.encode_sync_step1(state_vector)
        case m.SyncStep2(update):
            return m.encode_sync_step2(update)
        case m.Update(update):
            return m.encode_update(update)
        case m.Awareness(payload):
            return m.encode_awareness(payload)
        case m.QueryAwareness():
            return b"\x03"
        case m.Unknown(kind):
            return encode_uint(kind)


@given(st.binary(max_size=8) | st.tuples(st.binary(max_size=3), st.binary()).map(lambda p: p[0] + encode_buf(p[1])))
@example(b"\x00\x02\x00")
@example(b"\x00\x02\x80\x01" + b"x" * 128)
def test_a_frame_is_its_only_encoding_or_refused(frame: bytes) -> None:
    try:
        message = m.decode_message(frame)
    except InvalidFrame:
        return
    encoded = encode_message(message)
    assert frame.startswith(encoded) if isinstance(message, m.Unknown) else frame == encoded


@given(
    st.lists(
        st.builds(
            AwarenessEntry,
            uints,
            st.integers(0, 2**31 - 1),
            st.none() | st.dictionaries(st.text(), json_values, max_size=3).map(json.dumps),
        ),
        unique_by=lambda entry: entry.client_id,
    )
)
def test_awareness_reads_as_it_was_written(entries: list[AwarenessEntry]) -> None:
    payload = encode_awareness_entries(entries)
    assert decode_awareness(payload, entries_max=100, bytes_max=100_000, json_depth_max=20) == entries


@given(st.binary())
def test_any_bytes_are_awareness_or_refused(payload: bytes) -> None:
    with suppress(InvalidFrame):
        decode_awareness(payload, entries_max=100, bytes_max=1000, json_depth_max=4)


@given(st.dictionaries(uints, st.integers(0, 2**31 - 1)))
def test_a_state_vector_reads_as_it_was_written(vector: dict[int, int]) -> None:
    assert decode_state_vector(encode_state_vector(vector), clients_max=len(vector)) == vector
