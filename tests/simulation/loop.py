"""An event loop without an outside: time passes only when nothing else can happen, and dice say who is next.

Everything that asyncio code may do here is decided by one seed: which of the ready callbacks runs, and (by whoever
asks for a delay) when the others become ready. Nothing waits for a clock, a socket or another process. Tasks hash
by their number, so that sets of them have one order in every process. No simulated thing lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

# Whose callbacks these are: a node's, an editor's, the database's. Tasks inherit it.
OWNER: ContextVar[Any] = ContextVar("owner", default=None)
START_S = 1_000.0
CALLBACKS_MAX = 400_000


class Stuck(AssertionError):
    """Nothing can happen any more, or too much does."""


class SimulatedTask(asyncio.Task[Any]):
    """A task whose hash is its number: `id` would differ between two processes with the same seed."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.AbstractEventLoop):
    """`run` runs one coroutine to its end, and whatever it starts. `in_order` keeps asyncio's own order, first come."""

    def __init__(self, dice: Random, *, in_order: bool = False) -> None:
        self.now_s = START_S
        self.in_order = in_order
        self.callbacks_run = 0
        # What callbacks raised, and what asyncio itself complained about.
        self.troubles: list[dict[str, Any]] = []
        self.tasks: dict[SimulatedTask, Any] = {}
        self._dice = dice
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serial = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        asyncio.events._set_running_loop(self)
        try:
            task = self.create_task(coroutine)
            while not task.done():
                self._step()
            return task.result()
        finally:
            asyncio.events._set_running_loop(None)

    def _step(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            if not timers:
                raise Stuck("nothing is left that could happen")
            self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            ready.append(heapq.heappop(timers)[2])
        if self.in_order:
            handle = ready.pop(0)
        else:
            place = int(self._dice.random() * len(ready))
            ready[place], ready[-1] = ready[-1], ready[place]
            handle = ready.pop()
        if not handle.cancelled():
            self.callbacks_run += 1
            if self.callbacks_run > CALLBACKS_MAX:
                raise Stuck(f"{CALLBACKS_MAX} callbacks and no end")
            handle._run()

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._serial += 1
        heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        self._serial += 1
        context = copy_context() if context is None else context
        task = SimulatedTask(coro, self._serial, loop=self, name=name or f"task {self._serial}", context=context)
        self.tasks[task] = context.get(OWNER)
        task.add_done_callback(self.tasks.pop)
        return task

    def tasks_of(self, owner: Any) -> list[SimulatedTask]:
        return [task for task, whose in self.tasks.items() if whose is owner]

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.troubles.append(context)


@contextlib.contextmanager
def simulated_time(loop: SimulatedLoop) -> Iterator[None]:
    """`time.monotonic` is the loop's clock meanwhile."""
    real, time.monotonic = time.monotonic, loop.time
    try:
        yield
    finally:
        time.monotonic = real
