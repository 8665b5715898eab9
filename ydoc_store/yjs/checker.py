"""The checker: proof, before anything is deleted, that a folded update means what the merge meant.

It walks both side by side, unit by unit in runs, and shares nothing with the fold but the reader of records:
where the fold looks backwards along origins, the checker replays the merge forwards, as a document would apply
it. It is exact for gaps, pending structs and cut emoji, and needs no document. That a second fold changes
nothing is the caller's to try.
"""

from __future__ import annotations

from bisect import bisect_right

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.doomed import Doomed, Index
from ydoc_store.yjs.lib0 import Reader
from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.structs import Ranges, Struct, StructUpdate, read_update
from ydoc_store.yjs.walker import ANY, DELETED, GC, SKIP, STRING, TYPE

_RUNS = (GC, SKIP)


class FoldMismatch(ValueError):
    """The folded update is not equal to the merge; the message says where. The merge must be kept."""


def check_fold(merged: bytes, folded: bytes, *, keep_deleted: bool = False) -> None:
    """Returns if `folded` may take the place of `merged`, and raises FoldMismatch otherwise.

    Demanded: the same ids, gaps included; for every unit the same origin, right origin, parent and key; the same
    content, save that what the delete set covers, or what is applied in a deleted type, may be a deleted run; GC
    runs only for deleted, applied children of a deleted type, to which nothing that is left refers; no map's entries
    joined or cut; the same deletes, and more of them only for what is applied in a type that they cover. With
    `keep_deleted` all content must be there. Linear; holds the interpreter. A `merged` that cannot be read raises
    InvalidUpdate.
    """
    before = read_update(merged)
    try:
        after = read_update(folded)
    except InvalidUpdate as error:
        raise FoldMismatch(f"the folded update cannot be read: {error}") from error
    added = _added_deletes(before.deletes, after.deletes)
    if added and keep_deleted:
        raise FoldMismatch("the delete sets differ")
    if before.structs.keys() != after.structs.keys():
        raise FoldMismatch("the clients differ")
    turned: dict[int, list[Struct]] = {}
    implied: list[tuple[int, Struct]] = []
    joined: list[tuple[int, Struct]] = []
    for client, block in before.structs.items():
        walk = _Walk(client, before.deletes.get(client, []), keep_deleted)
        walk.side_by_side(block, after.structs[client])
        if walk.turned:
            turned[client] = walk.turned
        implied += ((client, struct) for struct in walk.implied)
        joined += ((client, struct) for struct in walk.joined)
    _check_parents(before, after)
    has_keys = any(struct.parent_key is not None for block in before.structs.values() for struct in block)
    if turned or implied or added or (joined and has_keys):
        replay = Replay(before)
        _check_implied(implied, added, before, replay)
        _check_turned(turned, after, replay)
        _check_joined(joined, replay)


