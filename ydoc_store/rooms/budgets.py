"""What all members of this process may hold together, and who gives way when it is too much. Pure but for waiting.

Caps of one connection bound what one peer costs; with ten thousand peers their sum bounds nothing. Three accounts
do: what members have not taken (`Outboxes`), what they have sent and what has no outcome yet (`Incoming`), and what
is prepared for readers (`Shares`). Nothing here knows sockets; whoever gives way is told by its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Protocol

from ydoc_store.errors import ServerFull

if TYPE_CHECKING:
    from ydoc_store.rooms.pace import Pace
    from ydoc_store.storage.appender import Appender

# Members are told from this share of the cap on, and until so much is left; the rest is for those who were told and
# have not gone yet.
TELL_ABOVE_SHARE = 3 / 4
TELL_DOWN_TO_SHARE = 5 / 8
# All outboxes are looked through again when they grew by this share of the cap, not for every frame.
LOOK_AGAIN_SHARE = 1 / 32
# From this share on, first syncs are sent at the pace of their sockets, however small they are.
CROWDED_SHARE = 1 / 2
# Of more than this a reader must take proportionally more each second, so that the least that it may take has it done
# in the same time: nobody holds what others wait for by being large.
LARGE_BYTES = 16 * 1024 * 1024


class Outbox(Protocol):
    """One connection whose socket does not keep up. `counted_bytes` is what the account has it down for."""

    counted_bytes: int

    @property
    def is_closing(self) -> bool: ...

    def measure(self) -> tuple[float, int]:
        """Since when it has taken nothing, and what waits for it now."""

    def check_progress(self, now_s: float, slow_member_s: float) -> None:
        """Close it if it has taken nothing for so long."""

    def give_way(self) -> None:
        """Tell it that it is too slow, and close it."""

    def cut(self) -> None:
        """Free what waits for it, now and without a word."""


class Outboxes:
    """The live bytes that wait for all members; past the cap the slowest go first."""

    __slots__ = ("_look_above_bytes", "bytes_max", "congested", "used_bytes")

    def __init__(self, bytes_max: int):
        self.bytes_max = bytes_max
        self.used_bytes = 0
        # Only those whose socket does not keep up are here; the others hold what one write left, for a moment.
        self.congested: dict[Outbox, None] = {}
        self._look_above_bytes = bytes_max * TELL_ABOVE_SHARE

    @property
    def is_crowded(self) -> bool:
        return self.used_bytes > self.bytes_max * CROWDED_SHARE

    def count(self, outbox: Outbox, size: int) -> None:
        """This much waits for it now. May close others, and this one."""
        self.used_bytes += size - outbox.counted_bytes
        outbox.counted_bytes = size
        if self.used_bytes > self._look_above_bytes:
            self.make_room()

    def forget(self, outbox: Outbox) -> None:
        """It keeps up again, or it is gone."""
        self.congested.pop(outbox, None)
        self.used_bytes -= outbox.counted_bytes
        outbox.counted_bytes = 0

    def check_progress(self, now_s: float, slow_member_s: float) -> None:
        """Close who has taken nothing for so long."""
        for outbox in list(self.congested):
            outbox.check_progress(now_s, slow_member_s)

    def make_room(self) -> None:
        """Cut those who were told already, if need be; tell the slowest, if there is need for more."""
        waiting: list[tuple[float, int, Outbox]] = []
        told: list[Outbox] = []
        for outbox in self.congested:
            since_s, size = outbox.measure()
            self.used_bytes += size - outbox.counted_bytes
            outbox.counted_bytes = size
            if outbox.is_closing:
                told.append(outbox)
            else:
                waiting.append((since_s, -size, outbox))
        for outbox in told:
            if self.used_bytes <= self.bytes_max:
                break
            outbox.cut()
            self.forget(outbox)
        left = -sum(size for _, size, _ in waiting)
        if left > self.bytes_max * TELL_ABOVE_SHARE:
            for _, size, outbox in sorted(waiting, key=lambda entry: entry[:2]):
                if left <= self.bytes_max * TELL_DOWN_TO_SHARE:
                    break
                outbox.give_way()
                left += size
        again = self.used_bytes + self.bytes_max * LOOK_AGAIN_SHARE
        self._look_above_bytes = min(self.bytes_max, max(self.bytes_max * TELL_ABOVE_SHARE, again))


class Incoming:
    """What members have sent and what has no outcome yet: messages half here, those that wait for their document to
    be open, large ones being looked at, the queue."""

    __slots__ = ("_appender", "bytes_max", "early_bytes", "partial_bytes", "walking_bytes")

    def __init__(self, appender: Appender, bytes_max: int):
        self._appender = appender
        self.bytes_max = bytes_max
        self.partial_bytes = 0
        self.early_bytes = 0
        self.walking_bytes = 0

    @property
    def used_bytes(self) -> int:
        return self.partial_bytes + self.early_bytes + self.walking_bytes + self._appender.queued_bytes

    @property
    def is_full(self) -> bool:
        return self.used_bytes > self.bytes_max


class Shares:
    """So much at once; whoever comes later waits its turn, in order, for `wait_s` at most.

    While somebody waits, those readers give way that take less than `bytes_per_s_min`, the slowest first.
    """

    def __init__(self, size_max: int, wait_s: float, bytes_per_s_min: int):
        self.size_max = size_max
        self.used = 0
        self._wait_s = wait_s
        self._bytes_per_s_min = bytes_per_s_min
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        # All that are not given back.
        self.held: dict[Held, None] = {}

    @contextlib.asynccontextmanager
    async def hold(self, size: int, pace: Pace) -> AsyncIterator[Held]:
        """A share of it, for one reader, for as long as the block runs.

        Raises ServerFull when its turn does not come in time. Whoever holds some does not wait for more, or two such
        would wait for each other.
        """
        has_some = any(held.shares is self for held in pace.held)
        held = self.take_now(size) if has_some else await self.take(size)
        try:
            with held.read_by(pace):
                yield held
        finally:
            held.resize(0)

    async def take(self, size: int) -> Held:
        """As `hold`, to be given back by `resize(0)`. One that is over the cap by itself waits until it is alone."""
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                async with asyncio.timeout(self._wait_s):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self.used -= size
                turn.cancel()
                self.wake()
                if isinstance(error, TimeoutError):
                    raise ServerFull("too many large documents are being opened here: come back") from error
                raise
            self.used -= size
        return self.take_now(size)

    def take_now(self, size: int) -> Held:
        """As `take`, over the cap if need be: it is others who wait then."""
        held = Held(self)
        held.resize(size)
        return held

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self.size_max

    def wake(self) -> None:
        """Let in who fits by now."""
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)

    def make_room(self, now_s: float) -> None:
        """For those who wait: end the readers that are too slow, the slowest first, as many as it takes."""
        wanted = sum(size for size, turn in self._waiting if not turn.done())
        if not wanted:
            return
        missing = self.used + wanted - self.size_max
        speeds = ((held.speed(now_s, self._bytes_per_s_min), held) for held in self.held)
        for _, held in sorted((found for found in speeds if found[0] < 1), key=lambda found: found[0]):
            if missing <= 0:
                break
            missing -= held.size
            held.give_way()


class Held:
    """A share of `Shares`, and the readers for whom it is held."""

    __slots__ = ("_readers", "shares", "size")

    def __init__(self, shares: Shares):
        self.shares = shares
        self._readers: dict[Pace, None] = {}
        self.size = 0

    def resize(self, size: int) -> None:
        """It takes this much as it turns out: never waits, and lets others in when that is less."""
        self.shares.used += size - self.size
        self.size = size
        if size:
            self.shares.held[self] = None
        else:
            self.shares.held.pop(self, None)
        self.shares.wake()

    def until_gone(self, owner: object) -> None:
        """Give it back when nobody has `owner` any more."""
        weakref.finalize(owner, self.resize, 0).atexit = False

    @contextlib.contextmanager
    def read_by(self, pace: Pace) -> Iterator[None]:
        """It is held for this reader too."""
        self._readers[pace] = None
        pace.held.append(self)
        try:
            yield
        finally:
            self._readers.pop(pace, None)
            pace.held.remove(self)

    def speed(self, now_s: float, bytes_per_s_min: int) -> float:
        """Of its fastest reader, in what it must be at least; one that is being prepared has none yet."""
        if not self._readers:
            return float("inf")
        least = bytes_per_s_min * max(1.0, self.size / LARGE_BYTES)
        return max(pace.bytes_per_s(now_s) for pace in self._readers) / least

    def give_way(self) -> None:
        for pace in list(self._readers):
            if pace.give_way is not None:
                pace.give_way()
