"""Updates that every reader of updates must survive, by name: hostile ones, and honest ones of each kind.

Written as hex with spaces between the parts, so that one can see what is wrong with each.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Refused(NamedTuple):
    name: str
    update: bytes
    reason: str
    """A part of the message with which it is refused."""


class Accepted(NamedTuple):
    name: str
    update: bytes
    structs: list[tuple[int, int, int]]
    deletes: list[tuple[int, int, int]]


def _refused(name: str, hexadecimal: str, reason: str) -> Refused:
    return Refused(name, bytes.fromhex(hexadecimal), reason)


def _accepted(
    name: str,
    hexadecimal: str,
    structs: list[tuple[int, int, int]],
    deletes: list[tuple[int, int, int]] | None = None,
) -> Accepted:
    return Accepted(name, bytes.fromhex(hexadecimal), structs, deletes or [])


def one_item(info_and_content: str) -> str:
    """An update with one item of client 1 at clock 0 in the root type "t", as hex; the content follows the info."""
    info, content = info_and_content.split(maxsplit=1)
    return f"01 01 01 00 {info} 01 0174 {content} 00"


def nested_any(depth: int) -> bytes:
    """An item whose Any content is `depth` arrays around an undefined."""
    return bytes.fromhex("01 01 01 00 08 01 0174 01") + b"\x75\x01" * depth + b"\x7f\x00"


def nested_types(depth: int) -> bytes:
    """`depth` arrays, each in the one before, around an empty one in a root type."""
    count = (depth + 1).to_bytes(1) if depth < 0x7F else bytes(((depth + 1) & 0x7F | 0x80, (depth + 1) >> 7))
    update = b"\x01" + count + bytes.fromhex("01 00 07 01 0174 00")
    for clock in range(depth):
        parent = clock.to_bytes(1) if clock < 0x80 else bytes((clock & 0x7F | 0x80, clock >> 7))
        update += b"\x07\x00\x01" + parent + b"\x00"
    return update + b"\x00"


V2_UPDATES: Final = tuple(
    bytes.fromhex(update)
    for update in (
        "00000000000001000000000000",  # an empty document
        "0000028505000001040502746141000101000001010000",  # a first character
        "000003c5050001000001840301620100000001010100",  # a typed character
        "00000000000001000000000001c502010000",  # an erased character
        "000003c5050001000003010084050274624100010100010101020001c502010000",  # the document
    )
)
"""As Yjs's updateV2 event and encodeStateAsUpdateV2 give them."""

