from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.lib0 import encode_buf, encode_string
from ydoc_store.yjs.messages import Awareness, QueryAwareness, SyncStep1, SyncStep2, Unknown, Update, encode_awareness

ADDRESS = "team/notes\0k3x9"


def decode(frame: bytes) -> wire.Addressed | wire.Ping | wire.Pong:
    return wire.decode_frame(frame, address_bytes_max=640)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("00 00 01 00", SyncStep1(b"\x00")),
        ("00 01 02 0000", SyncStep2(b"\x00\x00")),
        ("00 02 02 0000", Update(b"\x00\x00")),
        ("01 01 00", Awareness(b"\x00")),
        ("03", QueryAwareness()),
        ("02 00 03 616263", wire.Token("abc", None)),
        ("02 00 03 616263 05 342e382e30", wire.Token("abc", "4.8.0")),
        ("05 02 6869", wire.Stateless("hi")),
        ("07", wire.Close()),
    ],
)
def test_the_bytes_behind_the_address_are_those_of_stock_clients(body: str, message: object) -> None:
    assert decode(wire.encode_address(ADDRESS) + bytes.fromhex(body)) == wire.Addressed(ADDRESS, message)  # type: ignore[arg-type]


def test_ping_and_pong_are_whole_frames_without_an_address() -> None:
    assert decode(b"\x09") == wire.Ping()
    assert decode(b"\x0a") == wire.Pong()


@pytest.mark.parametrize("kind", [4, 6, 8, 9, 127])
def test_what_only_servers_say_is_unknown_from_a_client(kind: int) -> None:
    assert decode(encode_string("a") + bytes((kind,)) + b"anything") == wire.Addressed("a", Unknown(kind))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x05abc",
        encode_string("a"),
        encode_string("a") + b"\x00",
        encode_string("a") + b"\x00\x03" + encode_buf(b""),
        encode_string("a") + encode_awareness(b"\x00") + b"\x00",
        encode_string("a") + b"\x02\x01" + encode_string("a client denies nobody"),
        encode_string("a") + b"\x07\x00",
        b"\x02\xff\xff\x03",
        encode_string("x" * 641) + b"\x03",
    ],
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(InvalidFrame):
        decode(frame)


def test_the_document_is_what_stands_before_the_session() -> None:
    assert wire.name_of(ADDRESS) == "team/notes"
    assert wire.name_of("plain") == "plain"


@pytest.mark.parametrize(
    ("version", "answers"),
    [("4.8.0", True), ("5", True), ("10.1.0", True), ("3.9.9", False), ("", False), (None, False), ("four", False)],
)
def test_only_providers_of_version_4_and_newer_are_pinged(version: str | None, answers: bool) -> None:
    assert wire.Token("", version).answers_ping is answers


def test_what_the_server_says_reads_as_stock_clients_read_it() -> None:
    assert wire.encode_granted(writes=True) == b"\x02\x02" + encode_string("read-write")
    assert wire.encode_granted(writes=False) == b"\x02\x02" + encode_string("readonly")
    assert wire.encode_denied("rätsel", "no") == b"\x02\x01" + encode_string("rätsel") + b"\x02no"
    assert wire.encode_token_wanted() == b"\x02\x00"
    assert wire.encode_close("over") == b"\x07" + encode_string("over")
    assert wire.encode_sync_status(accepted=True) == b"\x08\x01"
    assert wire.encode_sync_status(accepted=False) == b"\x08\x00"
    assert wire.encode_stateless("words") == b"\x05" + encode_string("words")
