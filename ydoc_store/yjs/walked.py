"""What the walker tells of an update, and the limits it is held to.

Plain values, apart from the parser so that the short cut for typing and the full parser can both make them.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ydoc_store.yjs.lib0 import NESTING_MAX

CLOCK_END_MAX: Final = 2**31 - 1
"""The greatest end of a clock range: yrs keeps clocks in 32 bits and counts some of them with a sign."""

RESERVED_CLIENT_ID_MIN: Final = 2**53 - 2**24
"""From here to 2**53 - 1 client ids are epoch markers; members may write nothing under them (the room judges)."""


@dataclass(frozen=True, slots=True)
class UpdateLimits:
    """What one update may hold.

    `update_bytes_max`, `nesting_max` and `types_nesting_max` bound every update and its walk; the counts of
    structs, clients and delete ranges bound only what is new to a document (`Walked.over`), since every reconnect
    of a synced client repeats the document's whole delete set.
    """

    update_bytes_max: int = 16 * 1024 * 1024
    nesting_max: int = NESTING_MAX
    types_nesting_max: int = 256
    structs_max: int = 100_000
    clients_max: int = 10_000
    delete_ranges_max: int = 100_000
    judges_parents: bool = True
    """Whether a parent that the update itself holds must be a type. What is stored is read whatever it is."""


DEFAULT_LIMITS: Final = UpdateLimits()

UNLIMITED: Final = UpdateLimits(update_bytes_max=2**62, types_nesting_max=2**62, judges_parents=False)
"""For what is stored: each update was within the limits when it came, a whole document may be over those of one."""


Range = tuple[int, int, int]
"""A client and its clocks from a start to an end, half-open."""


class PackedRanges:
    """Ranges of clocks in 8 bytes each, read in order: of large updates, where a list of tuples takes 20 times that.

    Also quick to hand to another process.
    """

    __slots__ = ("_bounds", "_clients")

    def __init__(self) -> None:
        # Who each run of ranges belongs to, and the number of the run's first one.
        self._clients: list[tuple[int, int]] = []
        self._bounds = array("I")

    def append(self, found: Range) -> None:
        client, start, end = found
        if not self._clients or self._clients[-1][0] != client:
            self._clients.append((client, len(self)))
        self._bounds.append(start)
        self._bounds.append(end)

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __iter__(self) -> Iterator[Range]:
        bounds = iter(self._bounds)
        lasts = [first for _, first in self._clients[1:]] + [len(self)]
        for (client, first), last in zip(self._clients, lasts, strict=False):
            for _ in range(last - first):
                yield client, next(bounds), next(bounds)

    def __contains__(self, found: object) -> bool:
        return any(found == held for held in self)


class Walked:
    """What an update brings: the ranges of clocks it holds, and those it deletes.

    `structs` and `deletes` hold (client, start, end), half-open, in encoded order, neighbours of a client joined.
    GC runs and deleted runs are structs like any other; a Skip is no knowledge and leaves a gap. The counts are
    those of the encoding: structs without Skips, delete ranges, distinct clients named in either part. `blanks` are
    those of the structs that have no content: GC runs and deleted runs.
    """

    __slots__ = ("blanks", "client_count", "delete_count", "deletes", "struct_count", "structs")

    def __init__(
        self,
        structs: Collection[Range],
        deletes: Collection[Range],
        struct_count: int,
        client_count: int,
        delete_count: int,
        blanks: Collection[Range] = (),
    ) -> None:
        self.blanks = blanks
        self.structs = structs
        self.deletes = deletes
        self.struct_count = struct_count
        self.client_count = client_count
        self.delete_count = delete_count

    @property
    def is_empty(self) -> bool:
        """Whether the update brings nothing at all: no struct and no delete."""
        return not len(self.structs) and not len(self.deletes)

    def parts(self, ranges_max: int) -> Iterator[Walked]:
        """The same ranges, at most so many at a time; of the counts only `struct_count` is what it was."""
        for place, ranges in enumerate(map(iter, (self.structs, self.deletes, self.blanks))):
            while part := list(islice(ranges, ranges_max)):
                structs, deletes, blanks = (part if place == wanted else [] for wanted in range(3))
                yield Walked(structs, deletes, self.struct_count, 0, 0, blanks)

    def reserved_clients(self) -> set[int]:
        """The client ids from `RESERVED_CLIENT_ID_MIN` on under which this update writes or deletes."""
        return {
            client
            for ranges in (self.structs, self.deletes)
            for client, _, _ in ranges
            if client >= RESERVED_CLIENT_ID_MIN
        }

    def over(self, limits: UpdateLimits) -> str | None:
        """The count that is over its limit, for people to read, or None. To be asked of what is new."""
        for count, most, name in (
            (self.struct_count, limits.structs_max, "structs"),
            (self.client_count, limits.clients_max, "clients"),
            (self.delete_count, limits.delete_ranges_max, "delete ranges"),
        ):
            if count > most:
                return f"{count} {name}, at most {most}"
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Walked):
            return NotImplemented
        return all(_listed(getattr(self, name)) == _listed(getattr(other, name)) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it holds lists

    def __repr__(self) -> str:
        return "Walked(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__) + ")"


def _listed(value: object) -> object:
    return list(value) if isinstance(value, Collection) else value
