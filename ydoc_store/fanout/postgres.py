"""Fan-out between nodes over Postgres alone: NOTIFY once a group commit, presence in small batches.

Hints are left out while no other node listens (they would only cost the commit) and while the server's
notification queue is filling (a full one aborts the transaction that notifies). What is lost that way, or any
other, the poll of the rooms finds. What a node does with a hint is decided by whoever starts this.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from ydoc_store.errors import YdocError
from ydoc_store.fanout.hints import LogHint, parse_log_hint
from ydoc_store.fanout.presence import PresenceHint, PresenceOutbox, PresenceReader, presence_payloads
from ydoc_store.storage.append_batch import HINT_CHANNEL
from ydoc_store.storage.notifications import Listener, notify

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.storage.appender import Appender
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

PRESENCE_CHANNEL = "ydoc_presence"
# Cursors move many times a second; other nodes see them this often.
PRESENCE_INTERVAL_S = 0.05
# Postgres warns at one half; a quarter leaves hours of ordinary traffic.
QUEUE_USAGE_MAX = 0.25
# What a node that stops still tells the others, that its members are gone, may take this long.
LAST_WORDS_S = 1.0


class PostgresFanout:
    """Carries this node's hints to the others and theirs to this one."""

    def __init__(
        self,
        database: Database,
        appender: Appender,
        node: str,
        metrics: Metrics,
        on_log: Callable[[LogHint], None],
        on_presence: Callable[[str, PresenceHint], None],
        on_listening: Callable[[], None],
    ):
        self._database = database
        self._appender = appender
        self._node = node
        self._metrics = metrics
        self.on_log = on_log
        self.on_presence = on_presence
        self._reader = PresenceReader(node)
        self._numbers = itertools.count(1)
        self._outbox = PresenceOutbox()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._on_listening = on_listening
        self._listener = Listener(database, (HINT_CHANNEL, PRESENCE_CHANNEL), self.heard, self._listening)
        self._listener.changed = self._judge_hints

    @property
    def others_listen(self) -> bool:
        return self._listener.listeners > 1

    @property
    def _queue_has_room(self) -> bool:
        return self._listener.queue_usage < QUEUE_USAGE_MAX

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listener.run(), name="fan-out listener"),
            asyncio.create_task(self._send_presence(), name="fan-out presence"),
        ]

    def _judge_hints(self) -> None:
        usage = self._listener.queue_usage
        had_room = self._metrics.notification_queue_usage < QUEUE_USAGE_MAX
        self._metrics.notification_queue_usage = usage
        if had_room and not self._queue_has_room:
            log.warning("hints are left out: the notification queue fills", usage=round(usage, 3))
        self._appender.hints_wanted = self.others_listen and self._queue_has_room

    def heard(self, channel: str, payload: str) -> None:
        """A notification; whatever is wrong with one hint concerns that hint alone."""
        node = payload.partition(";")[0]
        if node == self._node:
            return
        if not self.others_listen:
            # Somebody else is here, whatever the last heartbeat said.
            self._listener.listeners = 2
            self._judge_hints()
        try:
            if channel == HINT_CHANNEL:
                for hint in parse_log_hint(payload, self._node):
                    self._metrics.hint("inline" if hint.updates is not None else "bare")
                    self.on_log(hint)
            else:
                for told in self._reader.read(payload)[1]:
                    self.on_presence(node, told)
        except Exception:
            log.exception("a hint could not be used")

    def _listening(self) -> None:
        # Whoever was alone until now leaves its hints out; a word from us, about no document, ends that at once.
        self.tell_presence(PresenceHint("", "", [], asks=True))
        self._on_listening()

    def tell_presence(self, hint: PresenceHint) -> None:
        """Tell the other nodes, soon. Dropped when nobody else is there, or when Postgres is not: it is renewed."""
        if (self.others_listen or hint.asks) and self._queue_has_room and self._outbox.add(hint):
            self._wake.set()

    async def _send_presence(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send_waiting()
            await asyncio.sleep(PRESENCE_INTERVAL_S)

    async def _send_waiting(self) -> None:
        payloads = list(presence_payloads(self._node, self._numbers, self._outbox.take()))
        if payloads:
            try:
                await notify(self._database, PRESENCE_CHANNEL, payloads)
            except YdocError as error:
                log.debug("presence not told", error=str(error))

    async def stop(self) -> None:
        """Tell what still waits, in about LAST_WORDS_S at most, and listen no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._send_waiting()
        except TimeoutError:
            log.debug("last presence not told")
