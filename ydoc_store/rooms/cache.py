"""What a room keeps of its document's bytes, so that a reader need not wait for the database. Pure.

Two parts: a base that equals every update up to some seq, and the runs delivered since, in order. Either may be
missing: the log is the truth, this is a short cut, bounded in bytes by room and by process. Merging happens only
here and only when a reader comes.
"""

from __future__ import annotations

from collections import deque

from ydoc_store.yjs.merge import merge


class CacheBudget:
    """The bytes that all rooms of this process may keep together."""

    __slots__ = ("bytes_max", "used_bytes")

    def __init__(self, bytes_max: int):
        self.bytes_max = bytes_max
        self.used_bytes = 0


class RoomCache:
    """`base` equals all updates with seq <= `base_seq` (b"": there were none); `recent` are (last seq, update), contiguous after it."""

    __slots__ = ("base", "base_seq", "budget", "bytes_max", "recent", "used_bytes")

    def __init__(self, budget: CacheBudget, bytes_max: int, seq: int = 0):
        self.budget = budget
        self.bytes_max = bytes_max
        self.base: bytes | None = None
        self.base_seq = seq
        self.recent: deque[tuple[int, bytes]] = deque()
        self.used_bytes = 0

    def _charge(self, size: int) -> None:
        self.used_bytes += size
        self.budget.used_bytes += size

    def fill(self, seq: int, update: bytes) -> None:
        """Keep `update` as what equals the document up to `seq`, if there is room for it."""
        self.clear(seq)
        if len(update) <= self.bytes_max and self.budget.used_bytes + len(update) <= self.budget.bytes_max:
            self.base = update
            self._charge(len(update))

    def add(self, last_seq: int, update: bytes) -> None:
        """One more run, behind all others. Over the cap the base goes first, then the oldest runs."""
        self.recent.append((last_seq, update))
        self._charge(len(update))
        while self.recent and (self.used_bytes > self.bytes_max or self.budget.used_bytes > self.budget.bytes_max):
            self._shrink()

    def _shrink(self) -> None:
        if self.base is not None:
            self._charge(-len(self.base))
            self.base = None
            return
        seq, update = self.recent.popleft()
        self.base_seq = seq
        self._charge(-len(update))

    def after(self, seq: int) -> list[bytes] | None:
        """The updates that a reader at `seq` lacks, oldest first; None when that is not kept here."""
        if seq < self.base_seq:
            return None
        return [update for last, update in self.recent if last > seq]

    def parts(self) -> list[bytes] | None:
        """The whole document as one or two updates, or None. The runs are joined, for this reader and the next."""
        if self.base is None:
            return None
        if len(self.recent) > 1:
            seq = self.recent[-1][0]
            joined = merge([update for _, update in self.recent])
            self._charge(len(joined) - sum(len(update) for _, update in self.recent))
            self.recent.clear()
            self.recent.append((seq, joined))
        runs = [update for _, update in self.recent]
        return [self.base, *runs] if self.base else runs

    def clear(self, seq: int) -> None:
        """Forget everything; what comes next follows `seq`."""
        self._charge(-self.used_bytes)
        self.base = None
        self.base_seq = seq
        self.recent.clear()
