"""Named steps at which a fault laboratory stops, delays or kills this process. Free when none is set.

Code that has a step holds `Failpoints | None` and asks only where it is not None. The text comes from the setting
YDOC_FAILPOINTS, for tests only: `compaction.after-read=kill,append.before-send=pause:0.5`. Tests in the same process
register callables instead. Every step has its name here, and what is true when it is reached.
"""

from __future__ import annotations

import asyncio
import difflib
import math
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

STEPS: Final = {
    "append.before-take": "something is queued, and no batch was taken yet",
    "append.before-send": "a batch was taken, the connection stands, and Postgres has heard nothing of it",
    "append.after-create": "new documents are inserted, in a transaction that is not committed",
    "append.before-commit": "of a commit with new documents everything is answered but the COMMIT, which was not sent",
    "append.after-commit": "the COMMIT is known, and nobody was told",
    "append.after-ack": "a document's senders were told, and its other members have seen nothing",
    "append.between-tells": "one document of a commit was told and delivered, the next was not",
    "append.after-tell": "a whole commit was told and delivered",
    "compaction.after-read": "snapshot and tail are read",
    "compaction.after-fold": "the new snapshot is made and checked, and nothing is written",
    "compaction.after-insert": "the new snapshot is inserted, and not committed",
    "compaction.after-delete": "the merged rows are deleted too, and counted",
    "compaction.before-commit": "everything is written, and the COMMIT was not sent",
    "compaction.after-commit": "the COMMIT is known",
}
# These stand in code that cannot wait: nothing else of the process may run between what is before and behind them.
WITHOUT_WAITING: Final = frozenset({"append.after-ack", "append.between-tells"})

Action = Callable[[], Awaitable[None] | None]


class FailpointReached(RuntimeError):
    """What the action `raise` raises: an event of a test, not an error of the product."""


class Failpoints:
    """Actions by the name of their step. A step without one passes at once. ValueError for a step that is none."""

    def __init__(self, actions: Mapping[str, Action]):
        for step in actions:
            if step not in STEPS:
                nearest = difflib.get_close_matches(step, STEPS, n=1, cutoff=0.0)[0]
                raise ValueError(f"{step!r} is no step; the nearest is {nearest}")
        self._actions = dict(actions)

    @classmethod
    def parse(cls, text: str) -> Failpoints | None:
        """`step=action` pairs separated by commas, None where there are none.

        Actions: `kill` (SIGKILL to this process, and the default), `raise` (FailpointReached), both also as
        `kill:TIME` for that time alone that the step is reached, from 1; and `pause:SECONDS`, at every time.
        Raises ValueError for anything else.
        """
        actions: dict[str, Action] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            step, _, word = part.partition("=")
            if step in actions:
                raise ValueError(f"{step} is named twice")
            actions[step] = _action(step, word or "kill")
        return cls(actions) if actions else None

    async def reach(self, step: str) -> None:
        """Run the step's action, if it has one; whatever that raises is raised here."""
        action = self._actions.get(step)
        if action is not None and (waiting := action()) is not None:
            await waiting

    def reach_at_once(self, step: str) -> None:
        """`reach`, for the steps of `WITHOUT_WAITING`."""
        action = self._actions.get(step)
        if action is not None:
            action()


def checked_failpoints(text: str) -> str:
    """The text itself. Raises ValueError unless it names steps and actions."""
    Failpoints.parse(text)
    return text


def _action(step: str, word: str) -> Action:
    name, _, number = word.partition(":")
    if name in ("kill", "raise"):
        act = _kill if name == "kill" else _raising(step)
        if not number:
            return act
        if number.isdecimal() and int(number) > 0:
            return _Once(act, int(number))
    elif name == "pause":
        if step in WITHOUT_WAITING:
            raise ValueError(f"{step} is inside code that cannot wait: its action is kill or raise")
        seconds = _seconds(number)
        if seconds is not None:
            return lambda: asyncio.sleep(seconds)
    raise ValueError(f"{step}={word}: an action is kill, raise, kill:TIME, raise:TIME or pause:SECONDS")


class _Once:
    """Acts at one time of all the times that it is called."""

    def __init__(self, act: Callable[[], None], time: int):
        self._act = act
        self._left = time

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raising(step: str) -> Callable[[], None]:
    def act() -> None:
        raise FailpointReached(step)

    return act