class _Walk:
    """One client's structs in the merge and in the folded update, side by side.

    Collects the items that became GC, as the merge has them, those that lost content that the delete set does not
    cover, and those that were joined alive, or cut.
    """

    def __init__(self, client: int, ranges: Ranges, keep_deleted: bool) -> None:  # private
        self.client = client
        self.ranges = ranges
        self.keep_deleted = keep_deleted
        self.turned: list[Struct] = []
        self.implied: list[Struct] = []
        self.joined: list[Struct] = []
        self._range_at = 0
        self._before = _Content()
        self._after = _Content()

    def side_by_side(self, before: list[Struct], after: list[Struct]) -> None:
        if before[0].clock != after[0].clock or before[-1].end != after[-1].end:
            raise FoldMismatch(f"client {self.client}: the clocks differ")
        merged = iter(before)
        old = next(merged)
        for new in after:
            if new.kind in (STRING, ANY) and old.end < new.end:
                self.joined.append(old)
            while True:
                start = old.clock if old.clock > new.clock else new.clock
                end = old.end if old.end < new.end else new.end
                self._compare(old, new, start, end)
                if old.end == end:
                    following = next(merged, None)
                    if following is None:
                        break
                    old = following
                if new.end == end:
                    if old.kind in (STRING, ANY) and old.clock < end:
                        self.joined.append(old)
                    break

    def _compare(self, old: Struct, new: Struct, start: int, end: int) -> None:
        """Compares the units `start` to `end`, which both structs hold."""
        if new.kind in _RUNS or old.kind in _RUNS:
            self._compare_run(old, new, start, end)
            return
        own = (self.client, start - 1)
        if (old.origin if start == old.clock else own) != (new.origin if start == new.clock else own):
            raise self._mismatch(start, "another origin")
        if old.right_origin != new.right_origin:
            raise self._mismatch(start, "another right origin")
        old_place = (old.parent, old.parent_key) if start == old.clock else (None, None)
        new_place = (new.parent, new.parent_key) if start == new.clock else (None, None)
        if old_place != new_place:
            raise self._mismatch(start, "another parent")
        if old.kind == new.kind:
            if not self._same_content(old, new, start, end):
                raise self._mismatch(start, "other content")
        elif new.kind != DELETED or self.keep_deleted:
            raise self._mismatch(start, f"content of kind {old.kind} became {new.kind}")
        elif not self._deleted(start, end):
            self.implied.append(old)

    def _compare_run(self, old: Struct, new: Struct, start: int, end: int) -> None:
        if old.kind == new.kind:
            return
        if new.kind != GC or old.kind in _RUNS or self.keep_deleted:
            raise self._mismatch(start, f"kind {old.kind} became {new.kind}")
        if (start, end) != (old.clock, old.end):
            raise self._mismatch(start, "part of an item became GC")
        if not self._deleted(start, end):
            self.implied.append(old)
        self.turned.append(old)

    def _deleted(self, start: int, end: int) -> bool:
        """Whether the delete set covers all these units. Asked in rising order."""
        ranges = self.ranges
        while self._range_at < len(ranges) and ranges[self._range_at][1] <= start:
            self._range_at += 1
        if self._range_at == len(ranges):
            return False
        first, last = ranges[self._range_at]
        return first <= start and end <= last

    def _same_content(self, old: Struct, new: Struct, start: int, end: int) -> bool:
        if old.kind == DELETED:
            return True
        if old.clock == new.clock and old.end == new.end:
            return old.payload == new.payload
        before, after = self._before.of(old), self._after.of(new)
        if old.kind == STRING and not (before.narrow and after.narrow):
            return before.wide_units(start, end) == after.wide_units(start, end)
        return before.units(start, end) == after.units(start, end)

    def _mismatch(self, clock: int, reason: str) -> FoldMismatch:
        return FoldMismatch(f"client {self.client}, clock {clock}: {reason}")


class _Content:
    """The content of one struct at a time, addressed by clock. What it decodes it decodes once a struct."""

    def __init__(self) -> None:
        self.narrow = True
        self._struct: Struct | None = None
        self._clock = 0
        self._payload = b""
        self._values: bytes | list[bytes] = b""
        self._wide: bytes | None = None

    def of(self, struct: Struct) -> _Content:
        if struct is not self._struct:
            self._struct = struct
            self._clock = struct.clock
            self._payload = struct.payload
            self._values = _any_values(struct.payload) if struct.kind == ANY else struct.payload
            self._wide = None
            self.narrow = struct.payload.isascii()
        return self

    def units(self, start: int, end: int) -> bytes | list[bytes]:
        return self._values[start - self._clock : end - self._clock]

    def wide_units(self, start: int, end: int) -> bytes:
        if self._wide is None:
            self._wide = self._payload.decode().encode("utf-16-be")
        return self._wide[(start - self._clock) * 2 : (end - self._clock) * 2]


def _any_values(payload: bytes) -> list[bytes]:
    reader = Reader(payload)
    values = []
    while not reader.done:
        start = reader.at
        reader.skip_any()
        values.append(payload[start : reader.at])
    return values


