"""Runs of committed updates, and those that are here before what comes first: bounded, the log has them too. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member

# Own commits that are known before those of another node that come first: over this they are read from the log.
EARLY_BYTES_MAX = 16 * 1024 * 1024


@dataclass(slots=True)
class Run:
    """Committed updates (first - 1, last] on their way to the members."""

    first: int
    last: int
    updates: Sequence[bytes]
    sole_writer: Member | None


class EarlyRuns:
    """What came too early, by its first seq."""

    __slots__ = ("_bytes", "_left_to_log", "_runs")

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._bytes = 0
        # Up to where runs came that were too much to keep.
        self._left_to_log = 0

    def put(self, run: Run) -> None:
        """Keep it, or leave it to the log: its senders were told and may send more while a slow look at the log is
        under way, and what waits for that has to end somewhere."""
        size = sum(map(len, run.updates))
        if self._bytes + size > EARLY_BYTES_MAX:
            self._left_to_log = max(self._left_to_log, run.last)
        else:
            self._runs[run.first] = run
            self._bytes += size

    def take(self, head: int) -> Run | None:
        """The run that is next behind `head`, or overlaps it, without what lies before; None where there is none."""
        while self._runs and (first := min(self._runs)) <= head + 1:
            run = self._runs.pop(first)
            self._bytes -= sum(map(len, run.updates))
            if run.last > head:
                run.updates = run.updates[head + 1 - first :]
                return run
        return None

    def clear(self) -> None:
        self._runs.clear()
        self._bytes = 0

    def reach_beyond(self, head: int) -> bool:
        """Whether the log is known to hold more than up to `head`."""
        return bool(self._runs) or head < self._left_to_log
