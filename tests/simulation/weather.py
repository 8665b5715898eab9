"""What the network and the server are like: calm, or with the troubles that a seed has chosen.

Each seed has its own mixture, since a run in which everything fails at once never gets anywhere interesting. Every
decision is one throw of the run's dice. What a trouble does is in `connections` and `network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Protocol

from ydoc_store.storage import append_batch
from ydoc_store.storage.lane_connection import SERVER_GRACE_S


class Fate(Enum):
    """What becomes of one statement, or of one COMMIT."""

    DONE = auto()
    REFUSED = auto()  # rolled back by the server: a deadlock, a time-out, no memory
    LOST_BEFORE = auto()  # the connection ends before it runs
    LOST_AFTER = auto()  # it runs, and nobody hears of it
    UNREPLICATED = auto()  # it runs, with the warning that no standby was waited for
    STALLED = auto()  # its answer comes after everybody has given up


class Weather(Protocol):
    """What the network and the server are like."""

    def delay_s(self) -> float: ...
    def stall_s(self) -> float: ...
    def fate(self, sql: str) -> Fate: ...
    def hint_delays_s(self, channel: str) -> Sequence[float]:
        """How late each copy of a notification comes: none for a lost one, two for a doubled one."""

    def refuses_connections(self) -> bool: ...


class Calm:
    """Everything works, at once."""

    def delay_s(self) -> float:
        return 0.0

    def stall_s(self) -> float:
        return 0.0

    def fate(self, _sql: str) -> Fate:
        return Fate.DONE

    def hint_delays_s(self, _channel: str) -> Sequence[float]:
        return (0.0,)

    def refuses_connections(self) -> bool:
        return False


@dataclass(slots=True)
class Rates:
    """How often what goes wrong; 0 is never, 1 always."""

    delay_s_max: float = 0.01
    append_trouble: float = 0.0
    read_trouble: float = 0.0
    hint_lost: float = 0.0
    hint_doubled: float = 0.0
    hint_late: float = 0.0
    slow_member: float = 0.0

    @classmethod
    def thrown(cls, dice: Random) -> Rates:
        """Each trouble is absent from half of the runs, and frequent in some."""

        def rate(most: float) -> float:
            return 0.0 if dice.random() < 0.5 else most * dice.random() ** 2

        delay_s_max = dice.choice((0.001, 0.01, 0.1))
        return cls(delay_s_max, rate(0.4), rate(0.2), rate(1.0), rate(0.5), rate(0.8), rate(0.05))


class Storm:
    """A seed's weather; `clear_up` ends it for good."""

    def __init__(self, dice: Random, append_timeout_s: float) -> None:
        self._dice = dice
        self._append_timeout_s = append_timeout_s
        self.rates = Rates.thrown(dice)
        self.is_away = False

    def clear_up(self) -> None:
        self.rates = Rates()
        self.is_away = False

    def happens(self, rate: float) -> bool:
        return rate > 0 and self._dice.random() < rate

    def share(self) -> float:
        return self._dice.random()

    def delay_s(self) -> float:
        return self.rates.delay_s_max * self._dice.random() ** 3

    def stall_s(self) -> float:
        # The server cancels a statement that takes longer than this.
        return self._dice.uniform(0.5, 1.0) * (self._append_timeout_s + SERVER_GRACE_S)

    def fate(self, sql: str) -> Fate:
        is_append = sql in (append_batch.APPEND_BATCH, append_batch.COMMIT_CREATED)
        if not self.happens(self.rates.append_trouble if is_append else self.rates.read_trouble):
            return Fate.DONE
        if not is_append:
            return self._dice.choice((Fate.REFUSED, Fate.LOST_BEFORE, Fate.LOST_AFTER))
        return self._dice.choice(tuple(Fate))

    def hint_delays_s(self, _channel: str) -> Sequence[float]:
        rates = self.rates
        if self.happens(rates.hint_lost):
            return ()
        copies = 2 if self.happens(rates.hint_doubled) else 1
        return [2.0 * self._dice.random() if self.happens(rates.hint_late) else self.delay_s() for _ in range(copies)]

    def refuses_connections(self) -> bool:
        return self.is_away or self.happens(self.rates.read_trouble / 2)
