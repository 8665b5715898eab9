"""Waiting for something that sends no signal of its own: another process, or a row of Postgres's own views."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

TIMEOUT_S = 60.0


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns once the condition holds; TimeoutError after 60 s."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.002)
