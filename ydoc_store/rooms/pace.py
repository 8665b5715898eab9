"""How fast one reader takes what it is sent, whatever carries it. Pure: its callers have the clock.

Only the time counts in which something waited for the reader: what this server takes to prepare an answer is not the
reader's slowness. What becomes of a slow one, and when, is decided where the memory is shared out (`budgets`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ydoc_store.rooms.budgets import Held

# A reader is judged by a third of the time after which one that takes nothing is gone: a lost wireless link is back
# within it, and whoever waits for memory still waits when the slow are known.
WINDOW_SHARE = 1 / 3
# Whoever was waited for during less of a window than this keeps up with what there is.
WAITED_SHARE = 1 / 2


class Pace:
    """One reader. `give_way` is set by whoever can end it; `held` is what is prepared for it just now."""

    __slots__ = (
        "_began_s",
        "_last_bytes_per_s",
        "_sending",
        "_taken_bytes",
        "_waited_s",
        "_window_s",
        "give_way",
        "held",
    )

    def __init__(self, slow_member_s: float, give_way: Callable[[], None] | None = None):
        self.give_way = give_way
        self.held: list[Held] = []
        self._window_s = slow_member_s * WINDOW_SHARE
        # The window that is under way: since when, how long something waited for the reader, and what it took.
        self._began_s = -math.inf
        self._waited_s = 0.0
        self._taken_bytes = 0
        # What is on its way to it, in bytes, and since when.
        self._sending: tuple[int, float] | None = None
        self._last_bytes_per_s = math.inf

    def sending(self, size: int, now_s: float) -> None:
        """So many bytes are handed over, and waited for until `sent`."""
        if now_s - self._began_s >= self._window_s:
            keeps_up = self._waited_s < self._window_s * WAITED_SHARE
            self._last_bytes_per_s = math.inf if keeps_up else self._taken_bytes / self._waited_s
            self._began_s, self._waited_s, self._taken_bytes = now_s, 0.0, 0
        self._sending = size, now_s

    def sent(self, now_s: float) -> None:
        """The reader has taken them."""
        if self._sending is not None:
            size, since_s = self._sending
            self._sending = None
            self._waited_s += now_s - since_s
            self._taken_bytes += size

    def bytes_per_s(self, now_s: float) -> float:
        """What it takes at most, over the last window; infinite for one that keeps up, or is not known yet."""
        size, since_s = self._sending or (0, now_s)
        waited_s = self._waited_s + now_s - since_s
        if waited_s < self._window_s:
            return self._last_bytes_per_s
        # How much of what is on its way has been taken nobody can tell: all of it at most.
        return (self._taken_bytes + size) / waited_s
