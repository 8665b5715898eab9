"""Turns: who waits patiently for a share of the pool, in the order in which they came.

A reconnect storm loads thousands of documents. Its reads wait here and not at the pool, where the poll, the monitor
and a compaction want a connection at once. Where the pool itself has none to give, nobody goes on waiting: each
would only learn the same, one time-out later than the one before. Connections are not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from ydoc_store.errors import StorageUnavailable


class NoneFree(StorageUnavailable):
    """No connection of the pool became free in time."""


class Turns:
    """At most `at_once` bodies of `turn()` run at a time; the others wait, first come first served.

    A body that ends with NoneFree ends the waiting of everyone with it.
    """

    def __init__(self, at_once: int):
        self._free = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for as long as it takes, or until somebody's turn ends with NoneFree, which is raised here too.

        Cancelling gives the place up.
        """
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        except NoneFree as error:
            self._shed(error)
            raise
        finally:
            self._give_back()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                # The turn had been given to us in the same moment: somebody else must have it.
                self._give_back()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def _give_back(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _shed(self, error: NoneFree) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                # One of its own for each, or their tracebacks would grow into one.
                place.set_exception(NoneFree(*error.args))
