"""Where the structs of an update live, what is deleted because of that, and which types nothing needs any more.

Most structs do not name their parent: they stand where their origin stands. Parents are therefore found along the
origins, backwards and once for each struct. A deleted type may be dropped, and its children turned into GC runs,
only when that cannot be noticed; this module decides it and changes nothing itself (fold.py does).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from ydoc_store.yjs.structs import Id, Struct, StructUpdate, covers
from ydoc_store.yjs.walker import GC, SKIP, TYPE


class Place(NamedTuple):
    """A parent, which is a root type's name or the id of a type, and the key where it is a map's entry."""

    parent: str | Id
    key: str | None


class Lineage:
    """Finds structs by id, and the place of each, in one update."""

    __slots__ = ("_places", "_starts", "_structs")

    def __init__(self, structs: dict[int, list[Struct]]) -> None:
        self._structs = structs
        self._starts: dict[int, list[int]] = {}
        self._places: dict[Struct, Place | None] = {}

    def holder(self, unit: Id) -> Struct | None:
        """The struct that holds `unit`, or None where the update does not reach it."""
        client, clock = unit
        starts = self._starts.get(client)
        if starts is None:
            starts = self._starts[client] = [struct.clock for struct in self._structs.get(client, ())]
        index = bisect_right(starts, clock) - 1
        if index < 0:
            return None
        struct = self._structs[client][index]
        return struct if clock < struct.end else None

    def place(self, struct: Struct) -> Place | None:
        """Where `struct` lives; None where its origins lead into a gap, a GC run or a circle."""
        places = self._places
        path: list[Struct] = []
        at: Struct | None = struct
        place: Place | None = None
        while at is not None:
            if at in places:
                place = places[at]
                break
            places[at] = None  # what comes back to it while it is on the path is a circle
            path.append(at)
            if at.parent is not None:
                place = Place(at.parent, at.parent_key)
                break
            link = at.origin or at.right_origin
            at = self.holder(link) if link is not None else None
        for visited in path:
            places[visited] = place
        return place

    def is_entry(self, struct: Struct) -> bool:
        """Whether `struct` is known to be an entry of a map. No editor writes one of more than one unit."""
        place = self.place(struct)
        return place is not None and place.key is not None

    def parent_type(self, struct: Struct) -> Id | None:
        """The id of the type that `struct` lives in; None for a root type or an unknown place."""
        place = self.place(struct)
        return place.parent if place is not None and isinstance(place.parent, tuple) else None


def settled_clocks(structs: dict[int, list[Struct]]) -> dict[int, int]:
    """For each client, the clock up to which a document that gets nothing but this update applies it.

    What lies behind waits for a missing predecessor, its own or that of something that it refers to. Each client
    goes on as far as it can, then wakes those that waited for a clock that it has now reached, and no others: the
    whole is linear but for the heaps in which they wait.
    """
    applied = dict.fromkeys(structs, 0)
    waiting: dict[int, list[tuple[int, int]]] = {}  # heaps of (clock, who needs it)
    iterators = {client: iter(block) for client, block in structs.items()}
    heads = {client: next(iterator) for client, iterator in iterators.items()}
    ready = list(structs)
    while ready:
        client = ready.pop()
        head: Struct | None = heads[client]
        while head is not None and head.kind != SKIP and head.clock == applied[client]:
            blocker = _blocker(head, applied)
            if blocker is not None:
                heappush(waiting.setdefault(blocker[0], []), (blocker[1], client))
                break
            applied[client] = head.end
            head = next(iterators[client], None)
            if head is not None:
                heads[client] = head
        sleepers = waiting.get(client, [])
        while sleepers and sleepers[0][0] < applied[client]:
            ready.append(heappop(sleepers)[1])
    return applied


def _blocker(struct: Struct, applied: dict[int, int]) -> Id | None:
    """A unit that `struct` needs and that is not applied yet."""
    for need in (struct.origin, struct.right_origin, struct.parent):
        if isinstance(need, tuple) and need[1] >= applied.get(need[0], 0):
            return need
    return None


class Fate:
    """What of an update no document will ever show, whatever else arrives: the delete set, thought to its end.

    Children of a deleted type are deleted with it, in Yjs and in yrs, also those that came later or from somebody
    who had not seen the deletion; nobody needs to send a delete for them. That holds only for what a document
    applies; what waits for a missing predecessor has no fate yet. Where a type's content is gone, only those that
    name it are surely its children: others stand beside a GC run, of which decoders make different things.
    """

    __slots__ = ("_deletes", "_doomed", "_emptied", "_lineage", "_settled", "gone")

    def __init__(self, update: StructUpdate, lineage: Lineage) -> None:
        self._lineage = lineage
        self._deletes = update.deletes
        self._doomed = _deleted_types(update)
        self._emptied = _emptied_types(update, lineage)
        self._settled: dict[int, int] = {}
        self.gone: frozenset[Id] = frozenset()
        if self._doomed or self._emptied:
            self._settled = settled_clocks(update.structs)
            self._doom_nested(update)
            self.gone = self._types_to_drop(update)

    def is_doomed(self, client: int, struct: Struct) -> bool:
        """Whether `struct`, an item of `client`, is deleted as a whole because of where it stands."""
        if not self._settled or struct.end > self._settled[client]:
            return False
        if struct.parent is not None and struct.parent in self._emptied:
            return True
        return self._lineage.parent_type(struct) in self._doomed

    def _doom_nested(self, update: StructUpdate) -> None:
        """Adds the types that stand in deleted ones, at any depth."""
        nested: dict[Id, list[Id]] = {}
        spreading = list(self._doomed)
        for client, struct in _items(update):
            if struct.kind == TYPE and struct.end <= self._settled[client]:
                parent = self._lineage.parent_type(struct)
                if parent is not None:
                    nested.setdefault(parent, []).append((client, struct.clock))
                if struct.parent is not None and struct.parent in self._emptied:
                    spreading.append((client, struct.clock))
        self._doomed.update(spreading)
        while spreading:
            nearer = [child for child in nested.get(spreading.pop(), ()) if child not in self._doomed]
            self._doomed.update(nearer)
            spreading += nearer

    def _types_to_drop(self, update: StructUpdate) -> frozenset[Id]:
        """The types whose children may become GC runs: deleted, and referred to only by what goes with them.

        A type stays while anything that refers to it, or to one of its children, is not itself a deleted child of
        it, waits for a missing predecessor, or is a type that stays. So nothing that is left ever refers to a unit
        that the fold turned into GC: Yjs would turn it into GC as well. A type whose content went in an earlier
        fold counts as deleted.
        """
        lineage = self._lineage
        stays: set[Id] = set()
        for client, struct in _items(update):
            parent = lineage.parent_type(struct)
            goes = struct.end <= self._settled[client] and (
                self.is_doomed(client, struct) or covers(self._deletes.get(client, []), struct.clock, struct.end)
            )
            if parent is not None and not goes:
                stays.add(parent)
            for link in (struct.origin, struct.right_origin):
                linked = lineage.holder(link) if link is not None else None
                linked_parent = lineage.parent_type(linked) if linked is not None else None
                if linked_parent is not None and (linked_parent != parent or not goes):
                    stays.add(linked_parent)
        _spread(stays, lineage)
        return frozenset((self._doomed | self._emptied) - stays)


def _deleted_types(update: StructUpdate) -> set[Id]:
    """Types that the delete set covers."""
    return {
        (client, struct.clock)
        for client, block in update.structs.items()
        if client in update.deletes
        for struct in block
        if struct.kind == TYPE and covers(update.deletes[client], struct.clock, struct.end)
    }


def _emptied_types(update: StructUpdate, lineage: Lineage) -> set[Id]:
    """Named parents that the delete set covers and that have no content any more, or never were types."""
    emptied: set[Id] = set()
    for block in update.structs.values():
        for struct in block:
            if isinstance(struct.parent, tuple) and struct.parent not in emptied:
                holder = lineage.holder(struct.parent)
                client, clock = struct.parent
                is_deleted = covers(update.deletes.get(client, []), clock, clock + 1)
                if is_deleted and holder is not None and holder.kind not in (TYPE, SKIP):
                    emptied.add(struct.parent)
    return emptied


def _items(update: StructUpdate) -> Iterator[tuple[int, Struct]]:
    for client, block in update.structs.items():
        for struct in block:
            if struct.kind not in (GC, SKIP):
                yield client, struct


def _spread(stays: set[Id], lineage: Lineage) -> None:
    """Adds to `stays` every type that holds one that stays."""
    spreading = list(stays)
    while spreading:
        holder = lineage.holder(spreading.pop())
        parent = lineage.parent_type(holder) if holder is not None else None
        if parent is not None and parent not in stays:
            stays.add(parent)
            spreading.append(parent)
