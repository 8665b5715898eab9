"""NOTIFY and LISTEN: hints between nodes, carried by Postgres. The texts mean nothing here.

A connection of its own listens. asyncpg is silent for minutes about a listener whose server is gone, so it is
asked for a sign of life at an interval and replaced when none comes. Everything said here may be lost, and is
allowed to be: the log decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from ydoc_store.errors import YdocError
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

NOTIFY = "SELECT pg_notify($1, n.payload) FROM unnest($2::text[]) AS n (payload)"
# Which nodes listen, by the advisory locks that they hold while they do; and how full the queue is.
LISTENERS_AND_QUEUE = """
SELECT (SELECT count(*) FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.classid = $1 AND l.objsubid = 2 AND l.granted
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) AS listeners,
    pg_notification_queue_usage() AS usage
"""
HOLD_LISTENER_LOCK = "SELECT pg_advisory_lock_shared($1, $2)"
# "ydoc" read as a number.
LISTENER_LOCK = 0x79646F63

HEARTBEAT_S = 3.0
HEARTBEAT_TIMEOUT_S = 5.0
RECONNECT_PAUSE_S = 0.5

Heard = Callable[[str, str], None]


class Listener:
    """Listens on some channels for ever; `heard(channel, payload)` is called on the event loop.

    `listeners` and `queue_usage` are as of the last heartbeat: how many nodes listen, this one included, and how
    full the server's notification queue is (1.0 aborts every transaction that notifies).
    """

    def __init__(self, database: Database, channels: Sequence[str], heard: Heard, reconnected: Callable[[], None]):
        self._database = database
        self._channels = channels
        self._heard = heard
        self._reconnected = reconnected
        self.listeners = 2
        self.queue_usage = 0.0
        self.changed: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as it takes."""
        while True:
            try:
                await self._listen()
            except (YdocError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                # Every half second while the database is away: a line, not a traceback.
                log.warning("the listener's connection was lost", reason=str(error) or type(error).__name__)
            except Exception:  # whoever is called here must not end the listening
                log.exception("the listener failed")
            # Nobody can be told to be alone by a listener that hears nothing.
            self.listeners = 2
            with contextlib.suppress(Exception):
                self.changed()
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _listen(self) -> None:
        connection = await self._database.connect_alone()
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _connection: ended.set())
        try:
            async with asyncio.timeout(HEARTBEAT_TIMEOUT_S):
                for channel in self._channels:
                    await connection.add_listener(channel, self._callback)
                await connection.execute(HOLD_LISTENER_LOCK, LISTENER_LOCK, 1)
            self._reconnected()
            while not ended.is_set():
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_S):
                    row = await connection.fetchrow(LISTENERS_AND_QUEUE, LISTENER_LOCK)
                if row is not None:
                    self.listeners, self.queue_usage = row[0], row[1]
                    self.changed()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await ended.wait()
        finally:
            connection.terminate()

    def _callback(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        try:
            self._heard(channel, str(payload))
        except Exception:
            log.exception("a notification could not be taken", channel=channel)


async def notify(database: Database, channel: str, payloads: Sequence[str]) -> None:
    """Say these texts (under 8,000 bytes each) to every listener. Raises ServerFault."""
    async with database.acquire() as connection:
        with mapping_errors("notifying"):
            await connection.execute(NOTIFY, channel, list(payloads))
