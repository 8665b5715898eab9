"""Which clocks a document's committed log holds and has deleted, as sets of intervals by client.

A room asks this before it stores an update (nothing new, nothing stored) and before it answers a state vector, so
the questions about one typed character cost about a microsecond. Nothing here parses structs: that is the walker's
work; nothing here knows rooms, sequence numbers or what is still in flight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.intervals import BULK_MIN, IntervalSet
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_uint
from ydoc_store.yjs.walked import CLOCK_END_MAX, Range, Walked


class Knowledge:
    """The clocks, by client, that a set of updates holds and those that it deletes.

    It knows ranges, not content: structs behind a gap are held like any other, but stand in no state vector. How many
    units do is `pending_units`; what waits for a unit of another client is not among them.
    """

    __slots__ = ("_pending", "deletes", "pending_units", "structs")

    def __init__(self) -> None:
        self.pending_units = 0
        self._pending: dict[int, int] = {}
        self.structs: dict[int, IntervalSet] = {}
        self.deletes: dict[int, IntervalSet] = {}

    @classmethod
    def of(cls, updates: Iterable[Walked]) -> Knowledge:
        """What these updates hold together."""
        knowledge = cls()
        for walked in updates:
            knowledge.add(walked)
        return knowledge

    @classmethod
    def decode(cls, state_vector: bytes, delete_set: bytes) -> Knowledge:
        """The knowledge stored with a snapshot. Raises `Malformed`.

        A state vector cannot tell what stands behind a gap, so those structs are unknown afterwards: an update
        that repeats them is stored once more, which changes nothing.
        """
        knowledge = cls()
        for client, end in _decode_vector(state_vector, clients_max=None).items():
            if end:
                knowledge.structs[client] = IntervalSet(((0, end),))
        for client, ranges in decode_delete_set(delete_set).items():
            knowledge.deletes[client] = IntervalSet(ranges)
        return knowledge

    def covers(self, walked: Walked) -> bool:
        """Whether the update brings nothing: every struct and every delete of it is known."""
        return _covered(self.structs, walked.structs) and _covered(self.deletes, walked.deletes)

    def add(self, walked: Walked) -> None:
        """Takes in what an update brings."""
        for known, ranges in ((self.structs, walked.structs), (self.deletes, walked.deletes)):
            if len(ranges) >= BULK_MIN:
                for client, found in _by_client(ranges).items():
                    known.setdefault(client, IntervalSet()).add_all(found)
                    if known is self.structs:
                        self._note_pending(client, known[client])
                continue
            for client, start, end in ranges:
                intervals = known.get(client)
                if intervals is None:
                    intervals = known[client] = IntervalSet()
                intervals.add(start, end)
                # Nearly always the client's only interval, from clock 0 on.
                if known is self.structs and (len(intervals.starts) > 1 or intervals.starts[0] or self._pending):
                    self._note_pending(client, intervals)

    def _note_pending(self, client: int, intervals: IntervalSet) -> None:
        behind = intervals.behind_gap()
        self.pending_units += behind - self._pending.pop(client, 0)
        if behind:
            self._pending[client] = behind

    def pending_growth(self, walked: Walked, also: Knowledge | None = None) -> int:
        """By how many units `pending_units` would change if the update came on top of this, and of `also`."""
        growth = 0
        for client, ranges in _by_client(walked.structs).items():
            held = IntervalSet()
            for source in (self, also):
                if source is not None and client in source.structs:
                    held.add_all(list(source.structs[client]))
            before = held.behind_gap()
            held.add_all(ranges)
            growth += held.behind_gap() - before
        return growth

    def update(self, other: Knowledge) -> None:
        """Takes in all that `other` knows."""
        for mine, theirs in ((self.structs, other.structs), (self.deletes, other.deletes)):
            for client, intervals in theirs.items():
                mine.setdefault(client, IntervalSet()).add_all(list(intervals))
                if mine is self.structs:
                    self._note_pending(client, mine[client])

    def is_within(self, vector: Mapping[int, int]) -> bool:
        """Whether a reader at this state vector has every struct: nothing stands beyond it, nor behind a gap."""
        return all(
            len(intervals) == 1 and intervals.contiguous_end() <= vector.get(client, 0) and intervals.contiguous_end()
            for client, intervals in self.structs.items()
        )

    def add_marker(self, marker: int) -> None:
        """Takes in an epoch's marker as its members tell of it: one struct, which Yjs counts as deleted."""
        self.add(Walked([(marker, 0, 1)], [(marker, 0, 1)], 1, 1, 1))

    def news(self, walked: Walked) -> Walked:
        """The part of an update that is not known, for the limits on what is new to a document.

        Ranges that are known in part are given whole. Its counts are what limits are held to: delete ranges and
        clients exact (touching ranges joined), structs at most the clocks that are new.
        """
        structs = self.lacks(walked.structs)
        deletes = [entry for entry in walked.deletes if not _covered(self.deletes, (entry,))]
        clients = {client for client, _, _ in structs}.union(client for client, _, _ in deletes)
        struct_count = min(walked.struct_count, sum(end - start for _, start, end in structs))
        return Walked(structs, deletes, struct_count, len(clients), len(deletes), self.lacks(walked.blanks))

    def lacks(self, ranges: Iterable[Range]) -> list[Range]:
        """Those of the ranges of structs that are not held as a whole."""
        return [entry for entry in ranges if not _covered(self.structs, (entry,))]

    def units_ahead(self, walked: Walked, also: Knowledge | None = None) -> int:
        """How many units the update deletes that are not held: neither here, nor in `also`, nor in the update itself.

        What is held behind a gap counts as held; of a range that is held in part, all behind its first gap counts
        as ahead. A delete of clocks that nobody has sent yet would erase whatever their client writes there later.
        """
        unsure = self.lacks(walked.deletes)
        if not unsure:
            return 0
        own = Knowledge()
        own.add(Walked(walked.structs, [], 0, 0, 0))
        holders = [self, own] if also is None else [self, own, also]
        units = 0
        for client, ranges in _by_client(unsure).items():
            sources = [holder.structs[client] for holder in holders if client in holder.structs]
            # Joined first: ranges that overlap would each be looked through anew, for hours if somebody wants that.
            targets = IntervalSet()
            targets.add_all(ranges)
            units += sum(max(0, end - _reach(sources, start)) for start, end in targets)
        return units

    def state_vector(self) -> dict[int, int]:
        """By client, the end of what is held without a gap from clock 0; clients without any are left out."""
        vector = {client: intervals.contiguous_end() for client, intervals in self.structs.items()}
        return {client: end for client, end in vector.items() if end}

    def encode_state_vector(self) -> bytes:
        """`state_vector` as a sync step 1 carries it."""
        return encode_state_vector(self.state_vector())

    def encode_delete_set(self) -> bytes:
        """All that is deleted, as it stands at the end of an update."""
        parts = [encode_uint(len(self.deletes))]
        for client in sorted(self.deletes, reverse=True):
            intervals = self.deletes[client]
            parts += (encode_uint(client), encode_uint(len(intervals)))
            for start, end in intervals:
                parts += (encode_uint(start), encode_uint(end - start))
        return b"".join(parts)

    def copy(self) -> Knowledge:
        """Knowledge of its own with the same content."""
        other = Knowledge()
        other.structs = {client: intervals.copy() for client, intervals in self.structs.items()}
        other.deletes = {client: intervals.copy() for client, intervals in self.deletes.items()}
        other.pending_units = self.pending_units
        other._pending = self._pending.copy()
        return other

    @property
    def range_count(self) -> int:
        """How many intervals this holds, and clients, each of which takes about as much."""
        held = [*self.structs.values(), *self.deletes.values()]
        return len(held) + sum(len(intervals.starts) for intervals in held)

    @property
    def clients(self) -> int:
        """How many clients are known, by a struct or by a delete."""
        return len(self.structs.keys() | self.deletes.keys())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Knowledge):
            return NotImplemented
        return self.structs == other.structs and self.deletes == other.deletes

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Knowledge(structs={self.structs!r}, deletes={self.deletes!r})"