REFUSED: Final = (
    _refused("nothing at all", "", "truncated"),
    _refused("no delete set", "00", "truncated"),
    _refused("trailing byte", "00 00 00", "bytes behind its end"),
    _refused("a client without structs", "01 00 01 00 00", "without structs"),
    _refused("a client without structs that panics yrs", "01 00 01 8c01 00 01", "without structs"),
    _refused("more structs than bytes", "01 ffffffffffffff0f 01 00 00 01 00", "a count past the end"),
    _refused("more delete ranges than bytes", "00 01 01 ffffffffffffff0f 00 01", "a count past the end"),
    _refused("overlong client id", "01 01 8100 00 00 01 00", "overlong"),
    _refused("overlong clock in a typed string", "01 01 01 8500 84 0104 01 61 00", "overlong"),
    _refused("client id 2**53", "01 01 8080808080808010 00 00 01 00", "integer too large"),
    _refused("an integer of nine bytes", "01 01 808080808080808001 00 00 01 00", "integer too large"),
    _refused("a clock of 2**31", "01 01 01 8080808008 00 01 00", "a clock too large"),
    _refused("a length that ends at 2**31", "01 01 01 01 00 ffffffff07 00", "a clock too large"),
    _refused("a Skip past the last clock", "01 01 01 01 0a ffffffff07 00", "a clock too large"),
    _refused("a delete range past the last clock", "00 01 01 01 ffffffff07 01", "a clock too large"),
    _refused("an origin at clock 2**31", "01 01 01 00 84 02 8080808008 01 61 00", "a clock too large"),
    _refused("a client twice", "02 01 01 00 00 01 01 01 01 00 01 00", "a client twice"),
    _refused("a client twice in the delete set", "00 02 01 01 00 01 01 01 03 01", "a client twice"),
    _refused("an empty GC", "01 01 01 00 00 00 00", "an empty struct"),
    _refused("an empty Skip", "01 01 01 00 0a 00 00", "an empty struct"),
    _refused("an empty deleted run, which Yjs throws on", one_item("01 00"), "an empty struct"),
    _refused("an empty string, which yrs drops", one_item("04 00"), "an empty struct"),
    _refused("an empty Any", one_item("08 00"), "an empty struct"),
    _refused("an empty delete range", "00 01 01 01 05 00", "an empty delete range"),
    _refused("an empty delete range behind another", "00 01 01 02 05 01 06 00", "an empty delete range"),
    _refused("a GC with flags, which yrs takes for an item", "01 01 01 01 80 0100 01 00", "unknown kind of content 0"),
    _refused("a GC with a parent key", "01 01 01 00 20 01 0174 016b 01 00", "unknown kind of content"),
    _refused("a Skip with flags", "01 01 01 05 8a 0100 01 00", "unknown kind of content"),
    _refused("its own origin", "01 01 01 00 84 0100 01 61 00", "its own future"),
    _refused("its own right origin", "01 01 01 03 c4 0102 0103 01 61 00", "its own future"),
    _refused("a parent in its own future", "01 01 01 00 04 00 0107 01 61 00", "its own future"),
    _refused("an origin in the middle of its future", "01 01 01 07 84 017f 01 61 00", "its own future"),
    _refused("an unknown kind of parent", "01 01 01 00 04 02 0200 01 61 00", "unknown kind of parent"),
    _refused("JSON content, which yrs cannot read", one_item("02 01 0131"), "before Yjs 13"),
    _refused("a move, which only yrs knows", one_item("0b 00 0000"), "unknown kind of content 11"),
    _refused("kind of content 31", one_item("1f 00"), "unknown kind of content 31"),
    _refused("kind of type 7", one_item("07 07"), "unknown kind of type"),
    _refused("kind of type 15", one_item("07 0f"), "unknown kind of type"),
    _refused("an XmlHook, whose name yrs does not read", one_item("07 05 0168"), "an XmlHook"),
    _refused("a string past the end", one_item("04 7f 6161"), "past the end"),
    _refused("a typed string one byte short", "01 01 01 05 84 0104 02 61 00", "truncated"),
    _refused("a typed string one byte long", "01 01 01 05 84 0104 01 61 61 00", "truncated"),
    _refused("invalid UTF-8", one_item("04 01 ff"), "invalid UTF-8"),
    _refused("overlong UTF-8", one_item("04 02 c080"), "invalid UTF-8"),
    _refused("a surrogate in UTF-8", one_item("04 03 eda080"), "invalid UTF-8"),
    _refused("UTF-8 beyond Unicode", one_item("04 04 f4908080"), "invalid UTF-8"),
    _refused("a root name of invalid UTF-8", "01 01 01 00 04 01 01ff 01 61 00", "invalid UTF-8"),
    _refused("a binary past the end", one_item("03 ffffffff0f 00"), "past the end"),
    _refused("an embed that is no JSON", one_item("05 01 7b"), "invalid JSON"),
    _refused("an embed of nothing", one_item("05 00"), "invalid JSON"),
    _refused("an embed that is undefined", one_item("05 09 " + b"undefined".hex()), "invalid JSON"),
    _refused("an embed that is NaN", one_item("05 03 " + b"NaN".hex()), "invalid JSON"),
    _refused("a number that yrs refuses", one_item("05 05 " + b"1e999".hex()), "invalid JSON"),
    _refused("an escaped lone surrogate", one_item("05 08 " + rb'"\ud800"'.hex()), "invalid JSON"),
    _refused("a format that is no JSON", one_item("06 0162 01 7b"), "invalid JSON"),
    _refused("JSON nested 65 deep", one_item("05 8201 " + (b"[" * 65 + b"]" * 65).hex()), "nested deeper"),
    _refused("an unknown kind of Any", one_item("08 01 73"), "unknown kind of value"),
    _refused("Any beyond the table", one_item("08 01 80"), "unknown kind of value"),
    _refused("a short float", "01 01 01 00 08 01 0174 01 7b 0000 00", "past the end"),
    _refused("an overlong varInt", one_item("08 01 7d 8100"), "overlong"),
    _refused("a varInt of 2**53", one_item("08 01 7d 808080808080808001"), "integer too large"),
    _refused("an array of 2**50 values", one_item("08 01 75 8080808080808002 7f"), "unknown kind of value"),
    _refused(
        "a parent that is text, which yrs refuses for ever", "01 02 01 00 04 010174 0161 04 00 0100 0161 00", "no type"
    ),
    _refused("a parent inside a text", "01 02 01 00 04 010174 03616263 27 00 0101 016b 00 00", "no type"),
    _refused("another's value as parent", "02 01 02 00 04 00 0100 0161 01 01 00 08 010174 01 7d05 00", "no type"),
    Refused("Any nested 65 deep", nested_any(65), "nested deeper"),
    Refused("Any nested until yrs dies", nested_any(26_000), "nested deeper"),
    Refused("types nested 257 deep", nested_types(257), "types nested deeper"),
    _refused("a subdocument with null for options, which Yjs throws on", one_item("09 0161 7e"), "subdocument"),
    _refused("a subdocument with a string for options", one_item("09 0161 77 0161"), "subdocument"),
    *(Refused(f"v2 update {number}", update, "not a Yjs v1 update") for number, update in enumerate(V2_UPDATES)),
)

