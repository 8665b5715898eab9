"""Stateless words of an editor, handed to the application: its webhook, signed like its authorize call, or a function.

They are never stored and promise nothing: what the application does not take in time is dropped, told once a while
in the log, and counted. Who may say them, and who else hears them, is the rooms'.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final

import httpx
import orjson
import structlog

from ydoc_store.auth.application import SIGNATURE_HEADER, find_function, sign

log = structlog.get_logger(__name__)

# What waits for the application at once: some seconds of a busy process; more is dropped, never queued.
WAITING_MAX: Final = 256
TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Words:
    """What one editor said about a document. `actor` None: nobody knows who, in open mode."""

    tenant: str
    document: str
    actor: str | None
    payload: str


Hear = Callable[[Words], Awaitable[None]]


class Stateless:
    """Where words go. `hear` None: the application does not want any."""

    def __init__(self, hear: Hear | None, ignored: Callable[[str], None]):
        self._hear = hear
        self._ignored = ignored
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, words: Words) -> None:
        """Hand them over, soon and once."""
        if self._hear is None:
            self._ignored("stateless")
        elif len(self._tasks) >= WAITING_MAX:
            self._ignored("stateless, too many")
        else:
            task = asyncio.create_task(self._deliver(self._hear, words))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, hear: Hear, words: Words) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await hear(words)
        except Exception as error:
            # A function of the application's may raise anything; its own log has the rest.
            self._ignored("stateless, not taken")
            log.warning("the application did not take stateless words", reason=type(error).__name__)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def to_webhook(url: str, secret: str | None, client: httpx.AsyncClient) -> Hear:
    """POSTs `{tenant, document, actor, payload}`; redirects are not followed."""

    async def hear(words: Words) -> None:
        body = orjson.dumps(asdict(words))
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            headers[SIGNATURE_HEADER] = sign(secret, body, time.time())
        answer = await client.post(url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False)
        answer.raise_for_status()

    return hear


def to_function(path: str, variable: str) -> Hear:
    """Calls `module:function`, which gets `Words`. Raises SettingInvalid, naming the variable, where it is none."""
    function = find_function(path, variable)

    async def hear(words: Words) -> None:
        if inspect.iscoroutinefunction(function):
            await function(words)
        else:
            await asyncio.to_thread(function, words)

    return hear
