"""What of the product is set for a run, and set back after it: clocks, dice, the worker process, sizes.

Nothing of the product's behaviour is replaced but where it leaves the process. Sizes from which work is done in
another way (in a task, in a worker, in pieces) are set low in some runs, so that small documents go those ways too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import structlog

from tests.simulation.loop import SimulatedLoop, simulated_time
from tests.simulation.oracle import ACK, NACK
from ydoc_store.rooms import delivering, first_sync, heavy, registry, session, ywebsocket

P = ParamSpec("P")
T = TypeVar("T")


class AckingDialect(ywebsocket.YWebsocketDialect):
    """y-websocket with acks, so that the promise about them can be tested; stock clients of it have none."""

    @staticmethod
    def ack(*, accepted: bool) -> bytes:  # type: ignore[override]
        return ACK if accepted else NACK


class SimulatedHeavy(heavy.Heavy):
    """Work elsewhere: done here, and its result comes later."""

    dice = random.Random(0)

    async def run(self, size_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = work(*args, **kwargs)
        if size_bytes > session.INLINE_BYTES_MAX:
            await asyncio.sleep(0.05 * self.dice.random())
        return result

    async def warm(self) -> None:
        """There is no worker."""


class Complaints:
    """What the product itself calls an error: nobody foresaw it, so a run in which it happens fails."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, _logger: object, level: str, event: Any) -> Any:
        if level in ("error", "exception", "critical"):
            self.heard.append(f"the product logged: {event.get('event')}: {_told(event)}")
        raise structlog.DropEvent


def _told(event: Any) -> str:
    error = event.get("exc_info")
    if error is True:
        return traceback.format_exc()
    if isinstance(error, BaseException):
        return "".join(traceback.format_exception(error))
    return str(event)


@contextlib.contextmanager
def set_to(module: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextlib.contextmanager
def rigged(loop: SimulatedLoop, dice: random.Random) -> Iterator[Complaints]:
    """The product on this loop and these dice, until the block ends."""
    complaints = Complaints()
    configured = structlog.get_config()
    state = random.getstate()
    random.seed(dice.getrandbits(64))
    SimulatedHeavy.dice = dice
    small = dice.random() < 0.5
    with contextlib.ExitStack() as stack:
        stack.enter_context(simulated_time(loop))
        stack.enter_context(set_to(secrets, token_hex=lambda count: f"{dice.getrandbits(8 * count):0{2 * count}x}"))
        stack.enter_context(set_to(registry, Heavy=SimulatedHeavy))
        stack.enter_context(set_to(ywebsocket, Y_WEBSOCKET=AckingDialect()))
        if small:
            inline, diffed, live = (dice.choice((16, 64, 10**6)) for _ in range(3))
            stack.enter_context(set_to(session, INLINE_BYTES_MAX=inline))
            stack.enter_context(set_to(first_sync, INLINE_BYTES_MAX=diffed, DIFF_INLINE_BYTES_MAX=diffed))
            stack.enter_context(set_to(delivering, LIVE_BYTES_MAX=live))
        structlog.configure(processors=[complaints], wrapper_class=structlog.make_filtering_bound_logger(40))
        try:
            yield complaints
        finally:
            structlog.configure(**configured)
            random.setstate(state)
