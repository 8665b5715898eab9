"""Is this process alive, and should it be sent work? Checks, and the verdict over all of them.

`unready` takes the process out of a load balancer, so it is kept for what a restart or another node would mend:
starting, draining, or a database gone for longer than a failover takes. Everything else that an operator should
look at is `degraded`, with 200. How a check finds out is the composition's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Literal, NamedTuple

from ydoc_store.errors import YdocError

PROBE_TIMEOUT_S = 2.0


class Verdict(IntEnum):
    """Ordered, so that the worst of several is their maximum."""

    READY = 0
    DEGRADED = 1
    UNREADY = 2


class Check(NamedTuple):
    """What one check found; `detail` is for a person."""

    name: str
    verdict: Verdict
    detail: str


class Report(NamedTuple):
    """All checks, and the worst verdict among them."""

    verdict: Verdict
    checks: tuple[Check, ...]


Probe = Callable[[], Awaitable[Check]]


class Phase:
    """Where the process is in its life: it starts, serves, drains. Set by the composition, never back."""

    def __init__(self) -> None:
        self._word = "starting"
        # Set while it drains: whoever waits for news stops waiting.
        self.stopping = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        return self._word == "serving"

    @property
    def gate(self) -> Literal["open", "soon", "shut"]:
        """Whether a socket may be opened now, will be soon, or no more."""
        if self._word == "starting":
            return "soon"
        return "open" if self.is_serving else "shut"

    def serving(self) -> None:
        if self._word == "starting":
            self._word = "serving"

    def draining(self) -> None:
        self._word = "draining"
        self.stopping.set()

    async def check(self) -> Check:
        return Check("phase", Verdict.READY if self.is_serving else Verdict.UNREADY, self._word)


class DatabaseWatch:
    """Whether the database answers, and for how long it has not.

    `ping` returns when it answered and raises when not. Call it regularly: an outage starts with the first call
    that saw it. `clock` is monotonic seconds.
    """

    def __init__(
        self, ping: Callable[[], Awaitable[object]], grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ping = ping
        self._grace_s = grace_s
        self._clock = clock
        self._gone_since: float | None = None

    async def check(self) -> Check:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._ping()
        except (YdocError, OSError, TimeoutError) as error:
            if self._gone_since is None:
                self._gone_since = asked_at
            gone_s = self._clock() - self._gone_since
            verdict = Verdict.UNREADY if gone_s >= self._grace_s else Verdict.DEGRADED
            return Check("database", verdict, f"no answer for {gone_s:.0f} s: {error or type(error).__name__}")
        self._gone_since = None
        return Check("database", Verdict.READY, "answers")


async def judge(probes: Sequence[Probe]) -> Report:
    """Every probe's check. One that does not answer in time, or fails itself, is degraded and says so."""
    checks = await asyncio.gather(*(_ask(probe) for probe in probes))
    return Report(max((check.verdict for check in checks), default=Verdict.READY), tuple(checks))


async def _ask(probe: Probe) -> Check:
    name = getattr(probe, "__name__", "check")
    try:
        # a little longer than a probe gives itself, so that its own words win
        async with asyncio.timeout(PROBE_TIMEOUT_S + 0.5):
            return await probe()
    except TimeoutError:
        return Check(name, Verdict.DEGRADED, f"no answer within {PROBE_TIMEOUT_S:.0f} s")
    except YdocError as error:
        return Check(name, Verdict.DEGRADED, str(error))
