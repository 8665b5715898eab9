"""Sets of clocks as intervals: what one client's structs, or deletes, come to.

Nearly always a set is one interval that grows at its end, which costs a constant; whatever else comes is found by
halving. What the clocks mean is not known here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

# From so many intervals on, a set is joined with them in one go: each insertion in the middle of a large set moves
# what stands behind it, and an update of 400 KB can bring 100,000 of them.
BULK_MIN: Final = 1_000


class IntervalSet:
    """A set of non-negative integers as sorted, disjoint, half-open intervals that do not touch; `total` of them."""

    __slots__ = ("ends", "starts", "total")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.total = 0
        for start, end in intervals:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Adds [start, end), which must not be empty. Constant at the end of the set, linear elsewhere."""
        starts = self.starts
        ends = self.ends
        if not starts or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            self.total += end - start
        elif start >= starts[-1]:
            if end > ends[-1]:
                self.total += end - ends[-1]
                ends[-1] = end
        else:
            # The intervals from `low` to before `high` overlap or touch the new one and are joined with it.
            low = bisect_left(ends, start)
            high = bisect_right(starts, end)
            if low < high:
                start = min(start, starts[low])
                end = max(end, ends[high - 1])
                self.total -= sum(ends[low:high]) - sum(starts[low:high])
            self.total += end - start
            starts[low:high] = (start,)
            ends[low:high] = (end,)

    def add_all(self, intervals: Sequence[tuple[int, int]]) -> None:
        """Adds many intervals, none of them empty, in any order. Linear but for sorting them."""
        if len(intervals) < BULK_MIN:
            for start, end in intervals:
                self.add(start, end)
            return
        coming = sorted(intervals)
        low = bisect_left(self.ends, coming[0][0])
        coming += zip(self.starts[low:], self.ends[low:], strict=True)
        coming.sort()
        starts, ends = self.starts, self.ends
        del starts[low:], ends[low:]
        at = -1
        for start, end in coming:
            if start > at:
                starts.append(start)
                ends.append(end)
                at = end
            elif end > at:
                at = ends[-1] = end
        self.total = sum(ends) - sum(starts)

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in the set."""
        index = bisect_right(self.starts, start)
        return index > 0 and end <= self.ends[index - 1]

    def reach(self, start: int) -> int:
        """How far the set goes on without a gap from `start`: an end, or `start` itself where it is not held."""
        index = bisect_right(self.starts, start)
        return max(start, self.ends[index - 1]) if index > 0 else start

    def contiguous_end(self) -> int:
        """The end of the interval that begins at 0; 0 where there is none."""
        return self.ends[0] if self.starts and self.starts[0] == 0 else 0

    def behind_gap(self) -> int:
        """How much of it lies beyond the interval that begins at 0."""
        return self.total - self.contiguous_end()

    def copy(self) -> IntervalSet:
        """A set of its own with the same content."""
        other = IntervalSet()
        other.total = self.total
        other.starts = self.starts.copy()
        other.ends = self.ends.copy()
        return other

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.starts, self.ends, strict=True))

    def __len__(self) -> int:
        return len(self.starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self.starts == other.starts and self.ends == other.ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)!r})"
