"""A document as the tree of types and items that Yjs would build of it, without native code.

Made of the records of one update, in the order in which they can be applied; what waits for a predecessor stays out.
Ids, order and visibility are those of Yjs for any update (a property compares them, unit by unit), so that content can
be read, and edits made, without the losses of other decoders: UTF-16 units, the order of marks, cut surrogate pairs.
What the content means for a reader is read elsewhere, how it is changed is writing.py's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.lib0 import Reader
from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.structs import Id, Struct, Units, piece, read_update
from ydoc_store.yjs.walker import ANY, DELETED, FORMAT, GC, STRING, TYPE

ARRAY: Final = 0
MAP: Final = 1
TEXT: Final = 2
XML_ELEMENT: Final = 3
XML_FRAGMENT: Final = 4
XML_HOOK: Final = 5
XML_TEXT: Final = 6

# Readers recurse, two calls a level. As deep as one update may nest.
LEVELS_MAX: Final = 256


class Branch:
    """A shared type: its sequence from `start` on, and its entries by key. `kind` is None for a root type, which no
    update tells; `name` is an element's. `depth` counts the types around it."""

    __slots__ = ("depth", "entries", "item", "kind", "name", "root", "start")

    def __init__(self, kind: int | None, *, name: str = "", root: str = "", item: Item | None = None, depth: int = 0):
        self.kind = kind
        self.name = name
        self.root = root
        self.item = item
        self.depth = depth
        self.start: Item | None = None
        self.entries: dict[str, Item] = {}

    def sequence(self) -> Iterator[Item]:
        """What is visible of the sequence, in order, formats included."""
        item = self.start
        while item is not None:
            if not item.deleted:
                yield item
            item = item.right

    def visible_entries(self) -> Iterator[tuple[str, Item]]:
        return ((key, item) for key, item in self.entries.items() if not item.deleted)


class Item:
    """Units `clock` to `end` of a client in their place. `struct` holds their content; a GC item has no parent."""

    __slots__ = ("branch", "client", "deleted", "key", "left", "parent", "right", "struct")

    def __init__(self, client: int, struct: Struct) -> None:
        self.client = client
        self.struct = struct
        self.parent: Branch | None = None
        self.key: str | None = None
        self.left: Item | None = None
        self.right: Item | None = None
        self.branch: Branch | None = None
        self.deleted = struct.kind in (GC, DELETED)

    @property
    def last_id(self) -> Id:
        return self.client, self.struct.end - 1

    @property
    def length(self) -> int:
        return self.struct.end - self.struct.clock

    @property
    def is_counted(self) -> bool:
        """Whether it takes part in indexes: everything does but formats and what is deleted."""
        return not self.deleted and self.struct.kind != FORMAT