ACCEPTED: Final = (
    _accepted("the empty update", "00 00", []),
    _accepted("a first character", one_item("04 01 61"), [(1, 0, 1)]),
    _accepted("a typed character", "01 01 ac02 05 84 ac0204 01 61 00", [(300, 5, 6)]),
    _accepted("a character between two", "01 01 01 05 c4 0104 0203 01 61 00", [(1, 5, 6)]),
    _accepted("a character before another", "01 01 01 05 44 0203 01 61 00", [(1, 5, 6)]),
    _accepted("an erased character", "00 01 01 01 05 01", [], [(1, 5, 6)]),
    _accepted("a replaced character", "01 01 01 05 84 0104 01 61 01 01 01 02 01", [(1, 5, 6)], [(1, 2, 3)]),
    _accepted("UTF-16 units", one_item("04 0a c3a9 e6bca2 f09f9880 00"), [(1, 0, 5)]),
    _accepted("half an emoji, as Yjs sends it", one_item("04 03 efbfbd"), [(1, 0, 1)]),
    _accepted("deleted, at another's gap", "01 01 01 09 81 0204 05 00", [(1, 9, 14)]),
    _accepted("a binary", one_item("03 02 ffff"), [(1, 0, 1)]),
    _accepted("an empty binary", one_item("03 00"), [(1, 0, 1)]),
    _accepted("an embed", one_item("05 07 " + b'{"a":1}'.hex()), [(1, 0, 1)]),
    _accepted("a format", one_item("06 0162 04 " + b"true".hex()), [(1, 0, 1)]),
    _accepted("JSON nested 64 deep", one_item("05 8001 " + (b"[" * 64 + b"]" * 64).hex()), [(1, 0, 1)]),
    _accepted("an array, a map and a text", "01 03 01 00 070101740087010001 870101 02 00", [(1, 0, 3)]),
    _accepted("an element", one_item("07 03 0170"), [(1, 0, 1)]),
    _accepted("a fragment and an xml text", "01 02 01 00 07010174 04 870100 06 00", [(1, 0, 2)]),
    _accepted("an entry of a map", "01 01 01 00 28 01 0174 016b 01 7d05 00", [(1, 0, 1)]),
    _accepted("a changed entry of a map", "01 01 01 01 a8 0100 01 7d05 00", [(1, 1, 2)]),
    _accepted("a child of a type", "01 01 01 01 04 00 0100 01 61 00", [(1, 1, 2)]),
    _accepted(
        "every kind of Any",
        one_item(
            "08 0c 7f 7e 7d40 7c00000000 7b7ff8000000000000 7affffffffffffffff 79 78"
            " 770161 740100 75027e79 7601017879"
        ),
        [(1, 0, 12)],
    ),
    Accepted("Any nested 64 deep", nested_any(64), [(1, 0, 1)], []),
    Accepted("types nested 256 deep", nested_types(256), [(1, 0, 257)], []),
    _accepted("a subdocument", one_item("09 0161 76 01 026763 79"), [(1, 0, 1)]),
    _accepted("a child of a deleted type", "01 02 01 00 01 010174 01 04 00 0100 0161 00", [(1, 0, 2)]),
    _accepted("a child of what went as garbage", "01 02 01 00 00 01 04 00 0100 0161 00", [(1, 0, 2)]),
    _accepted("a child whose parent comes behind it", "02 01 02 00 04 00 0100 0161 01 01 00 07 010174 00 00",
              [(2, 0, 1), (1, 0, 1)]),
    _accepted("GC runs", "01 02 01 05 00 03 00 04 00", [(1, 5, 12)]),
    _accepted("a gap", "01 03 01 00 00 02 0a 03 00 01 00", [(1, 0, 2), (1, 5, 6)]),
    _accepted("nothing but a gap", "01 01 01 00 0a 03 00", []),
    _accepted("two clients, the smaller first", "02 01 01 00 00 01 01 02 00 00 01 00", [(1, 0, 1), (2, 0, 1)]),
    _accepted("touching delete ranges", "00 01 01 03 05 01 06 02 09 01", [], [(1, 5, 8), (1, 9, 10)]),
    _accepted("delete ranges out of order", "00 01 01 02 09 01 05 01", [], [(1, 9, 10), (1, 5, 6)]),
    _accepted("a client without delete ranges, as yrs sends it", "00 02 01 00 02 01 05 01", [], [(2, 5, 6)]),
    _accepted("the greatest client id", "01 01 ffffffffffffff0f 00 00 01 00", [(2**53 - 1, 0, 1)]),
    _accepted("the last clock", "01 01 01 feffffff07 00 01 00", [(1, 2**31 - 2, 2**31 - 1)]),
)  # fmt: skip
