"""The structs of a Yjs v1 update as records, read and written without native code.

A record keeps its content as the encoded bytes, so that what nobody touches is copied, never decoded. The fold,
its checker and the splitter work on these records; the walker, which sees every update before it is stored and
needs none of the content, has a parser of its own. What a record means for a document is not known here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_string, encode_uint, utf16_length
from ydoc_store.yjs.walker import ANY, BINARY, DELETED, DOCUMENT, EMBED, FORMAT, GC, SKIP, STRING, TYPE

Id = tuple[int, int]
"""A client id and a clock: one unit of one client."""

Ranges = list[tuple[int, int]]
"""Half-open ranges of one client's clocks, sorted, neither empty nor touching."""

_HAS_ORIGIN = 0x80
_HAS_RIGHT_ORIGIN = 0x40
_HAS_PARENT_KEY = 0x20
_KIND = 0x1F

_NAMED_TYPES = (3, 5)


class Struct:
    """The units `clock` to `end` (half-open) of one client, `kind` saying what they are.

    An item with an `origin` or a `right_origin` stands in their parent; one without names its `parent` itself, a
    root type's name or the id of a type, and its `parent_key` where it is a map's entry. `payload` is the text of
    a STRING in UTF-8, the values of an ANY one behind the other, or the content of another kind as it is encoded;
    it is empty for GC, SKIP and DELETED. A record is not changed once it is made.
    """

    __slots__ = ("clock", "end", "kind", "origin", "parent", "parent_key", "payload", "right_origin")

    def __init__(
        self,
        clock: int,
        end: int,
        kind: int,
        origin: Id | None = None,
        right_origin: Id | None = None,
        parent: str | Id | None = None,
        parent_key: str | None = None,
        payload: bytes = b"",
    ) -> None:
        self.clock = clock
        self.end = end
        self.kind = kind
        self.origin = origin
        self.right_origin = right_origin
        self.parent = parent
        self.parent_key = parent_key
        self.payload = payload

    def __repr__(self) -> str:
        return "Struct(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__) + ")"


class StructUpdate(NamedTuple):
    """A whole update: each client's structs in clock order without a hole (a gap is a SKIP), and its deletes.

    Both maps keep the order in which the clients were encoded.
    """

    structs: dict[int, list[Struct]]
    deletes: dict[int, Ranges]


def read_update(update: bytes) -> StructUpdate:
    """The records of `update`. Raises InvalidUpdate; strict about shape, not about sizes (the walker is)."""
    decoded = StructUpdate({}, {})
    add_update(update, decoded)
    return StructUpdate(decoded.structs, {client: join_ranges(found) for client, found in decoded.deletes.items()})


def add_update(update: bytes, found: StructUpdate) -> None:
    """Appends what `update` holds to `found`, whose structs and ranges are then those of several updates as read.

    Raises InvalidUpdate, with part of the update appended.
    """
    reader = Reader(update)
    try:
        seen: set[int] = set()
        for _ in range(reader.uint()):
            count = reader.uint()
            client = reader.uint()
            if count == 0 or client in seen:
                raise Malformed(f"a client without structs, or twice, at offset {reader.at}")
            seen.add(client)
            _read_block(reader, client, count, found.structs.setdefault(client, []))
        _read_deletes(reader, found.deletes)
    except Malformed as error:
        raise InvalidUpdate(f"not a Yjs v1 update: {error}") from error
    if not reader.done:
        raise InvalidUpdate(f"not a Yjs v1 update: bytes behind its end at offset {reader.at}")


