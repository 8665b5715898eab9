"""Named steps at which a fault laboratory stops, delays or kills this process. Free when none is set.

Code that has a step holds `Failpoints | None` and asks only where it is not None. The text comes from the setting
YDOC_FAILPOINTS, for tests only: `compaction.after-read=kill,compaction.after-delete=pause:0.5`. Tests in the same
process register callables instead. Nothing here knows what the steps mean.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from ydoc_store.errors import SettingInvalid

Action = Callable[[], Awaitable[None]]


class FailpointReached(RuntimeError):
    """What the action `raise` raises: an event of a test, not an error of the product."""


class Failpoints:
    """Actions by the name of their step. A step without one passes at once."""

    def __init__(self, actions: Mapping[str, Action]):
        self._actions = dict(actions)

    @classmethod
    def parse(cls, text: str) -> Failpoints | None:
        """`step=action` pairs separated by commas, None where there are none.

        Actions: `kill` (SIGKILL to this process, and the default), `raise` (FailpointReached), `pause:SECONDS`.
        Raises SettingInvalid for anything else.
        """
        actions: dict[str, Action] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            step, _, word = part.partition("=")
            actions[step] = _action(step, word or "kill")
        return cls(actions) if actions else None

    async def reach(self, step: str) -> None:
        """Run the step's action, if it has one; whatever that raises is raised here."""
        action = self._actions.get(step)
        if action is not None:
            await action()


def _action(step: str, word: str) -> Action:
    if word == "kill":
        return _kill
    if word == "raise":
        return partial(_raise, step)
    name, _, seconds = word.partition(":")
    if name == "pause":
        try:
            return partial(asyncio.sleep, float(seconds))
        except ValueError:
            pass
    raise SettingInvalid(f"YDOC_FAILPOINTS: {step}={word}: an action is kill, raise or pause:SECONDS")


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _raise(step: str) -> None:
    raise FailpointReached(step)