def _by_client(ranges: Iterable[tuple[int, int, int]]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for client, start, end in ranges:
        found.setdefault(client, []).append((start, end))
    return found


def _covered(known: Mapping[int, IntervalSet], ranges: Iterable[tuple[int, int, int]]) -> bool:
    for client, start, end in ranges:
        intervals = known.get(client)
        if intervals is None or not intervals.covers(start, end):
            return False
    return True


def _reach(sources: list[IntervalSet], start: int) -> int:
    """How far the union of the sets goes on without a gap from `start`."""
    while True:
        end = max((source.reach(start) for source in sources), default=start)
        if end == start:
            return end
        start = end


def decode_state_vector(data: bytes, *, clients_max: int) -> dict[int, int]:
    """A state vector from a peer: by client, the end of the clocks that it holds. Raises `InvalidFrame`."""
    try:
        return _decode_vector(data, clients_max=clients_max)
    except Malformed as error:
        raise InvalidFrame(f"not a state vector: {error}") from error


def _decode_vector(data: bytes, *, clients_max: int | None) -> dict[int, int]:
    reader = Reader(data)
    count = reader.uint()
    if clients_max is not None and count > clients_max:
        raise Malformed(f"{count} clients, at most {clients_max}")
    vector: dict[int, int] = {}
    for _ in range(count):
        client = reader.uint()
        end = reader.uint()
        if client in vector:
            raise Malformed(f"a client twice at offset {reader.at}")
        if end > CLOCK_END_MAX:
            raise Malformed(f"a clock too large at offset {reader.at}")
        vector[client] = end
    if not reader.done:
        raise Malformed(f"bytes behind its end at offset {reader.at}")
    return vector


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """A state vector as Yjs writes it, the greatest client id first."""
    parts = [encode_uint(len(vector))]
    for client in sorted(vector, reverse=True):
        parts += (encode_uint(client), encode_uint(vector[client]))
    return b"".join(parts)


def decode_delete_set(data: bytes) -> dict[int, list[tuple[int, int]]]:
    """By client, the deleted [start, end) in encoded order, of a delete set on its own. Raises `Malformed`."""
    reader = Reader(data)
    deletes: dict[int, list[tuple[int, int]]] = {}
    for _ in range(reader.uint()):
        client = reader.uint()
        if client in deletes:
            raise Malformed(f"a client twice at offset {reader.at}")
        ranges = deletes[client] = []
        for _ in range(reader.uint()):
            start = reader.uint()
            end = start + reader.uint()
            if end == start or end > CLOCK_END_MAX:
                raise Malformed(f"an impossible delete range at offset {reader.at}")
            ranges.append((start, end))
    if not reader.done:
        raise Malformed(f"bytes behind its end at offset {reader.at}")
    return deletes
