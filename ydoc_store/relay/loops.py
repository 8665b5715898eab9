"""Closes that repeat: told once, not once a connection, and counted as a loop where the same client seems to return.

A client that is sent away for a reason that will not pass comes back all the same, within 2.5 s where it is a stock
one, and does so until somebody acts. Pure but for the clock that it is given; bounded, whatever peers do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

# What was told is not repeated for this long, and a loop that was silent for as long is over.
WINDOW_S = 60.0
# A stock client's backoff makes so many tries in some 10 s.
LOOP_CLOSES = 8
# Whoever stayed longer was served: a deployment closes many such sockets at once.
SHORT_LIVED_S = 5.0
KEYS_MAX = 1_000
# y-websocket 1 and 2 come back 0.1 s after each 44xx, for ever, because the socket had opened. Whoever did so twice is
# let wait before it is looked at: this long, and twice as long each time.
RETURN_WAIT_S = 0.5
# Shorter than the 30 s after which a stock client gives up on a silent socket, and it hears soon that it may again.
RETURN_WAIT_MAX_S = 8.0
# A tab closed, a page left, a cable pulled, a server drained: nothing that anyone has to look at.
ORDINARY_CLOSES = frozenset({1000, 1001, 1005, 1006})
# The database's troubles pass, and have alarms of their own.
PASSING_CLOSES = frozenset({1012, 1013})


class Said:
    """What was said lately."""

    def __init__(self) -> None:
        self._said_at_s: dict[Hashable, float] = {}

    def first(self, what: Hashable, now_s: float) -> bool:
        """Whether this was not said within the last `WINDOW_S`; it counts as said now."""
        said_at_s = self._said_at_s.get(what)
        if said_at_s is not None and now_s - said_at_s < WINDOW_S:
            return False
        self._said_at_s.pop(what, None)
        while len(self._said_at_s) >= KEYS_MAX:
            del self._said_at_s[next(iter(self._said_at_s))]
        self._said_at_s[what] = now_s
        return True


class Loop(NamedTuple):
    """Somebody who returns to this document to be closed with this code."""

    document: str
    code: int


class Loops:
    """The loops of this process."""

    def __init__(self) -> None:
        # The last few closes of each, the one silent for longest first.
        self._closes: dict[Loop, deque[float]] = {}
        self._begun: set[Loop] = set()

    def closed(self, document: str, code: int, lived_s: float, now_s: float) -> bool:
        """Take in a close of ours. True when it makes a loop that was none before."""
        if code in ORDINARY_CLOSES or code in PASSING_CLOSES or lived_s >= SHORT_LIVED_S:
            return False
        loop = Loop(document, code)
        times = self._closes.pop(loop, None) or deque(maxlen=LOOP_CLOSES)
        times.append(now_s)
        while len(self._closes) >= KEYS_MAX:
            self._forget(next(iter(self._closes)))
        self._closes[loop] = times
        if len(times) < LOOP_CLOSES or now_s - times[0] > WINDOW_S or loop in self._begun:
            return False
        self._begun.add(loop)
        return True

    def look(self, now_s: float) -> tuple[int, list[Loop]]:
        """How many loops there are, and which have ended since the last look."""
        ended = []
        for loop in list(self._closes):
            if now_s - self._closes[loop][-1] < WINDOW_S:
                break
            if loop in self._begun:
                ended.append(loop)
            self._forget(loop)
        return len(self._begun), ended

    def _forget(self, loop: Loop) -> None:
        del self._closes[loop]
        self._begun.discard(loop)


class Returning:
    """Who was refused for good and comes back all the same, and how long it is let wait."""

    def __init__(self) -> None:
        # How often in a row, and when last; the one silent for longest first.
        self._refused: dict[Hashable, tuple[int, float]] = {}

    def refused(self, who: Hashable, lived_s: float, now_s: float) -> None:
        """Take in a close of ours with 44xx. Whoever was served for a while meanwhile begins anew."""
        times, at_s = self._refused.pop(who, (0, now_s))
        if lived_s >= SHORT_LIVED_S or now_s - at_s >= WINDOW_S:
            times = 0
        while len(self._refused) >= KEYS_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[who] = times + 1, now_s

    def wait_s(self, who: Hashable, now_s: float) -> float:
        """How long it waits now; 0 for whoever is here for the first times."""
        times, at_s = self._refused.get(who, (0, now_s))
        if times < 2 or now_s - at_s >= WINDOW_S:
            return 0.0
        return min(RETURN_WAIT_S * 2.0 ** min(times - 2, 10), RETURN_WAIT_MAX_S)
