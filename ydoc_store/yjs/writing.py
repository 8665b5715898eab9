"""Changing a tree, and giving back what was changed as one update: the items of a new client, and what was deleted.

As Yjs would write it: an item names its neighbours, what replaces a key's value deletes that, a deleted type's content
is deleted with it. Positions count what Yjs counts: UTF-16 units of text, values of an array, children of XML.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from ydoc_store.errors import TooLarge, WrongState
from ydoc_store.yjs.lib0 import encode_string, encode_uint, utf16_length
from ydoc_store.yjs.structs import Ranges, Struct, Units, join_ranges, write_update
from ydoc_store.yjs.tree import XML_ELEMENT, Branch, Item, Tree
from ydoc_store.yjs.values import encode_any, encode_json
from ydoc_store.yjs.walker import ANY, EMBED, FORMAT, STRING, TYPE

STRUCTS_MAX: Final = 100_000


class Writer:
    """Writes into one tree as a client of its own. `structs_max` bounds what one update may bring: TooLarge."""

    def __init__(self, tree: Tree, structs_max: int = STRUCTS_MAX) -> None:
        self.tree = tree
        self._structs_max = structs_max
        self._structs: list[Struct] = []
        self._deletes: defaultdict[int, Ranges] = defaultdict(list)
        # An item of a sequence, and the units in front of it. Whatever is written to the sequence is written behind its
        # last one (`seek`), or it is forgotten.
        self._marks: dict[Branch, tuple[Item, int]] = {}
        self._ends: dict[Branch, Item] = {}
        # Which formats hold behind an item of a text: marks.py's, which writes formats behind its last one alone.
        self.formats: dict[Branch, tuple[Item, dict[str, Any]]] = {}
        self._client = secrets.randbits(32)
        while self._client in tree.clients:
            self._client = secrets.randbits(32)

    def finish(self) -> bytes:
        """All that was written, as one update."""
        structs = {self._client: self._structs} if self._structs else {}
        return write_update(structs, {client: join_ranges(found) for client, found in self._deletes.items()})

    # Positions

    def seek(self, parent: Branch, index: int) -> Item | None:
        """The item behind which what is inserted at `index` goes (None: in front). Raises WrongState past the end, and
        between the halves of a surrogate pair."""
        if index == 0:
            # What is written in front moves all the rest.
            self._marks.pop(parent, None)
            return None
        item, at = self._find(parent, index - 1)
        if item is None:
            raise WrongState(f"{index} is past its end, which is {at}")
        if index - at < item.length:
            self.cut(item, index - at)
        return item

    def at(self, parent: Branch, index: int) -> Item | None:
        """The item that holds the unit at `index`; None past the end."""
        return self._find(parent, index)[0]

    def end(self, parent: Branch) -> Item | None:
        last = self._ends.get(parent, parent.start)
        while last is not None and last.right is not None:
            last = last.right
        if last is not None:
            self._ends[parent] = last
        return last

    def _find(self, parent: Branch, index: int) -> tuple[Item | None, int]:
        """The item that holds the unit at `index`, and the units in front of it; None and all units past the end.

        From where the last one was: many edits of a long list would each walk through all of it.
        """
        item, at = self._marks.get(parent, (parent.start, 0))
        if index < at // 2:
            item, at = parent.start, 0
        while at > index and item is not None:
            item = item.left
            at -= item.length if item is not None and item.is_counted else 0
        while item is not None:
            length = item.length if item.is_counted else 0
            if index < at + length:
                self._marks[parent] = item, at
                return item, at
            item, at = item.right, at + length
        return None, at

    def cut(self, item: Item, offset: int) -> None:
        """Cuts an item behind so many units. Raises WrongState between the halves of a surrogate pair."""
        if item.struct.kind == STRING and Units(item.struct).parts_a_pair(offset):
            raise WrongState("that is between the two halves of a surrogate pair: offsets count UTF-16 units")
        self.tree.split(item, item.struct.clock + offset)

    # Inserting

    def values(self, parent: Branch, left: Item | None, values: Sequence[Any]) -> Item | None:
        """Plain values, which are changed as a whole."""
        if not values:
            return left
        payload = b"".join(encode_any(value) for value in values)
        return self._insert(parent, left, ANY, len(values), payload)

    def text(self, parent: Branch, left: Item | None, text: str) -> Item:
        return self._insert(parent, left, STRING, utf16_length(text), text.encode())

    def format(self, parent: Branch, left: Item | None, key: str, value: Any) -> Item:
        return self._insert(parent, left, FORMAT, 1, encode_string(key) + encode_json(value))

    def embed(self, parent: Branch, left: Item | None, value: Any) -> Item:
        return self._insert(parent, left, EMBED, 1, encode_json(value))

    def type(self, parent: Branch, left: Item | None, kind: int, name: str = "") -> Item:
        """A shared type; its branch is the item's."""
        return self._insert(parent, left, TYPE, 1, _type_payload(kind, name))

    def set_value(self, parent: Branch, key: str, value: Any) -> Item:
        return self._insert(parent, self._replaced(parent, key), ANY, 1, encode_any(value), key)

    def set_type(self, parent: Branch, key: str, kind: int) -> Item:
        return self._insert(parent, self._replaced(parent, key), TYPE, 1, _type_payload(kind, ""), key)

    def _replaced(self, parent: Branch, key: str) -> Item | None:
        held = parent.entries.get(key)
        if held is not None and not held.deleted:
            self.delete(held)
        return held

    def _insert(
        self, parent: Branch, left: Item | None, kind: int, length: int, payload: bytes, key: str | None = None
    ) -> Item:
        if len(self._structs) >= self._structs_max:
            raise TooLarge(f"this brings more than {self._structs_max:,} pieces at once: bring it in several calls")
        right = (left.right if left is not None else parent.start) if key is None else None
        clock = self._structs[-1].end if self._structs else 0
        struct = Struct(clock, clock + length, kind, payload=payload)
        if left is not None:
            struct.origin = left.last_id
        if right is not None:
            struct.right_origin = right.client, right.struct.clock
        if left is None and right is None:
            holder = parent.item
            struct.parent = parent.root if holder is None else (holder.client, holder.struct.clock)
            struct.parent_key = key
        # Whole, whatever cuts the item later: a cut gives the item another record.
        self._structs.append(struct)
        item = Item(self._client, struct)
        item.parent, item.key = parent, key
        self.tree.link(item, left)
        self.tree.add_new(item)
        return item

    # Deleting

    def delete_range(self, parent: Branch, index: int, count: int) -> Item | None:
        """Deletes `count` units from `index` on; returns the item in front of them. Raises WrongState past the end."""
        before = self.seek(parent, index)
        left = count
        item = parent.start if before is None else before.right
        while item is not None and left > 0:
            if item.is_counted:
                if left < item.length:
                    self.cut(item, left)
                left -= item.length
                self.delete(item)
            item = item.right
        if left > 0:
            raise WrongState(f"{count} from {index} on is past its end, which is {index + count - left}")
        return before

    def delete(self, item: Item) -> None:
        """Deletes an item with all that is in it."""
        waiting = [item]
        while waiting:
            found = waiting.pop()
            if found.deleted:
                continue
            found.deleted = True
            self._deletes[found.client].append((found.struct.clock, found.struct.end))
            if found.branch is not None:
                waiting += found.branch.sequence()
                waiting += (inner for _, inner in found.branch.visible_entries())


def _type_payload(kind: int, name: str) -> bytes:
    return encode_uint(kind) + (encode_string(name) if kind == XML_ELEMENT else b"")
