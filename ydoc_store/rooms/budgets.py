"""What all members of this process may hold together, and who gives way when it is too much. Pure but for waiting.

Caps of one connection bound what one peer costs; with ten thousand peers their sum bounds nothing. Three accounts
do: what members have not taken (`Outboxes`), what they have sent and what has no outcome yet (`Incoming`), and what
is prepared for first syncs (`Shares`). Nothing here knows sockets; whoever gives way is told by its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from ydoc_store.errors import ServerFull

if TYPE_CHECKING:
    from ydoc_store.storage.appender import Appender

# Members are told from this share of the cap on, and until so much is left; the rest is for those who were told and
# have not gone yet.
TELL_ABOVE_SHARE = 3 / 4
TELL_DOWN_TO_SHARE = 5 / 8
# All outboxes are looked through again when they grew by this share of the cap, not for every frame.
LOOK_AGAIN_SHARE = 1 / 32
# From this share on, first syncs are sent at the pace of their sockets, however small they are.
CROWDED_SHARE = 1 / 2


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
    """So much at once; whoever comes later waits its turn, in order, for `wait_s` at most."""

    def __init__(self, size_max: int, wait_s: float):
        self.size_max = size_max
        self.used = 0
        self._wait_s = wait_s
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Held]:
        """A share of it for as long as the block runs. Raises ServerFull when its turn does not come in time."""
        held = await self.take(size)
        try:
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
        else:
            self.used += size
        return Held(self, size)

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self.size_max

    def wake(self) -> None:
        """Let in who fits by now."""
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


class Held:
    """A share of `Shares`."""

    __slots__ = ("_shares", "_size")

    def __init__(self, shares: Shares, size: int):
        self._shares = shares
        self._size = size

    def resize(self, size: int) -> None:
        """It takes this much as it turns out: never waits, and lets others in when that is less."""
        self._shares.used += size - self._size
        self._size = size
        self._shares.wake()
