"""What a room keeps of its document's bytes, so that a reader need not wait for the database. Pure.

Two parts: a base that equals every update up to some seq, and the runs delivered since, in order. Either may be
missing: the log is the truth, this is a short cut, bounded in bytes by room and by process. Nothing is merged
here; whoever reads joins the runs and gives the result back, for the next reader.
"""

from __future__ import annotations

from collections import deque

# What a kept run takes beside its bytes; updates of one typed character are some twenty bytes long.
RUN_OVERHEAD_BYTES = 100


class CacheBudget:
    """The bytes that all rooms of this process may keep together; past it the caches unused longest are emptied."""

    __slots__ = ("by_use", "bytes_max", "used_bytes")

    def __init__(self, bytes_max: int):
        self.bytes_max = bytes_max
        self.used_bytes = 0
        # In the order in which readers last used them.
        self.by_use: dict[RoomCache, None] = {}

    def used(self, cache: RoomCache) -> None:
        self.by_use.pop(cache, None)
        self.by_use[cache] = None

    def make_room(self) -> None:
        while self.used_bytes > self.bytes_max and self.by_use:
            next(iter(self.by_use)).clear()


class RoomCache:
    """`base` equals all updates with seq <= `base_seq` (b"": there were none).

    `recent` are (last seq, update) after it, contiguous; runs whose updates were not joined repeat their last seq.
    `loaded` is what a load brought and what is too large to keep: for the one reader that caused it.
    """

    __slots__ = (
        "_lent_bytes",
        "base",
        "base_seq",
        "budget",
        "bytes_max",
        "last_seq",
        "loaded",
        "recent",
        "used_bytes",
    )

    def __init__(self, budget: CacheBudget, bytes_max: int, seq: int = 0):
        self.budget = budget
        self.bytes_max = bytes_max
        self.base: bytes | None = None
        self.base_seq = self.last_seq = seq
        self.recent: deque[tuple[int, bytes]] = deque()
        self.loaded: tuple[int, list[bytes]] | None = None
        self._lent_bytes = 0
        self.used_bytes = 0

    def _charge(self, size: int) -> None:
        self.used_bytes += size
        self.budget.used_bytes += size

    def fill(self, seq: int, update: bytes) -> None:
        """Keep `update` as what equals the document up to `seq`, if it is not too large for that."""
        self.clear(seq)
        self.budget.used(self)
        if len(update) <= self.bytes_max:
            self.base = update
            self._charge(len(update))
            self.budget.make_room()

    def add(self, last_seq: int, update: bytes) -> None:
        """One more run, behind all others. Over the cap the base goes first, then the oldest runs."""
        self.last_seq = last_seq
        self.recent.append((last_seq, update))
        self._charge(len(update) + RUN_OVERHEAD_BYTES)
        # What is lent goes by itself within seconds, and would put every run out meanwhile.
        while self.recent and self.used_bytes - self._lent_bytes > self.bytes_max:
            self._shrink()
        # One that was emptied and grows again can be emptied again, whether or not a reader ever comes.
        self.budget.by_use.setdefault(self)
        if self.budget.used_bytes > self.budget.bytes_max:
            self.budget.make_room()

    def _shrink(self) -> None:
        if self.base is not None:
            self._charge(-len(self.base))
            self.base = None
            return
        seq, update = self.recent.popleft()
        self.base_seq = seq
        self._charge(-len(update) - RUN_OVERHEAD_BYTES)

    def after(self, seq: int) -> list[bytes] | None:
        """The updates that a reader at `seq` lacks, oldest first; None when that is not kept here."""
        if seq < self.base_seq:
            return None
        return [update for last, update in self.recent if last > seq]

    def parts(self) -> list[bytes] | None:
        """The whole document as the base and the runs after it, or None."""
        if self.base is None:
            return None
        self.budget.used(self)
        return [*self.base_parts, *(update for _, update in self.recent)]

    @property
    def base_parts(self) -> list[bytes]:
        """What of `parts` is the base: nothing where no update came before the runs. Only what follows is joined."""
        return [self.base] if self.base else []

    def join(self, seq: int, joined: bytes) -> None:
        """Keep `joined` in place of the runs up to `seq`, which it equals."""
        if self.base is None or seq > self.last_seq:
            return
        while self.recent and self.recent[0][0] <= seq:
            self._charge(-len(self.recent.popleft()[1]) - RUN_OVERHEAD_BYTES)
        self.recent.appendleft((seq, joined))
        self._charge(len(joined) + RUN_OVERHEAD_BYTES)

    def lend(self, seq: int, parts: list[bytes]) -> None:
        """Hold the whole document, whatever its size, for the one reader that it was loaded for."""
        self.drop_loaded()
        size = sum(map(len, parts))
        if self.budget.used_bytes + size <= self.budget.bytes_max:
            self.loaded, self._lent_bytes = (seq, parts), size
            self._charge(size)

    def drop_loaded(self) -> tuple[int, list[bytes]] | None:
        """Hold what was loaded no longer; returns it."""
        self._charge(-self._lent_bytes)
        loaded, self.loaded, self._lent_bytes = self.loaded, None, 0
        return loaded

    def clear(self, seq: int | None = None) -> None:
        """Forget everything; what comes next follows `seq`, by default what came last."""
        self.budget.by_use.pop(self, None)
        self._charge(-self.used_bytes)
        self.base = None
        self.loaded, self._lent_bytes = None, 0
        if seq is not None:
            self.last_seq = seq
        self.base_seq = self.last_seq
        self.recent.clear()