def _added_deletes(before: dict[int, Ranges], after: dict[int, Ranges]) -> list[tuple[int, int, int]]:
    """The ranges (client, start, end) that `after` deletes and `before` does not. It must not lack any of `before`."""
    added: list[tuple[int, int, int]] = []
    for client in before.keys() | after.keys():
        events = [(clock, step) for start, end in before.get(client, ()) for clock, step in ((start, 1), (end, -1))]
        events += [(clock, step) for start, end in after.get(client, ()) for clock, step in ((start, 2), (end, -2))]
        level = since = 0  # bit 0: before, bit 1: after
        for clock, step in sorted(events):
            if clock > since and level == 1:
                raise FoldMismatch(f"the delete sets differ: client {client}, clock {since}")
            if clock > since and level == 2:
                added.append((client, since, clock))
            level += step
            since = clock
    return added


def _check_implied(
    implied: list[tuple[int, Struct]], added: list[tuple[int, int, int]], before: StructUpdate, replay: Replay
) -> None:
    """Checks what the delete set did not cover and is treated as deleted: a document deletes it as it applies it.

    It does so to whatever stands in a deleted type, however deep.
    """
    if not implied and not added:
        return
    doomed = Doomed(before, replay)
    for client, struct in implied:
        if struct.end > replay.applied(client) or not doomed.has(client, struct):
            raise FoldMismatch(f"client {client}, clock {struct.clock}: content dropped that is not deleted")
    for client, start, end in added:
        where = f"the delete sets differ: client {client}, clock {start}"
        if end > replay.applied(client):
            raise FoldMismatch(where)
        for struct in doomed.index.overlapping(client, start, end):
            if not doomed.has(client, struct):
                raise FoldMismatch(where)


def _check_turned(turned: dict[int, list[Struct]], after: StructUpdate, replay: Replay) -> None:
    """Checks the items that became GC: nothing can notice, not even what arrives later."""
    index = Index(after)
    for client, structs in turned.items():
        for struct in structs:
            where = f"client {client}, clock {struct.clock}: an item became GC"
            if struct.end > replay.applied(client):
                raise FoldMismatch(f"{where} that waits for a predecessor")
            home = replay.home((client, struct.clock))
            if home is None or isinstance(home.parent, str):
                raise FoldMismatch(f"{where} outside of any deleted type")
            if index.kind(home.parent) not in (DELETED, GC):
                raise FoldMismatch(f"{where} in a type that is still there")
    turned_ranges = {
        client: ([struct.clock for struct in structs], [struct.end for struct in structs])
        for client, structs in turned.items()
    }
    for client, block in after.structs.items():
        for struct in block:
            for unit in (struct.origin, struct.right_origin, struct.parent):
                if not isinstance(unit, tuple) or unit[0] not in turned_ranges:
                    continue
                starts, ends = turned_ranges[unit[0]]
                at = bisect_right(starts, unit[1]) - 1
                if at >= 0 and unit[1] < ends[at]:
                    raise FoldMismatch(f"client {client}, clock {struct.clock}: refers to {unit}, which became GC")


def _check_parents(before: StructUpdate, after: StructUpdate) -> None:
    """Checks that no type lost its content while something that is left names it as its parent."""
    named = {struct.parent for block in after.structs.values() for struct in block if isinstance(struct.parent, tuple)}
    if not named:
        return
    was, became = Index(before), Index(after)
    for parent in named:
        if was.kind(parent) == TYPE and became.kind(parent) != TYPE:
            raise FoldMismatch(f"the type {parent} lost its content, but not all of its children")


def _check_joined(joined: list[tuple[int, Struct]], replay: Replay) -> None:
    """Checks that no live entries of a map were joined, or one cut: applying the later deletes the earlier."""
    for client, struct in joined:
        home = replay.home((client, struct.clock))
        if home is not None and home.key is not None:
            raise FoldMismatch(f"client {client}, clock {struct.clock}: entries of a map were joined or cut")