class Tree:
    """All of one update that can be applied. Raises InvalidUpdate where types nest deeper than can be read."""

    def __init__(self, update: bytes) -> None:
        decoded = read_update(update)
        self.clients = set(decoded.structs) | set(decoded.deletes)
        self.roots: dict[str, Branch] = {}
        self._items: dict[int, tuple[list[int], list[Item]]] = {}
        for client, struct in Replay(decoded).order:
            self._integrate(Item(client, struct))
        for client, ranges in decoded.deletes.items():
            for start, end in ranges:
                for item in self._within(client, start, end):
                    item.deleted = True

    def root(self, name: str) -> Branch:
        """The root type of this name, an empty one where nothing names it."""
        found = self.roots.get(name)
        if found is None:
            found = self.roots[name] = Branch(None, root=name)
        return found

    def _integrate(self, item: Item) -> None:
        struct = item.struct
        if struct.kind == GC:
            self._add(item)
            return
        left = self._ending_at(struct.origin) if struct.origin is not None else None
        right = self._starting_at(struct.right_origin) if struct.right_origin is not None else None
        parent, key = self._place(struct, left, right)
        if parent is None:
            item.deleted = True
            self._add(item)
            return
        item.parent, item.key = parent, key
        self.link(item, self._left_of(item, left, right))
        if struct.kind == TYPE:
            item.branch = self._branch_of(item)
        self._add(item)

    def _place(self, struct: Struct, left: Item | None, right: Item | None) -> tuple[Branch | None, str | None]:
        if (left is not None and left.parent is None) or (right is not None and right.parent is None):
            return None, None
        if struct.parent is None:
            beside = left or right
            return (beside.parent, beside.key) if beside is not None else (None, None)
        if isinstance(struct.parent, str):
            return self.root(struct.parent), struct.parent_key
        return self._holding(struct.parent).branch, struct.parent_key

    def _left_of(self, item: Item, left: Item | None, right: Item | None) -> Item | None:
        """The item behind which this one goes: Yjs's own rule for what was written at the same place at once."""
        if left is not None and left.right is right:
            return left
        if left is None and right is not None and right.left is None:
            return None
        struct = item.struct
        other = left.right if left is not None else _first(item)
        conflicting: set[Item] = set()
        before_origin: set[Item] = set()
        while other is not None and other is not right:
            before_origin.add(other)
            conflicting.add(other)
            origin = other.struct.origin
            if struct.origin == origin:
                if other.client < item.client:
                    left = other
                    conflicting.clear()
                elif struct.right_origin == other.struct.right_origin:
                    break
            elif origin is not None and (holding := self._holding(origin)) in before_origin:
                if holding not in conflicting:
                    left = other
                    conflicting.clear()
            else:
                break
            other = other.right
        return left

    def link(self, item: Item, left: Item | None) -> None:
        """Puts an item, whose parent and key are set, behind `left` (None: in front). Of a key the last item counts."""
        parent, key = item.parent, item.key
        if parent is None:
            raise ValueError("an item without a parent has no place")
        item.left = left
        item.right = left.right if left is not None else _first(item)
        if left is not None:
            left.right = item
        elif key is None:
            parent.start = item
        if item.right is not None:
            item.right.left = item
            item.deleted = item.deleted or key is not None
        elif key is not None:
            parent.entries[key] = item
            if left is not None:
                left.deleted = True

    def _branch_of(self, item: Item) -> Branch:
        reader = Reader(item.struct.payload)
        kind = reader.uint()
        name = reader.string() if kind in (XML_ELEMENT, XML_HOOK) else ""
        depth = item.parent.depth + 1 if item.parent is not None else 0
        if depth > LEVELS_MAX:
            raise InvalidUpdate(f"its types nest more than {LEVELS_MAX} deep: this deep they cannot be read here")
        return Branch(kind, name=name, item=item, depth=depth)

    # Items by id

    def add_new(self, item: Item) -> None:
        """Notes a linked item that an edit made, the next of its client."""
        if item.struct.kind == TYPE:
            item.branch = self._branch_of(item)
        self._add(item)

    def _add(self, item: Item) -> None:
        starts, items = self._items.setdefault(item.client, ([], []))
        starts.append(item.struct.clock)
        items.append(item)

    def _holding(self, unit: Id) -> Item:
        starts, items = self._items[unit[0]]
        return items[bisect_right(starts, unit[1]) - 1]

    def _ending_at(self, unit: Id) -> Item:
        item = self._holding(unit)
        if item.struct.end != unit[1] + 1:
            self.split(item, unit[1] + 1)
        return item

    def _starting_at(self, unit: Id) -> Item:
        item = self._holding(unit)
        return item if item.struct.clock == unit[1] else self.split(item, unit[1])

    def _within(self, client: int, start: int, end: int) -> Iterator[Item]:
        """The items of exactly these units, as far as they were applied; they are split at both ends."""
        _, items = self._items.get(client, ([], []))
        if not items:
            return
        end = min(end, items[-1].struct.end)
        at = start
        while at < end:
            item = self._starting_at((client, at))
            if item.struct.end > end:
                self.split(item, end)
            yield item
            at = item.struct.end

    def split(self, item: Item, clock: int) -> Item:
        """Cuts an item; it keeps the units before `clock`, the returned one has the rest."""
        struct = item.struct
        rest = Item(item.client, _cut(item.client, struct, clock, struct.end))
        item.struct = _cut(item.client, struct, struct.clock, clock)
        rest.parent, rest.key, rest.deleted = item.parent, item.key, item.deleted
        rest.left, rest.right = item, item.right
        if item.right is not None:
            item.right.left = rest
        item.right = rest
        if rest.key is not None and rest.right is None and rest.parent is not None:
            rest.parent.entries[rest.key] = rest
        starts, items = self._items[item.client]
        at = bisect_right(starts, struct.clock)
        starts.insert(at, clock)
        items.insert(at, rest)
        return rest


def _first(item: Item) -> Item | None:
    """The first item of an item's sequence, or of the chain of its key."""
    if item.parent is None:
        return None
    if item.key is None:
        return item.parent.start
    first = item.parent.entries.get(item.key)
    while first is not None and first.left is not None:
        first = first.left
    return first


def _cut(client: int, struct: Struct, start: int, end: int) -> Struct:
    if struct.kind in (STRING, ANY):
        return piece(client, struct, Units(struct), start, end)
    if start > struct.clock:
        return Struct(start, end, struct.kind, (client, start - 1), struct.right_origin)
    return Struct(start, end, struct.kind, struct.origin, struct.right_origin, struct.parent, struct.parent_key)
