"""A room without a database and without sockets: outlets keep what they are sent, and nothing is committed by itself.

A test says when something is: `take` and `land` do as a lane of the appender.
"""

from __future__ import annotations

from typing import Any

from ydoc_store.errors import YdocError
from ydoc_store.metrics import Metrics
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.cache import CacheBudget, RoomCache
from ydoc_store.rooms.presence import Presence
from ydoc_store.rooms.room import Room
from ydoc_store.storage.append_batch import Accepted, Created
from ydoc_store.storage.appender import DocumentQueue, QueuedUpdate
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

MARKER = RESERVED_CLIENT_ID_MIN + 1
CREATED = Created(7, 1, MARKER)


class Outlet:
    """Keeps what it is sent. While it is held it hands nothing over, as a connection does."""

    id = "c1"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed_by: YdocError | None = None
        self.is_reading = True
        self.is_held = False

    def encode(self, message: bytes) -> bytes:
        return message

    def write(self, encoded: bytes) -> None:
        self.sent.append(encoded)

    async def write_paced(self, encoded: bytes) -> bool:
        self.sent.append(encoded)
        return True

    def close(self, error: YdocError) -> None:
        self.closed_by = self.closed_by or error

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def rest_reading(self, seconds: float) -> None: ...

    def hold_reading(self) -> None:
        self.is_held = True

    def release_reading(self) -> None:
        self.is_held = False


class Lane:
    def __init__(self, appender: Appender) -> None:
        self.appender = appender
        self.dirty: dict[Any, None] = {}

    def mark(self, queue: Any) -> None:
        self.dirty[queue] = None


class Appender:
    """Queues, and commits nothing by itself."""

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.failpoints: None = None

    def queue(self, tenant: str, name: str, outcome: Any) -> DocumentQueue:
        return DocumentQueue(tenant, name, outcome, Lane(self))  # type: ignore[arg-type] # as much of one as it needs


def empty_room(tenant: str, name: str, appender: Appender, limits: RoomLimits, metrics: Metrics, keeper: Any) -> Room:
    """A room whose document was not there when it was loaded."""
    cache = RoomCache(CacheBudget(2**20), 2**20)
    cache.fill(0, b"")
    return Room(tenant, name, appender, cache, limits, Presence(10), metrics.deliver_seconds, keeper)  # type: ignore[arg-type] # likewise


def take(room: Room) -> list[QueuedUpdate]:
    """What waits becomes in flight, as a lane does it."""
    queue = room.queue
    queue.in_flight, queue.waiting, queue.waiting_bytes = queue.waiting, [], 0
    return queue.in_flight


def land(room: Room, head: int, created: Created | None = None) -> None:
    """What is in flight is committed, and the document is at `head`."""
    taken, room.queue.in_flight = room.queue.in_flight, []
    room.accepted(taken, Accepted(head, created))
