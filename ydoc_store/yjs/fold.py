"""The fold: a merged update without its deleted content, its neighbouring structs joined.

It rewrites struct records in clock order. Every id, every origin and every delete stay what they were, so the
result means the same whatever has arrived and whatever still will: gaps, pending structs and cut emoji need no
exception, and no native code sees the bytes. checker.py proves each result and shares no code with this module;
which deleted types may go is lineage.py's to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from ydoc_store.yjs.lineage import Fate, Lineage
from ydoc_store.yjs.structs import Ranges, Struct, Units, join_ranges, piece, read_update, write_update
from ydoc_store.yjs.walker import ANY, DELETED, GC, SKIP, STRING, TYPE

_RUNS = (GC, SKIP)
_JOINABLE_ITEMS = (DELETED, STRING, ANY)


def fold(update: bytes, *, keep_deleted: bool = False) -> bytes:
    """`update` with deleted content dropped and neighbours joined; applying either gives the same document.

    Deleted content becomes a deleted run; below a deleted type that nothing else refers to, a GC run. Deleted is what
    the delete set covers, and what stands in a deleted type, whoever wrote it there unaware; the result's delete set
    names that too. A string is cut at the delete set's bounds, except between the halves of a surrogate pair, which
    stay together. With `keep_deleted` (editors that run with `gc: false`) neighbours are joined and no content is
    dropped. A second fold changes nothing. Linear in the update's size; holds the interpreter; raises InvalidUpdate.
    """
    decoded = read_update(update)
    lineage = Lineage(decoded.structs)
    fate = None if keep_deleted else Fate(decoded, lineage)
    folded: dict[int, list[Struct]] = {}
    deletes = decoded.deletes
    implied: dict[int, Ranges] = {}
    for client, block in decoded.structs.items():
        joiner = _Joiner(client, lineage)
        if fate is None:
            for struct in block:
                joiner.add(struct)
        else:
            ranges = _drop_deleted(client, block, deletes.get(client, []), fate, joiner)
            if ranges:
                implied[client] = ranges
        folded[client] = joiner.finish()
    if implied:
        both = {client: deletes.get(client, []) + implied.get(client, []) for client in deletes.keys() | implied.keys()}
        deletes = {client: join_ranges(both[client]) for client in sorted(both, reverse=True)}
    return write_update(folded, deletes)


def _drop_deleted(client: int, block: list[Struct], ranges: Ranges, fate: Fate, joiner: _Joiner) -> Ranges:
    """Hands the structs of a client to `joiner`, cut and emptied where `ranges` or their `fate` delete them.

    Returns the deletes that `ranges` lack.
    """
    add = joiner.add
    implied: Ranges = []
    at = 0
    for struct in block:
        while at < len(ranges) and ranges[at][1] <= struct.clock:
            at += 1
        is_doomed = struct.kind not in _RUNS and fate.is_doomed(client, struct)
        is_covered = at < len(ranges) and ranges[at][0] <= struct.clock and struct.end <= ranges[at][1]
        if is_doomed and not is_covered:
            implied.append((struct.clock, struct.end))
        if (is_doomed or is_covered) and fate.gone and joiner.lineage.parent_type(struct) in fate.gone:
            add(Struct(struct.clock, struct.end, GC))
        elif is_doomed or is_covered:
            if struct.kind in _RUNS or (struct.kind == TYPE and (client, struct.clock) not in fate.gone):
                add(struct)
            else:
                add(_emptied(client, struct, struct.clock, struct.end))
        elif at == len(ranges) or struct.end <= ranges[at][0] or struct.kind in _RUNS or struct.kind == DELETED:
            add(struct)
        elif joiner.lineage.is_entry(struct):
            add(struct)  # applying a later piece of a map's entry would delete the earlier one
        else:
            for part in _cut(client, struct, ranges, at):
                add(part)
    return implied


def _emptied(client: int, struct: Struct, start: int, end: int) -> Struct:
    """The units `start` to `end` of an item of `client`, without their content."""
    if start > struct.clock:
        return Struct(start, end, DELETED, (client, start - 1), struct.right_origin)
    return Struct(start, end, DELETED, struct.origin, struct.right_origin, struct.parent, struct.parent_key)


def _cut(client: int, struct: Struct, ranges: Ranges, at: int) -> Iterator[Struct]:
    """The pieces of an item that `ranges[at]` and maybe later ones delete in part.

    A bound between the halves of a surrogate pair moves so that both halves keep their text: each decoder has its
    own way to cut a pair, and must find it whole to go that way after the fold as before it.
    """
    units = Units(struct)
    clock, end = struct.clock, struct.end
    while at < len(ranges) and ranges[at][0] < end:
        first, last = max(ranges[at][0], struct.clock), min(ranges[at][1], end)
        first += units.parts_a_pair(first - struct.clock)
        last -= units.parts_a_pair(last - struct.clock)
        if first < last:
            if clock < first:
                yield piece(client, struct, units, clock, first)
            yield _emptied(client, struct, first, last)
            clock = last
        at += 1
    if clock < end:
        yield piece(client, struct, units, clock, end)


class _Joiner:
    """Collects the structs of one client in clock order, joining each to the one before where they continue it.

    Two items continue each other as one that was typed in one go: same kind, same right origin, and the left
    one's last unit as the right one's origin. Entries of a map are the exception: applying the later one deletes
    the earlier, which a joined struct would not; only their deleted runs are joined.
    """

    __slots__ = ("_client", "_end", "_head", "_is_entry", "_payloads", "_structs", "lineage")

    def __init__(self, client: int, lineage: Lineage) -> None:
        self.lineage = lineage
        self._client = client
        self._structs: list[Struct] = []
        self._head: Struct | None = None
        self._end = 0
        self._payloads: list[bytes] = []
        self._is_entry: bool | None = None

    def add(self, struct: Struct) -> None:
        head = self._head
        if head is not None and head.kind == struct.kind and self._continues(head, struct):
            self._end = struct.end
            self._payloads.append(struct.payload)
            return
        self._close()
        self._head = struct
        self._end = struct.end
        self._payloads = [struct.payload]
        self._is_entry = None

    def finish(self) -> list[Struct]:
        self._close()
        return self._structs

    def _continues(self, head: Struct, struct: Struct) -> bool:
        if struct.kind not in _JOINABLE_ITEMS:
            return struct.kind in _RUNS
        origin = struct.origin
        if origin is None or origin[1] != self._end - 1 or origin[0] != self._client:
            return False
        if head.right_origin != struct.right_origin:
            return False
        if struct.kind == DELETED:
            return True
        if self._is_entry is None:
            place = self.lineage.place(head)
            # Behind a gap nothing is known. A map's entries are ANY from every editor; strings are text.
            self._is_entry = struct.kind == ANY if place is None else place.key is not None
        return not self._is_entry

    def _close(self) -> None:
        head = self._head
        if head is None:
            return
        if len(self._payloads) == 1:
            self._structs.append(head)
            return
        place = head.origin, head.right_origin, head.parent, head.parent_key
        self._structs.append(Struct(head.clock, self._end, head.kind, *place, b"".join(self._payloads)))
