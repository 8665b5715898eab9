"""Frames that a peer may send and must not harm anybody with: each with what the sender is told, and why it is here.

Updates that are wrong in themselves are in `tests/unit/yjs/corpus.py`; here are frames around them, updates that
only a document's content makes wrong, state vectors and awareness.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_string, encode_uint
from ydoc_store.yjs.messages import encode_awareness, encode_sync_step1, encode_sync_step2, encode_update
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

SECRET: Final = "sesame-öffne-dich"
"""Stands in what is refused wherever text can stand: neither the database nor the log may hold it afterwards."""

NOBODY: Final = 4_000_000_007
"""A client id that nobody in the tests has."""


class Frame(NamedTuple):
    name: str
    frame: bytes | str
    code: int | None
    """The close code, or None where the frame is ignored and the connection stays."""
    reason: str
    """Why it is in the corpus."""


def _update(text: str = SECRET, client: int = NOBODY, clock: int = 0) -> bytes:
    """A good update: a text in the root `text`."""
    item = b"\x04\x01" + encode_string("text") + encode_string(text)
    return b"\x01\x01" + encode_uint(client) + encode_uint(clock) + item + b"\x00"


def _runs(count: int) -> bytes:
    """`count` GC runs of one clock each, under one client id."""
    return b"\x01" + encode_uint(count) + encode_uint(NOBODY) + b"\x00" + b"\x00\x01" * count + b"\x00"


def _clients(count: int) -> bytes:
    blocks = b"".join(b"\x01" + encode_uint(NOBODY + number) + b"\x00\x00\x01" for number in range(count))
    return encode_uint(count) + blocks + b"\x00"


def _deletes(count: int) -> bytes:
    """One long run, and `count` ranges in it deleted."""
    ranges = b"".join(encode_uint(2 * number) + b"\x01" for number in range(count))
    run = b"\x01\x01" + encode_uint(NOBODY) + b"\x00\x00" + encode_uint(2 * count)
    return run + b"\x01" + encode_uint(NOBODY) + encode_uint(count) + ranges


def _vector(count: int) -> bytes:
    return encode_uint(count) + b"".join(encode_uint(number) + b"\x01" for number in range(count))


def _presence(*entries: tuple[int, int, str]) -> bytes:
    return encode_awareness(encode_awareness_entries(AwarenessEntry(*entry) for entry in entries))


FRAMES: Final = (
    # Frames
    Frame("an empty frame", b"", 1008, "it has no type"),
    Frame("a text frame", SECRET, 1003, "only binary frames are spoken"),
    Frame("an empty text frame", "", 1003, "likewise"),
    Frame("an unknown type", b"\x63" + SECRET.encode(), None, "a newer client's message: ignored and counted"),
    Frame("the greatest type", b"\xff\xff\xff\xff\xff\xff\xff\x0f", None, "likewise"),
    Frame("a Hocuspocus frame", encode_string("notes") + b"\x00\x00\x01\x00", None, "the other dialect's address"),
    Frame("PermissionDenied from a client", b"\x02\x00" + encode_string(SECRET), None, "a server's word"),
    Frame("a type that is cut", b"\x80", 1008, "truncated varint"),
    Frame("an overlong type", b"\x80\x00", 1008, "overlong varint"),
    Frame("a type over 2**53", b"\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1008, "overflowing varint"),
    Frame("sync without a step", b"\x00", 1008, "truncated"),
    Frame("sync step 3", b"\x00\x03\x00", 1008, "an unknown step"),
    Frame("an update without a length", b"\x00\x02", 1008, "truncated"),
    Frame("an update shorter than it says", b"\x00\x02\x7f" + _update(), 1008, "a length past the end"),
    Frame("an update of 2**53 - 1 bytes, it says", b"\x00\x02\xff\xff\xff\xff\xff\xff\xff\x0f", 1008, "likewise"),
    Frame("an overlong length", b"\x00\x02\x82\x00\x00\x00", 1008, "overlong varint"),
    Frame("bytes behind an update", encode_update(_update()) + b"\x00", 1008, "trailing bytes"),
    Frame("two messages in one frame", encode_update(_update()) * 2, 1008, "a stock client reads the first one only"),
    Frame("bytes behind a question for presence", b"\x03\x00", 1008, "trailing bytes"),
    # Updates, by what they bring
    Frame("an update of nothing at all", encode_update(b""), 4400, "empty is not even the empty update"),
    Frame("client id 2**53", encode_update(_update()[:2] + b"\x80" * 7 + b"\x10" + b"\x00\x00\x01\x00"), 4400, "range"),
    Frame("a reserved client id", encode_update(marker_update(RESERVED_CLIENT_ID_MIN + 7)), 4409, "another's marker"),
    Frame(
        "items under a reserved client id", encode_update(_update(client=RESERVED_CLIENT_ID_MIN + 7)), 4409, "likewise"
    ),
    Frame("a clock of 2**31", encode_update(_update(clock=2**31)), 4400, "yrs keeps clocks in 32 bits"),
    Frame("clock and length over 2**31", encode_update(_update(clock=2**31 - 5)), 4400, "likewise"),
    Frame("too many structs", encode_update(_runs(100_001)), 4413, "YDOC_UPDATE_STRUCTS_MAX"),
    Frame("too many clients", encode_sync_step2(_clients(10_001)), 4413, "YDOC_UPDATE_CLIENTS_MAX"),
    Frame("too many deletes", encode_update(_deletes(100_001)), 4413, "YDOC_UPDATE_DELETE_RANGES_MAX"),
    Frame("a megabyte too much", encode_update(bytes(1024 * 1024 + 64)), 4413, "YDOC_UPDATE_BYTES_MAX"),
    Frame("a delete of what never came", encode_update(b"\x00\x01\x07\x01\x05\x01"), 1012, "sync again, bring it"),
    Frame(
        "a delete of all that somebody will ever write",
        encode_update(b"\x00\x01\x07\x01\x00\xff\xff\xff\xff\x07"),
        1012,
        "10 bytes that erase a client's work in Yjs and yrs",
    ),
    # State vectors
    Frame("a state vector that is cut", encode_sync_step1(b"\x01\x05"), 1008, "truncated"),
    Frame("a state vector that goes on", encode_sync_step1(b"\x00\x00"), 1008, "trailing bytes"),
    Frame("a client twice in a state vector", encode_sync_step1(b"\x02\x05\x01\x05\x02"), 1008, "which one counts?"),
    Frame(
        "a state vector of 2**53 clients", encode_sync_step1(b"\xff" * 7 + b"\x0f"), 1008, "counted before it is read"
    ),
    Frame("a state vector of 60,000 clients", encode_sync_step1(_vector(60_000)), 1008, "some 10,000 more than anyone"),
    Frame("a clock of 2**31 in a state vector", encode_sync_step1(b"\x01\x05\x80\x80\x80\x80\x08"), 1008, "range"),
    Frame(
        "another history's marker in a state vector",
        encode_sync_step1(b"\x01" + encode_uint(RESERVED_CLIENT_ID_MIN + 7) + b"\x01"),
        4409,
        "it must reload and never merge",
    ),
    # Awareness
    Frame("awareness that is cut", encode_awareness(b"\x01\x01"), 1008, "truncated"),
    Frame("awareness of 2**53 editors", encode_awareness(b"\xff" * 7 + b"\x0f"), 1008, "counted before it is read"),
    Frame("bytes behind awareness", encode_awareness(b"\x00\x00"), 1008, "trailing bytes"),
    Frame("awareness of invalid UTF-8", encode_awareness(b"\x01\x01\x01\x01\xff"), 1008, "no string"),
    Frame("awareness that is no JSON", _presence((1, 1, "{" + SECRET)), 1008, "every reader parses it"),
    Frame("awareness that is NaN", _presence((1, 1, '{"a":NaN}')), 1008, "Python reads it, JSON.parse throws"),
    Frame("awareness that is a list", _presence((1, 1, "[]")), 1008, "a state is an object or null"),
    Frame("a clock of 2**50 with null", _presence((NOBODY, 2**50, "null")), 1008, "it shuts its owner out for good"),
    Frame("an awareness clock of 2**31", _presence((NOBODY, 2**31, "{}")), 1008, "likewise"),
    Frame("an editor twice", _presence((1, 1, "{}"), (1, 2, "{}")), 1008, "which one counts?"),
    Frame("101 editors", _presence(*((number, 1, "{}") for number in range(101))), 1008, "YDOC_AWARENESS_ENTRIES_MAX"),
    Frame("100,000 editors", _presence(*((number, 1, "{}") for number in range(100_000))), 1008, "by bytes, too"),
    Frame("awareness nested 65 deep", _presence((1, 1, '{"a":' + "[" * 64 + "]" * 64 + "}")), 1008, "readers recurse"),
    Frame(
        "awareness nested 8,000 deep", _presence((1, 1, '{"a":' + "[" * 8_000 + "]" * 8_000 + "}")), 1008, "likewise"
    ),
    Frame("awareness over 16 KiB", _presence((1, 1, '{"a":"' + "x" * 16_384 + '"}')), 1008, "YDOC_AWARENESS_BYTES_MAX"),
)
