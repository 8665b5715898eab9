"""The walker: a strict, iterative parser that sees every update before native code does.

It checks every length and value of a Yjs v1 update and tells which clocks the update brings and deletes; it
builds no content and never recurses. It is stricter than Yjs and yrs where those disagree, overflow or crash, so
that what is stored means the same to both. Whether the ranges are new to a document is not known here (ranges.py).
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Final

from ydoc_store.errors import InvalidUpdate, TooLarge
from ydoc_store.yjs.lib0 import UINT_MAX, Malformed, Reader, encode_uint, utf16_length
from ydoc_store.yjs.nesting import Nesting
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.typed import walk_typed
from ydoc_store.yjs.walked import (
    CLOCK_END_MAX,
    DEFAULT_LIMITS,
    RESERVED_CLIENT_ID_MIN,
    PackedRanges,
    Range,
    UpdateLimits,
    Walked,
)

__all__ = [
    "CLOCK_END_MAX",
    "DEFAULT_LIMITS",
    "RESERVED_CLIENT_ID_MIN",
    "UpdateLimits",
    "Walked",
    "marker_update",
    "walk",
    "walk_structs",
]

GC: Final = 0
DELETED: Final = 1
JSON: Final = 2
BINARY: Final = 3
STRING: Final = 4
EMBED: Final = 5
FORMAT: Final = 6
TYPE: Final = 7
ANY: Final = 8
DOCUMENT: Final = 9
SKIP: Final = 10

_HAS_ORIGIN: Final = 0x80
_HAS_RIGHT_ORIGIN: Final = 0x40
_HAS_PARENT_KEY: Final = 0x20

_XML_ELEMENT: Final = 3
_XML_HOOK: Final = 5
_TYPES_END: Final = 7
_ANY_OBJECT: Final = 118

# From this size on an update's ranges are kept packed: two bytes may be a range, and a tuple takes 130.
PACKED_FROM_BYTES: Final = 1024 * 1024


def walk(update: bytes, limits: UpdateLimits = DEFAULT_LIMITS) -> Walked:
    """Returns what a Yjs v1 update brings, having checked all of it.

    Raises `TooLarge` over `update_bytes_max`, `InvalidUpdate` for anything else that is refused:
    v2 updates and trailing bytes, lengths and integers that do not hold, invalid UTF-8 or JSON, values or types
    nested too deep, empty structs or blocks, a client twice, ids out of range or in a struct's own future, parents
    in the update itself that are no types.
    """
    if len(update) > limits.update_bytes_max:
        raise TooLarge(f"an update of {len(update)} bytes, at most {limits.update_bytes_max}")
    return walk_typed(update) or walk_structs(update, limits)


def walk_structs(update: bytes, limits: UpdateLimits = DEFAULT_LIMITS) -> Walked:
    """`walk` without its short cut and its limit on bytes."""
    try:
        parser = _Parser(update, limits)
        walked = parser.update()
        if len(parser.types) > limits.types_nesting_max:
            # Rare enough to read the update twice: only now is it worth noting where each struct lives.
            nesting = Nesting()
            _Parser(update, limits, nesting).update()
            if nesting.deepest() > limits.types_nesting_max:
                raise InvalidUpdate(f"types nested deeper than {limits.types_nesting_max}")
    except Malformed as error:
        raise InvalidUpdate(f"not a Yjs v1 update: {error}") from error
    return walked


class _Parser:
    """One pass over one update."""

    __slots__ = ("blanks", "limits", "nesting", "parents", "reader", "types")

    def __init__(self, update: bytes, limits: UpdateLimits, nesting: Nesting | None = None) -> None:
        self.reader = Reader(update)
        self.limits = limits
        self.nesting = nesting
        self.types: list[Range] | PackedRanges = []
        self.parents: list[Range] | PackedRanges = []
        self.blanks: list[Range] | PackedRanges = []

    def update(self) -> Walked:
        reader = self.reader
        is_large = reader.end >= PACKED_FROM_BYTES
        structs: list[Range] | PackedRanges = PackedRanges() if is_large else []
        if is_large:
            self.blanks, self.types, self.parents = PackedRanges(), PackedRanges(), PackedRanges()
        clients: set[int] = set()
        struct_count = 0
        for _ in range(reader.uint()):
            count = reader.uint()
            client = self.client(clients)
            if count == 0:
                raise Malformed(f"a client without structs at offset {reader.at}")
            self.count(count)
            struct_count += self.block(client, count, structs)
        deletes: list[Range] | PackedRanges = PackedRanges() if is_large else []
        deleted_clients: set[int] = set()
        delete_count = 0
        for _ in range(reader.uint()):
            client = self.client(deleted_clients)
            count = reader.uint()
            if count:  # yrs sends clients without ranges now and then
                self.count(count)
                delete_count += count
                self.delete_ranges(client, count, deletes)
        if not reader.done:
            raise Malformed(f"bytes behind its end at offset {reader.at}")
        if len(self.parents) and self.limits.judges_parents:
            self.judge_parents(structs, clients)
        return Walked(structs, deletes, struct_count, len(clients | deleted_clients), delete_count, self.blanks)

    def client(self, seen: set[int]) -> int:
        client = self.reader.uint()
        if client in seen:
            # Yjs keeps only the last block of a client, yrs joins them.
            raise Malformed(f"a client twice at offset {self.reader.at}")
        seen.add(client)
        return client

    def count(self, count: int) -> None:
        if count > self.reader.end - self.reader.at:
            raise Malformed(f"a count past the end at offset {self.reader.at}")

    def block(self, client: int, count: int, structs: list[Range] | PackedRanges) -> int:
        """Reads the structs of one client and appends their joined ranges; returns how many were no Skips."""
        reader = self.reader
        start = clock = self.clock()
        skips = 0
        blank = -1  # where the run without content began that is being read
        for _ in range(count):
            info = reader.byte()
            kind = info & 0x1F
            if info in (GC, SKIP):
                length = reader.uint()
            else:
                self.place(client, clock, info)
                length = self.content(kind)
            if length == 0:
                raise Malformed(f"an empty struct at offset {reader.at}")
            end = clock + length
            if end > CLOCK_END_MAX:
                raise Malformed(f"a clock too large at offset {reader.at}")
            if kind == TYPE:
                self.types.append((client, clock, end))
            if kind <= DELETED:
                if blank < 0:
                    blank = clock
            elif blank >= 0:
                self.blanks.append((client, blank, clock))
                blank = -1
            if info == SKIP:
                skips += 1
                if start < clock:
                    structs.append((client, start, clock))
                start = end
            clock = end
        if start < clock:
            structs.append((client, start, clock))
        if blank >= 0:
            self.blanks.append((client, blank, clock))
        return count - skips

    def place(self, client: int, clock: int, info: int) -> None:
        """Reads where an item stands: its origins, or its parent and key where it has none."""
        link: tuple[int, int, int] | None = None
        if info & (_HAS_ORIGIN | _HAS_RIGHT_ORIGIN):
            if info & _HAS_ORIGIN:
                link = (*self.id(client, clock), 0)
            if info & _HAS_RIGHT_ORIGIN:
                right = self.id(client, clock)
                link = link or (*right, 0)
        else:
            named = self.reader.uint()
            if named == 1:
                self.reader.string()
            elif named == 0:
                parent, parent_clock = self.id(client, clock)
                self.parents.append((parent, parent_clock, parent_clock + 1))
                link = parent, parent_clock, 1
            else:
                raise Malformed(f"an unknown kind of parent at offset {self.reader.at}")
            if info & _HAS_PARENT_KEY:
                self.reader.string()
        if self.nesting is not None:
            self.nesting.add(client, clock, link)

    def id(self, client: int, clock: int) -> tuple[int, int]:
        """Reads an id that the struct (client, clock) refers to; it must be older than that struct."""
        other = self.reader.uint()
        other_clock = self.clock()
        if other == client and other_clock >= clock:
            raise Malformed(f"a reference to its own future at offset {self.reader.at}")
        return other, other_clock

    def clock(self) -> int:
        clock = self.reader.uint()
        if clock >= CLOCK_END_MAX:
            raise Malformed(f"a clock too large at offset {self.reader.at}")
        return clock

    def content(self, kind: int) -> int:
        """Reads the content of one item and returns its length in clocks."""
        reader = self.reader
        if kind == STRING:
            return utf16_length(reader.string())
        if kind == DELETED:
            return reader.uint()
        if kind == ANY:
            length = reader.uint()
            for _ in range(length):
                reader.skip_any(self.limits.nesting_max)
            return length
        if kind == TYPE:
            self.shared_type()
        elif kind == FORMAT:
            reader.string()
            reader.json(self.limits.nesting_max)
        elif kind == EMBED:
            reader.json(self.limits.nesting_max)
        elif kind == BINARY:
            reader.skip(reader.uint())
        elif kind == DOCUMENT:
            self.subdocument()
        elif kind == JSON:
            # yrs cannot decode it (it reads one string too many), and no Yjs since 13.0 writes it.
            raise Malformed(f"content of the kind before Yjs 13 at offset {reader.at}")
        else:
            raise Malformed(f"an unknown kind of content {kind} at offset {reader.at}")
        return 1

    def shared_type(self) -> None:
        kind = self.reader.uint()
        if kind == _XML_ELEMENT:
            self.reader.string()
        elif kind == _XML_HOOK:
            # yrs does not read its name and goes on in the middle of it, often without an error.
            raise Malformed(f"an XmlHook, which not every Yjs can read, at offset {self.reader.at}")
        elif kind >= _TYPES_END:
            raise Malformed(f"an unknown kind of type at offset {self.reader.at}")

    def judge_parents(self, structs: Collection[Range], clients: Set[int]) -> None:
        """yrs refuses a whole document for ever when an item's parent is neither a type nor deleted."""
        unsure = [found for found in self.parents if found[0] in clients]
        if isinstance(self.types, PackedRanges):
            unsure = _known(self.types).lacks(unsure)
        elif unsure:
            types = set(self.types)
            unsure = [found for found in unsure if found not in types]
        if unsure:
            elsewhere = set(_known(structs).lacks(unsure))
            if not elsewhere.issuperset(_known(self.blanks).lacks(unsure)):
                raise Malformed("a parent that is no type")

    def subdocument(self) -> None:
        reader = self.reader
        reader.string()
        if reader.at < reader.end and reader.data[reader.at] != _ANY_OBJECT:
            raise Malformed(f"a subdocument without options at offset {reader.at}")  # Yjs throws on null
        reader.skip_any(self.limits.nesting_max)

    def delete_ranges(self, client: int, count: int, deletes: list[Range] | PackedRanges) -> None:
        """Reads the delete ranges of one client and appends them, touching ones joined."""
        reader = self.reader
        start = end = -1
        for _ in range(count):
            clock = reader.uint()
            length = reader.uint()
            if length == 0:
                raise Malformed(f"an empty delete range at offset {reader.at}")
            if clock + length > CLOCK_END_MAX:
                raise Malformed(f"a clock too large at offset {reader.at}")
            if clock == end:
                end += length
                continue
            if end >= 0:
                deletes.append((client, start, end))
            start = clock
            end = clock + length
        deletes.append((client, start, end))


def _known(ranges: Collection[Range]) -> Knowledge:
    knowledge = Knowledge()
    knowledge.add(Walked(ranges, [], 0, 0, 0))
    return knowledge


def marker_update(marker: int) -> bytes:
    """The update that plants an epoch's marker: one GC struct of length 1 under the client id `marker`.

    It is invisible in every type and stands in every state vector afterwards. `ValueError` outside the reserved
    ids.
    """
    if not RESERVED_CLIENT_ID_MIN <= marker <= UINT_MAX:
        raise ValueError(f"{marker} is no reserved client id")
    return b"\x01\x01" + encode_uint(marker) + b"\x00\x00\x01\x00"
