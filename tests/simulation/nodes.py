"""A node: the relay's own composition (appender, rooms, fan-out) with simulated sockets in place of real ones.

It opens rooms for sockets as `relay/relay` does, is drained as `serve` drains it, and can be killed: then its tasks
end, its connections to the database and its sockets are cut, and nothing of it reaches anybody any more.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from tests.simulation.connections import SimulatedDatabase
from tests.simulation.loop import OWNER, SimulatedLoop
from tests.simulation.network import Socket
from ydoc_store.auth.access import OPEN
from ydoc_store.errors import Draining, StorageUnavailable, YdocError
from ydoc_store.metrics import Metrics
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.relay.relay import OPEN_TIMEOUT_S, TICK_S
from ydoc_store.relay.service import RelayService
from ydoc_store.rooms.ywebsocket import YWebsocketSession

if TYPE_CHECKING:
    from tests.simulation.postgres import Postgres
    from tests.simulation.weather import Storm
    from ydoc_store.rooms.room import Room
    from ydoc_store.settings import Settings

METRICS = Metrics()
START_PAUSE_S = 0.2


class Node:
    """Also stands for the service's `Relay`: whoever it asks to stop reading or to say goodbye to are our sockets."""

    def __init__(self, loop: SimulatedLoop, postgres: Postgres, weather: Storm, settings: Settings) -> None:
        self.loop = loop
        self.weather = weather
        self.settings = settings
        self.sockets: dict[Socket, None] = {}
        self.is_serving = False
        self.is_dead = False
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self.database = SimulatedDatabase(postgres, weather, self)
        self.service: Any = self.context.run(RelayService, self.database, settings, METRICS)
        self.service.relay = self
        self._ticking: asyncio.Task[None] | None = None
        self.starting = loop.create_task(self._start(), context=self.context)

    async def _start(self) -> None:
        while True:
            try:
                await self.service.start()
            except YdocError:
                # A supervisor starts it again; what was begun is not kept.
                await self.service.appender.drain(0)
                await asyncio.sleep(START_PAUSE_S)
            else:
                self.is_serving = True
                return

    # Sockets, as the relay opens them

    def accept(self, socket: Socket) -> None:
        if self.is_dead:
            socket.node_died(0)
            return
        if socket.is_closing:
            # Its editor has left meanwhile.
            return
        self.sockets[socket] = None
        if not self.is_serving:
            socket.close(Draining("not serving"))
            return
        room = self.service.rooms.rooms.get((DEFAULT_TENANT, socket.name))
        if room is not None:
            socket.begin(self._session(room, socket))
        else:
            self.loop.create_task(self._open(socket), context=self.context)

    def _session(self, room: Room, socket: Socket) -> YWebsocketSession:
        return YWebsocketSession(self.service.rooms, room, socket, OPEN, self.service.authorizer.judge)

    async def _open(self, socket: Socket) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                room = await self.service.rooms.open(DEFAULT_TENANT, socket.name)
        except TimeoutError:
            socket.close(StorageUnavailable("not loaded in time"))
        except YdocError as error:
            socket.close(error)
        else:
            if not socket.is_closing:
                socket.begin(self._session(room, socket))

    # What the service asks of its relay

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._tick_for_ever())

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.service.rooms.attendance.expire(self.loop.time())

    def stop_reading(self) -> None:
        self.is_serving = False
        for socket in self.sockets:
            socket.stop_reading()

    async def say_goodbye(self, _timeout_s: float) -> None:
        for socket in list(self.sockets):
            socket.close(Draining("this server is stopping"))
        await asyncio.sleep(self.weather.delay_s())
        await self.stop()

    async def stop(self) -> None:
        self.is_serving = False
        for socket in list(self.sockets):
            socket.close(Draining("this server is stopping"))
            socket.ended()
        if self._ticking is not None:
            self._ticking.cancel()

    # The end

    async def drain_and_stop(self) -> None:
        self.is_serving = False
        await self.starting
        self.is_serving = False
        await self.service.drain(2.0)
        await self.service.stop()
        await self.database.close()
        self.is_dead = True

    def kill(self) -> None:
        self.is_dead = self.database.is_dead = True
        self.is_serving = False
        for socket in list(self.sockets):
            socket.node_died(self.weather.share())
        self.sockets.clear()
        self.database.cut()
        for task in self.loop.tasks_of(self):
            task.cancel()
