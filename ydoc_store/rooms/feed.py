"""Whoever follows a tenant's change feed in this process: woken when it has moved, and reading once for all of them.

A hundred that wait cost one query an interval, which is asked at once when something was committed here or a hint
came. While a row waits for some transaction's end, the look is repeated soon. Those who stand at one place are given
the same page. What a page holds is the storage's, how it is passed on the transport's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import structlog

from ydoc_store.errors import CursorExpired, YdocError
from ydoc_store.storage.feed import FeedPage, Newest, find_newest, newest_cursor, read_changes
from ydoc_store.storage.feed_cursor import standing_and_told

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

LOOK_PAUSE_S: Final = 0.02
"""Between two looks, however much is committed: followers come a moment later, and read more at once."""

PAGES_KEPT_MAX: Final = 8
"""Places of one feed at which several stand; who reads a long past reads it alone."""

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class _Followed:
    """One tenant's feed while somebody follows it here."""

    def __init__(self) -> None:
        self.followers = 0
        self.moves = 0
        self.newest: Newest | None = None
        self.moved = asyncio.Event()
        # What is being read, or was since the feed last moved, by place and length.
        self.pages: dict[tuple[str, int], asyncio.Task[FeedPage]] = {}

    def look(self, newest: Newest) -> None:
        has_moved = self.newest is None or newest.place != self.newest.place
        self.newest = newest
        if has_moved:
            self.moves += 1
            self.pages.clear()
            self.moved.set()
            self.moved = asyncio.Event()


class Feeds:
    """The feeds that are followed in this process. `wake` is called whenever something may have been committed."""

    def __init__(self, database: Database, poll_interval_s: float, spawn: Spawn):
        self._database = database
        self._poll_interval_s = poll_interval_s
        self.spawn = spawn
        self._followed: dict[str, _Followed] = {}
        self._woken = asyncio.Event()
        self._looking: asyncio.Task[Any] | None = None
        # A test signal.
        self.looked: Callable[[], None] = lambda: None

    @property
    def followers(self) -> int:
        """How many follow some feed here."""
        return sum(followed.followers for followed in self._followed.values())

    def discard_all(self) -> None:
        """The database's connection was lost, or it is another database: what was read before is told to nobody."""
        for followed in self._followed.values():
            followed.newest = None
            followed.pages.clear()
        self.wake()

    def wake(self) -> None:
        """Look soon, if anybody follows."""
        if self._followed:
            self._woken.set()

    @contextlib.asynccontextmanager
    async def follow(self, tenant: str) -> AsyncIterator[Follower]:
        """Be told of moves for as long as the block runs. Read after entering it: what comes later wakes."""
        followed = self._followed.setdefault(tenant, _Followed())
        followed.followers += 1
        if self._looking is None or self._looking.done():
            self._looking = self.spawn(self._look_on())
        self._woken.set()
        try:
            yield Follower(self, tenant, followed)
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._followed[tenant]

    async def newest_cursor(self, tenant: str) -> str:
        """The place behind all that can be read now. Raises ServerFault."""
        return await newest_cursor(self._database, tenant)

    async def read(self, tenant: str, cursor: str | None, limit: int) -> FeedPage:
        """The changes behind the cursor. Raises InvalidRequest, CursorExpired, ServerFault."""
        return await read_changes(self._database, tenant, cursor, limit)

    async def _look_on(self) -> None:
        """Ends with the last follower; survives a database that is away."""
        held_pause_s = LOOK_PAUSE_S
        while self._followed:
            pause_s = self._poll_interval_s
            try:
                if await self._look():
                    # Ever later, for it may be a transaction that stays open for hours.
                    pause_s = held_pause_s = min(2 * held_pause_s, pause_s)
                else:
                    held_pause_s = LOOK_PAUSE_S
            except YdocError as error:
                log.warning("the change feed was not looked at", reason=str(error))
            except Exception:
                log.exception("the change feed was not looked at")
            self.looked()
            await asyncio.sleep(min(LOOK_PAUSE_S, self._poll_interval_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()

    async def _look(self) -> bool:
        """Whether something was committed that cannot be read yet."""
        found = await find_newest(self._database, list(self._followed))
        is_held = False
        for tenant, newest in found.items():
            followed = self._followed.get(tenant)
            if followed is not None:
                followed.look(newest)
                is_held = is_held or newest.is_held
        return is_held


class Follower:
    """One who follows a tenant's feed. Made by `Feeds.follow`, whose block is its life."""

    def __init__(self, feeds: Feeds, tenant: str, followed: _Followed):
        self._feeds = feeds
        self._tenant = tenant
        self._followed = followed
        self._moves = followed.moves

    async def read(self, cursor: str, limit: int) -> FeedPage:
        """As `Feeds.read`, but as of the last move: one query for all who stand at the same place. The cursor is one
        that was read from before."""
        self._moves = self._followed.moves
        pages = self._followed.pages
        standing, told_through_lsn = standing_and_told(cursor)
        reading = pages.get((standing, limit))
        if reading is None or _is_worthless(reading):
            reading = pages[standing, limit] = self._feeds.spawn(self._feeds.read(self._tenant, cursor, limit))
            if len(pages) > PAGES_KEPT_MAX:
                del pages[next(iter(pages))]
            return await asyncio.shield(reading)
        # Hardly two cursors of a place are one text: each says what its reader was told, which is for each to judge.
        with contextlib.suppress(CursorExpired):
            page = await asyncio.shield(reading)
            if told_through_lsn <= page.good_through_lsn:
                return page.for_another(cursor)
        return await self._feeds.read(self._tenant, cursor, limit)

    async def moved(self, timeout_s: float) -> bool:
        """Whether the feed has moved since the last read, at the latest after `timeout_s`."""
        if self._followed.moves == self._moves:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._followed.moved.wait()
        return self._followed.moves != self._moves


def _is_worthless(reading: asyncio.Task[FeedPage]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)