def _read_block(reader: Reader, client: int, count: int, block: list[Struct]) -> None:
    """Reads `count` structs of `client`, the first clock before them, and appends them to `block`."""
    data = reader.data
    uint = reader.uint
    # Most origins lie in the same client, whose encoded id is then compared instead of read.
    own_id = encode_uint(client)
    own_id_length = len(own_id)

    def read_id() -> Id:
        if data.startswith(own_id, reader.at):
            reader.at += own_id_length
            return client, uint()
        return uint(), uint()

    clock = uint()
    for _ in range(count):
        info = reader.byte()
        kind = info & _KIND
        origin = right_origin = parent = parent_key = None
        payload = b""
        if kind in (GC, SKIP):
            length = uint()
        else:
            if info & _HAS_ORIGIN:
                origin = read_id()
            if info & _HAS_RIGHT_ORIGIN:
                right_origin = read_id()
            if origin is None and right_origin is None:
                parent = reader.string() if uint() == 1 else (uint(), uint())
                if info & _HAS_PARENT_KEY:
                    parent_key = reader.string()
            if kind == STRING:
                payload = reader.buf()
                length = len(payload) if payload.isascii() else _text_length(payload)
            else:
                length, payload = _read_content(reader, kind)
        if length == 0:
            raise Malformed(f"an empty struct at offset {reader.at}")
        end = clock + length
        block.append(Struct(clock, end, kind, origin, right_origin, parent, parent_key, payload))
        clock = end


def _text_length(payload: bytes) -> int:
    try:
        return utf16_length(payload.decode())
    except UnicodeDecodeError as error:
        raise Malformed("a string that is no UTF-8") from error


def _read_content(reader: Reader, kind: int) -> tuple[int, bytes]:
    """The length in units and the payload of any content but a string's."""
    if kind == DELETED:
        return reader.uint(), b""
    length = reader.uint() if kind == ANY else 1
    start = reader.at
    if kind == ANY:
        for _ in range(length):
            reader.skip_any()
    elif kind in (BINARY, EMBED):
        reader.skip(reader.uint())
    elif kind == FORMAT:
        reader.skip(reader.uint())
        reader.skip(reader.uint())
    elif kind == TYPE:
        if reader.uint() in _NAMED_TYPES:
            reader.skip(reader.uint())
    elif kind == DOCUMENT:
        reader.skip(reader.uint())
        reader.skip_any()
    else:
        raise Malformed(f"an unknown kind of content {kind} at offset {reader.at}")
    return length, reader.data[start : reader.at]


def _read_deletes(reader: Reader, deletes: dict[int, Ranges]) -> None:
    uint = reader.uint
    for _ in range(uint()):
        client = uint()
        ranges = deletes.setdefault(client, [])
        for _ in range(uint()):
            clock = uint()
            ranges.append((clock, clock + uint()))


