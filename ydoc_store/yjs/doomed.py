"""What a document deletes by itself as it applies an update, asked by the checker.

A delete names a type, not what stands in it; a document deletes that with it, whenever it comes. Found here going
forwards, in the order of a replay; lineage.py, which answers the fold's questions, goes backwards along origins, and
the two share no code. No content is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.structs import Id, Struct, StructUpdate
from ydoc_store.yjs.walker import TYPE

_END_OF_CLOCKS = 2**63


class Doomed:
    """The items that a document deletes as it applies the merge, beside what the delete set covers."""

    def __init__(self, before: StructUpdate, replay: Replay) -> None:
        self.index = Index(before)
        self._deletes = before.deletes
        self._replay = replay
        self._types: set[Id] = set()
        for client, struct in replay.order:  # a type comes before what stands in it
            if struct.kind == TYPE and self.has(client, struct):
                self._types.add((client, struct.clock))

    def has(self, client: int, struct: Struct) -> bool:
        """Whether an applied item stands in a type that the delete set covers, or in one that stands in such a type.

        Where the type's content is gone already, that is sure only of an item that names it as its parent.
        """
        home = self._replay.home((client, struct.clock))
        if home is None or isinstance(home.parent, str):
            return False
        if self.index.kind(home.parent) != TYPE and struct.parent is None:
            return False
        return home.parent in self._types or self._covers(home.parent)

    def _covers(self, unit: Id) -> bool:
        ranges = self._deletes.get(unit[0], [])
        at = bisect_right(ranges, (unit[1], _END_OF_CLOCKS)) - 1
        return at >= 0 and unit[1] < ranges[at][1]


class Index:
    """The structs that hold a unit."""

    def __init__(self, update: StructUpdate) -> None:
        self._structs = update.structs
        self._starts: dict[int, list[int]] = {}

    def kind(self, unit: Id) -> int | None:
        at = self._at(unit)
        if at < 0:
            return None
        struct = self._structs[unit[0]][at]
        return struct.kind if unit[1] < struct.end else None

    def overlapping(self, client: int, start: int, end: int) -> Iterator[Struct]:
        """The structs that hold a clock from `start` to `end`."""
        structs = self._structs.get(client, [])
        for at in range(max(0, self._at((client, start))), len(structs)):
            if structs[at].clock >= end:
                break
            yield structs[at]

    def _at(self, unit: Id) -> int:
        """The index of the struct that holds `unit`, or ends before it; -1 where none begins so early."""
        starts = self._starts.get(unit[0])
        if starts is None:
            starts = self._starts[unit[0]] = [struct.clock for struct in self._structs.get(unit[0], ())]
        return bisect_right(starts, unit[1]) - 1
