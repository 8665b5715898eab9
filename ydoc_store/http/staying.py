"""Requests that stay: long polls and event streams, for as long as somebody listens and may, and this process serves.

Whatever is done inside `staying` is cancelled, and only that, when the client goes away, when what it was granted
expires or is taken back (I18), when the process stops, or when its connection takes nothing any more, or too little
of what others wait for. One look every few seconds at all of them together: a stay has no timer of its own. What is
waited for is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from enum import Enum
from typing import Any, Final, Protocol

from ydoc_store.auth.access import Granted
from ydoc_store.auth.authorizer import Authorizer
from ydoc_store.errors import ServerFull, YdocError
from ydoc_store.rooms.pace import Pace
from ydoc_store.settings import Settings

LOOK_INTERVAL_S: Final = 2.0
"""With the interval at which revocations are read this ends a stay within 5 s."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Serving(Protocol):
    """What a stay depends on; `Here` is one."""

    @property
    def authorizer(self) -> Authorizer: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def stopping(self) -> asyncio.Event: ...


class End(Enum):
    """Why a stay ended before its work did."""

    GONE = "the client went away"
    STOPPING = "this process is stopping"
    ACCESS = "its access ended"
    SLOW = "the connection took nothing for too long, or too little"


class Stay:
    """One request that stays. `ended` tells why its work was cut off, None where it was not."""

    __slots__ = ("_pace", "_task", "document", "ended", "granted", "sending_since_s")

    def __init__(self, task: asyncio.Task[Any], granted: Granted, document: str, pace: Pace):
        self._task = task
        self._pace = pace
        pace.give_way = self._give_way
        self.granted = granted
        self.document = document
        self.ended: End | None = None
        # While bytes are being handed to the connection.
        self.sending_since_s: float | None = None

    def end(self, why: End) -> None:
        if self.ended is None:
            self.ended = why
            self._task.cancel()

    def leave(self) -> None:
        """Nothing of it is cut off from now on."""
        self._pace.give_way = None

    def _give_way(self) -> None:
        self.end(End.SLOW)

    async def sending(self, passing_on: Awaitable[None], size: int = 0) -> None:
        """Pass `size` bytes on to the connection, which may hold them up for YDOC_SLOW_MEMBER_S."""
        self.sending_since_s = time.monotonic()
        self._pace.sending(size, self.sending_since_s)
        await passing_on
        self._pace.sent(time.monotonic())
        self.sending_since_s = None


@contextlib.asynccontextmanager
async def staying(
    here: Serving, granted: Granted, document: str, receive: Receive, pace: Pace | None = None
) -> AsyncIterator[Stay]:
    """The block runs until it is done or the stay ends, whichever is first; look at `ended` afterwards.

    `receive` is the request's, whose body has been read or is none; `pace` is the reader's, where something is held
    for it. Somebody else's cancellation goes through. Raises ServerFull where as many stay as there may be connections.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 # a coroutine always runs in a task
    cancelling_before = task.cancelling()
    stay = Stay(task, granted, document, pace or Pace(here.settings.slow_member_s))
    stays = _stays_of(here)
    stays.enter(stay)
    listening = asyncio.create_task(_until_gone(receive, stay), name="stay")
    try:
        yield stay
    except asyncio.CancelledError:
        if stay.ended is None or task.uncancel() > cancelling_before:
            raise
    else:
        if stay.ended is not None:
            # It was done in the moment in which it was cut off, and the cancellation is still to come.
            is_cancelled_too = task.uncancel() > cancelling_before
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            if is_cancelled_too:
                raise asyncio.CancelledError
    finally:
        stays.leave(stay)
        stay.leave()
        listening.cancel()


async def _until_gone(receive: Receive, stay: Stay) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stay.end(End.GONE)


class _Stays:
    """Everyone who stays on one node."""

    def __init__(self, here: Serving):
        self._authorizer = here.authorizer
        self._settings = here.settings
        self._stopping = here.stopping
        self._all: dict[Stay, None] = {}
        self._looking: asyncio.Task[None] | None = None

    def enter(self, stay: Stay) -> None:
        if len(self._all) >= self._settings.connections_max:
            raise ServerFull("this server has as many connections as it may (YDOC_CONNECTIONS_MAX)")
        self._all[stay] = None
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="stays")

    def leave(self, stay: Stay) -> None:
        self._all.pop(stay, None)
        if not self._all and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look_on(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._stopping.wait()
            self._look()
        for stay in list(self._all):
            stay.end(End.STOPPING)
        self._looking = None

    def _look(self) -> None:
        slow_before_s = time.monotonic() - self._settings.slow_member_s
        for stay in list(self._all):
            if stay.sending_since_s is not None and stay.sending_since_s < slow_before_s:
                stay.end(End.SLOW)
            elif not self._authorizer.is_open:
                try:
                    self._authorizer.judge(stay.granted, stay.document)
                except YdocError:
                    stay.end(End.ACCESS)


# One for each node that runs in this process, found by what tells that node's end.
_STAYS: weakref.WeakKeyDictionary[asyncio.Event, _Stays] = weakref.WeakKeyDictionary()


def _stays_of(here: Serving) -> _Stays:
    found = _STAYS.get(here.stopping)
    if found is None:
        found = _STAYS[here.stopping] = _Stays(here)
    return found
