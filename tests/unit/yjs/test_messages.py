from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_string
from ydoc_store.yjs.messages import (
    KEEPALIVE,
    Awareness,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
    decode_message,
    decode_sync,
    encode_awareness,
    encode_permission_denied,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)

PAYLOADS = [b"", b"\x00\x00", b"x" * 127, b"x" * 128, b"x" * 100_000]


@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_a_frame_says_what_was_put_into_it(payload: bytes) -> None:
    assert decode_message(encode_sync_step1(payload)) == SyncStep1(payload)
    assert decode_message(encode_sync_step2(payload)) == SyncStep2(payload)
    assert decode_message(encode_update(payload)) == Update(payload)
    assert decode_message(encode_awareness(payload)) == Awareness(payload)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("00 00 01 00", SyncStep1(b"\x00")),
        ("00 01 02 0000", SyncStep2(b"\x00\x00")),
        ("00 02 02 0000", Update(b"\x00\x00")),
        ("01 01 00", Awareness(b"\x00")),
        ("03", QueryAwareness()),
    ],
)
def test_the_bytes_are_those_of_stock_clients(frame: str, message: Message) -> None:
    assert decode_message(bytes.fromhex(frame)) == message


def test_the_keepalive_is_awareness_of_nobody() -> None:
    assert encode_awareness(b"\x00") == KEEPALIVE


def test_a_refusal_carries_its_reason() -> None:
    assert encode_permission_denied("rätsel") == b"\x02\x00" + encode_string("rätsel")


@pytest.mark.parametrize("kind", [2, 4, 9, 127, 300])
def test_an_unknown_type_is_told_and_its_bytes_are_left_alone(kind: int) -> None:
    encoded = kind.to_bytes(1) if kind < 128 else b"\xac\x02"
    assert decode_message(encoded) == Unknown(kind)
    assert decode_message(encoded + b"\xff\xff") == Unknown(kind)


MALFORMED = (
    *("", "80", "8000", "00", "00 00", "00 02", "00 02 05 00", "00 02 80", "00 02 8200 0000", "00 03 00"),
    *("00 8000 00", "01", "01 05 00", "01 ffffffffffffff7f"),
)


@pytest.mark.parametrize("frame", MALFORMED)
def test_a_frame_that_is_cut_short_or_malformed_is_refused(frame: str) -> None:
    with pytest.raises(InvalidFrame, match="not a message"):
        decode_message(bytes.fromhex(frame))


@pytest.mark.parametrize("frame", ["00 00 01 00 00", "00 02 02 0000 00", "01 01 00 00", "03 00"])
def test_bytes_behind_the_message_are_refused(frame: str) -> None:
    with pytest.raises(InvalidFrame, match="behind the message"):
        decode_message(bytes.fromhex(frame))


def test_a_sync_message_reads_behind_any_prefix() -> None:
    frame = encode_string("room") + encode_update(b"\x00\x00")
    reader = Reader(frame)
    assert reader.string() == "room"
    assert reader.uint() == 0
    assert decode_sync(reader) == Update(b"\x00\x00")
    assert reader.done


def test_an_unknown_sync_step_is_malformed() -> None:
    with pytest.raises(Malformed, match="unknown sync step 3"):
        decode_sync(Reader(b"\x03\x00"))


def test_messages_of_different_types_differ_although_they_carry_the_same() -> None:
    assert len({SyncStep1(b""), SyncStep2(b""), Update(b""), Awareness(b"")}) == 4