def join_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same clocks as sorted ranges, touching and overlapping ones joined, empty ones dropped."""
    joined: Ranges = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def covers(ranges: Ranges, start: int, end: int) -> bool:
    """Whether one range holds all of `start` to `end`."""
    at = bisect_right(ranges, start, key=_range_start) - 1
    return at >= 0 and end <= ranges[at][1]


_range_start = itemgetter(0)


class Units:
    """The content of one STRING or ANY struct, cut at offsets counted in units (UTF-16 units, or values)."""

    __slots__ = ("_offsets", "_payload", "_utf16")

    def __init__(self, struct: Struct) -> None:
        self._payload = struct.payload
        self._utf16: bytes | None = None
        self._offsets: list[int] | None = None
        if struct.kind == ANY:
            reader = Reader(struct.payload)
            self._offsets = [0]
            while not reader.done:
                reader.skip_any()
                self._offsets.append(reader.at)
        elif not struct.payload.isascii():
            self._utf16 = struct.payload.decode().encode("utf-16-le")

    def cuts(self, bytes_max: int) -> Iterator[int]:
        """Offsets at which to cut so that no part is longer than `bytes_max`, but for a single unit that is."""
        if self._offsets is None:
            yield from self._text_cuts(bytes_max)
            return
        start = 0
        for at in range(1, len(self._offsets) - 1):
            if self._offsets[at + 1] - start > bytes_max:
                start = self._offsets[at]
                yield at

    def _text_cuts(self, bytes_max: int) -> Iterator[int]:
        if self._utf16 is None:
            yield from range(max(1, bytes_max), len(self._payload), max(1, bytes_max))
            return
        # A unit takes at most three bytes of UTF-8; two units at least, so that a pair makes a part.
        step, length = max(2, bytes_max // 3), len(self._utf16) // 2
        for offset in range(step, length, step):
            cut = offset + self.parts_a_pair(offset)
            if cut < length:
                yield cut

    def parts_a_pair(self, offset: int) -> bool:
        """Whether a cut at `offset` falls between the two halves of a surrogate pair."""
        text = self._utf16
        return text is not None and 0 < offset * 2 < len(text) and text[offset * 2 + 1] & 0xFC == 0xDC

    def payload(self, start: int, end: int) -> bytes:
        """The payload of the units `start` to `end`; half of a surrogate pair becomes U+FFFD, as in Yjs."""
        if self._offsets is not None:
            start, end = self._offsets[start], self._offsets[end]
        elif self._utf16 is not None:
            return self._utf16[start * 2 : end * 2].decode("utf-16-le", "replace").encode()
        return self._payload[start:end]


def piece(client: int, struct: Struct, units: Units, start: int, end: int) -> Struct:
    """The units `start` to `end` of a STRING or ANY struct of `client` as Yjs would have split them off."""
    payload = units.payload(start - struct.clock, end - struct.clock)
    if start > struct.clock:
        return Struct(start, end, struct.kind, (client, start - 1), struct.right_origin, payload=payload)
    place = struct.origin, struct.right_origin, struct.parent, struct.parent_key
    return Struct(start, end, struct.kind, *place, payload)


def write_update(structs: Mapping[int, list[Struct]], deletes: Mapping[int, Ranges]) -> bytes:
    """The v1 encoding of records that follow one another without a hole, clients in the order given."""
    parts = [encode_uint(len(structs))]
    for client, block in structs.items():
        parts += (encode_uint(len(block)), encode_uint(client), encode_uint(block[0].clock))
        for struct in block:
            write_struct(struct, parts)
    write_deletes(deletes, parts)
    return b"".join(parts)


def write_deletes(deletes: Mapping[int, Ranges], parts: list[bytes]) -> None:
    """Appends the encoding of a delete set to `parts`."""
    parts.append(encode_uint(len(deletes)))
    for client, ranges in deletes.items():
        parts += (encode_uint(client), encode_uint(len(ranges)))
        for start, end in ranges:
            parts += (encode_uint(start), encode_uint(end - start))


def write_struct(struct: Struct, parts: list[bytes]) -> None:
    """Appends the encoding of one struct, which does not hold its own clock, to `parts`."""
    kind = struct.kind
    if kind in (GC, SKIP):
        parts += (encode_uint(kind), encode_uint(struct.end - struct.clock))
        return
    origin, right_origin, parent = struct.origin, struct.right_origin, struct.parent
    info = kind
    place: list[bytes] = []
    if origin is not None:
        info |= _HAS_ORIGIN
        place += (encode_uint(origin[0]), encode_uint(origin[1]))
    if right_origin is not None:
        info |= _HAS_RIGHT_ORIGIN
        place += (encode_uint(right_origin[0]), encode_uint(right_origin[1]))
    if isinstance(parent, str):
        place += (b"\x01", encode_string(parent))
    elif parent is not None:
        place += (b"\x00", encode_uint(parent[0]), encode_uint(parent[1]))
    if struct.parent_key is not None:
        info |= _HAS_PARENT_KEY
        place.append(encode_string(struct.parent_key))
    parts.append(bytes((info,)))
    parts += place
    if kind == STRING:
        parts.append(encode_uint(len(struct.payload)))
    elif kind in (ANY, DELETED):
        parts.append(encode_uint(struct.end - struct.clock))
    parts.append(struct.payload)
