"""The relay put together for one process: appender, rooms, fan-out and sockets, started and drained in order.

Composition only. The order of the drain is what keeps the promise: stop reading, commit what was read, send what
was committed, say goodbye.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any

import structlog

from ydoc_store.auth.authorizer import Authorizer
from ydoc_store.auth.stateless import Stateless
from ydoc_store.errors import CorruptDocument, ServerFault, YdocError
from ydoc_store.failpoints import Failpoints
from ydoc_store.fanout.hints import LogHint
from ydoc_store.fanout.postgres import PostgresFanout
from ydoc_store.relay.relay import Relay
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.registry import Rooms
from ydoc_store.storage.appender import Appender, BatchLimits
from ydoc_store.yjs.walker import UpdateLimits

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.settings import Settings
    from ydoc_store.storage.pool import Database

log = structlog.get_logger(__name__)

# What a drain keeps of its time for sending and closing, after the commits.
GOODBYE_SHARE = 0.5


class RelayService:
    """One node of the relay. `node` names it among the nodes of one database; it is never used again."""

    def __init__(self, database: Database, settings: Settings, metrics: Metrics):
        self.settings = settings
        self.metrics = metrics
        metrics.read_only = settings.read_only
        self.node = secrets.token_hex(6)
        self.appender = Appender(
            database,
            lanes=settings.append_lanes,
            limits=BatchLimits(
                settings.append_batch_bytes_max,
                settings.append_batch_updates_max,
                settings.append_batch_documents_max,
            ),
            timeout_s=settings.append_timeout_s,
            hint_prefix=self.node,
            inline_bytes_max=settings.notify_inline_bytes_max * 4 // 3,
            keep_deleted=settings.keep_deleted,
            failpoints=Failpoints.parse(settings.failpoints),
        )
        self.rooms = Rooms(database, self.appender, settings, _room_limits(settings), metrics)
        self.database = database
        self.authorizer = Authorizer.of(settings, metrics.limited)
        self.rooms.stateless = Stateless(self.authorizer.hear, metrics.ignored)
        self.relay = Relay(self.rooms, settings, metrics, self.authorizer)
        self.fanout = PostgresFanout(
            database,
            self.appender,
            self.node,
            metrics,
            on_log=self._hinted,
            on_presence=self.rooms.attendance.heard,
            on_listening=self._listening,
        )
        if not settings.read_only:
            self.rooms.attendance.tell = self.fanout.tell_presence
        self.appender.events.committed = self._committed
        self._poll: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        rooms = self.rooms
        metrics.known_ranges = lambda: rooms.known_ranges
        metrics.held_bytes = {
            "outboxes": lambda: rooms.outboxes.used_bytes,
            "queued": lambda: rooms.appender.queued_bytes,
            "incoming": lambda: rooms.incoming.used_bytes,
            "first_syncs": lambda: rooms.first_sync.prepared.used,
            "caches": lambda: rooms.cache_bytes,
            "streams": lambda: rooms.streams.recent_bytes,
            "snapshots": lambda: rooms.snapshots.kept_bytes,
        }

    async def start(self) -> None:
        """Raises StorageUnavailable when the database does not take an append connection."""
        # Before anyone is let in, so that nobody waits for it or shares a core with its start.
        warming = self.rooms.spawn(self.rooms.heavy.warm())
        if not self.settings.read_only:
            await self.appender.start()
        # What the rooms are loaded from is known before the first is.
        await self.rooms.watch.poll()
        if not self.settings.read_only:
            # A standby takes neither NOTIFY nor LISTEN, and NOTIFY writes to the WAL: the poll alone finds what is new.
            self.fanout.start()
        self.relay.start()
        await warming
        self._poll = asyncio.create_task(self.rooms.watch.run(), name="poll")
        if not self.authorizer.is_open:
            await self._refresh_revocations()
            self._refreshing = asyncio.create_task(self._refresh_for_ever(), name="revocations")

    async def _refresh_revocations(self) -> None:
        await self.authorizer.revocations.refresh(self.database, self.settings.token_lifetime_max_s)

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_interval_s)
            try:
                await self._refresh_revocations()
            except ServerFault as error:
                log.warning("revocations could not be read", reason=str(error))

    def websocket_protocol(self) -> Any:
        return self.relay.websocket_protocol()

    def _committed(self, updates: int, seconds: float) -> None:
        self.metrics.commit_seconds.observe(seconds)
        self.metrics.append_batch_updates.observe(updates)
        self.rooms.feeds.wake()

    def _hinted(self, hint: LogHint) -> None:
        self.rooms.feeds.wake()
        if self.rooms.streams.hinted(hint.document_id, hint.count, hint.head, hint.updates, hint.marker):
            return
        room = self.rooms.by_document_id.get(hint.document_id)
        if room is not None and hint.marker not in (None, room.marker):
            # Either is of a database that went back.
            self._poll_soon()
        elif hint.count == 0:
            # Deleted or replaced: what the room lacks is the reason to close. Or all of them are not what they were.
            if room is not None:
                self.rooms.catch_up(room)
            elif hint.document_id == 0:
                self._poll_soon()
        elif room is None:
            self.rooms.watch.unknown_moved()
        elif hint.updates is not None:
            try:
                room.arrived_from_elsewhere(hint.head - hint.count + 1, hint.head, hint.updates)
            except YdocError as error:
                room.discard(CorruptDocument(f"the log cannot be read: {error}"))
        elif hint.head > room.head:
            self.rooms.catch_up(room)

    def _listening(self) -> None:
        self.rooms.attendance.listening()
        self._poll_soon()

    def _poll_soon(self) -> None:
        # Whatever was said while nobody listened here is found by one look.
        self.rooms.spawn(self.rooms.watch.poll())

    async def drain(self, timeout_s: float) -> None:
        """Take nothing more, commit and deliver what was taken, close every socket with 1001; at most `timeout_s`."""
        started_s = time.monotonic()
        self.rooms.refuse_new()
        self.relay.stop_reading()
        await self.appender.drain(timeout_s * GOODBYE_SHARE)
        await self.relay.say_goodbye(max(1.0, timeout_s - (time.monotonic() - started_s)))

    async def stop(self) -> None:
        """Stop everything at once; what was not drained is refused, never half done."""
        tasks = [task for task in (self._poll, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.rooms.refuse_new()
        await self.appender.drain(0)
        await self.relay.stop()
        await self.rooms.stop()
        # Last, because the other nodes are told who went.
        await self.fanout.stop()
        await self.rooms.stateless.stop()
        await self.authorizer.close()


def update_limits(settings: Settings) -> UpdateLimits:
    """What one update may hold, as the settings have it."""
    return UpdateLimits(
        update_bytes_max=settings.update_bytes_max,
        nesting_max=settings.nesting_max,
        structs_max=settings.update_structs_max,
        clients_max=settings.update_clients_max,
        delete_ranges_max=settings.update_delete_ranges_max,
    )


def _room_limits(settings: Settings) -> RoomLimits:
    return RoomLimits(
        update=update_limits(settings),
        document_bytes_max=settings.document_bytes_max,
        member_unsettled_bytes_max=settings.member_unsettled_bytes_max,
        pending_units_max=settings.document_pending_units_max,
        queue_bytes_max=settings.append_queue_bytes_max,
        read_only=settings.read_only,
        incoming_bytes_max=settings.process_incoming_bytes_max,
        members_max=settings.document_connections_max,
        document_ranges_max=settings.document_ranges_max,
    )


def websocket_protocol(service: RelayService) -> Any:
    """What uvicorn's `ws` setting takes."""
    return service.websocket_protocol()
