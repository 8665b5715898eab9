"""NOTIFY and LISTEN: who listens, and how soon a listener sees that nobody speaks to it any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.faults.proxy import Proxy
from tests.waiting import until
from ydoc_store.errors import ServerFault
from ydoc_store.storage import notifications
from ydoc_store.storage.notifications import Listener, notify
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


class Ear:
    """A listener and what it heard."""

    def __init__(self, database: Database):
        self.heard: list[tuple[str, str]] = []
        self.connections = 0
        self.beats = 0
        self.listener = Listener(database, ("one", "two"), self._note, self._connected)
        self.listener.changed = self._beat

    def _note(self, channel: str, payload: str) -> None:
        self.heard.append((channel, payload))
        if payload == "poison":
            raise ZeroDivisionError

    def _connected(self) -> None:
        self.connections += 1

    def _beat(self) -> None:
        self.beats += 1


@asynccontextmanager
async def listening(database: Database, prepare: Callable[[Ear], None] = lambda _: None) -> AsyncIterator[Ear]:
    ear = Ear(database)
    prepare(ear)
    task = asyncio.create_task(ear.listener.run())
    try:
        await until(lambda: ear.connections > 0 and ear.beats > 0)
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_said_is_heard_on_its_channel(database: Database) -> None:
    async with listening(database) as ear:
        await notify(database, "one", ["a", "b"])
        await notify(database, "two", ["c"])
        await notify(database, "three", ["d"])
        await notify(database, "one", ["e" * 7_999])
        await until(lambda: len(ear.heard) == 4)
        assert ear.heard == [("one", "a"), ("one", "b"), ("two", "c"), ("one", "e" * 7_999)]
        with pytest.raises(ServerFault):
            await notify(database, "one", ["f" * 8_000])


async def test_nodes_are_counted_by_the_locks_of_this_database_and_of_this_purpose(
    database: Database, connection: Connection, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "HEARTBEAT_S", 0.01)
    # Locks that look alike: one bigint, another key, exclusive waiters, another database's.
    await connection.execute("SELECT pg_advisory_lock($1)", (notifications.LISTENER_LOCK << 32) + 1)
    await connection.execute("SELECT pg_advisory_lock_shared($1, 1)", notifications.LISTENER_LOCK + 1)
    elsewhere = await asyncpg.connect(postgres_url)
    await elsewhere.execute("SELECT pg_advisory_lock_shared($1, 1)", notifications.LISTENER_LOCK)
    async with listening(database) as first:
        await until(lambda: first.listener.listeners == 1)
        async with listening(database) as second:
            await until(lambda: first.listener.listeners == second.listener.listeners == 2)
        await until(lambda: first.listener.listeners == 1)
        assert 0 <= first.listener.queue_usage < 0.1
    await elsewhere.close()


async def test_a_listener_that_raises_goes_on_listening(database: Database) -> None:
    async with listening(database) as ear:
        await notify(database, "one", ["poison", "after"])
        await until(lambda: ("one", "after") in ear.heard)
        assert ear.connections == 1


async def test_a_callback_that_raises_does_not_end_the_listening(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "RECONNECT_PAUSE_S", 0.01)
    failures = iter(range(2))

    def fail_twice(ear: Ear) -> None:
        def beat() -> None:
            ear.beats += 1
            if next(failures, None) is not None:
                raise ZeroDivisionError

        ear.listener.changed = beat

    async with listening(database, fail_twice) as ear:
        await until(lambda: ear.beats > 3)
        await notify(database, "one", ["still here"])
        await until(lambda: ("one", "still here") in ear.heard)


async def test_an_ended_connection_is_replaced_and_meanwhile_nobody_counts_as_alone(
    database: Database, connection: Connection
) -> None:
    async with listening(database) as ear:
        await until(lambda: ear.listener.listeners == 1)
        started_s = time.monotonic()
        counts: list[int] = []
        ear.listener.changed = lambda: counts.append(ear.listener.listeners)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1",
            notifications.LISTENER_LOCK,
        )
        await until(lambda: ear.connections == 2)
        # Seen at once, not at the next heartbeat.
        assert time.monotonic() - started_s < notifications.HEARTBEAT_S
        assert counts[0] == 2
        await notify(database, "two", ["again"])
        await until(lambda: ("two", "again") in ear.heard)


@pytest.mark.parametrize("when", ["listening", "connecting"])
async def test_a_silent_server_is_found_out(database_url: str, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    # 3 + 5 s as they are; the test has no time for that.
    assert notifications.HEARTBEAT_S + notifications.HEARTBEAT_TIMEOUT_S < 15
    monkeypatch.setattr(notifications, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(notifications, "HEARTBEAT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(notifications, "RECONNECT_PAUSE_S", 0.01)
    async with Proxy(database_url) as proxy:
        database = await Database.open(proxy.url, connect_timeout_s=0.3)
        speaker = await Database.open(database_url)
        async with listening(database) as ear:
            if when == "connecting":
                proxy.cut()
            before = proxy.connections
            proxy.stall()
            await until(lambda: proxy.connections > before)
            assert ear.listener.listeners == 2
            proxy.heal()
            known = ear.connections
            await until(lambda: ear.connections > known)
            await notify(speaker, "one", ["back"])
            await until(lambda: ("one", "back") in ear.heard)
        await speaker.close()
        await database.close(timeout_s=0.2)
