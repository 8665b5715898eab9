"""A room: one document's life in this process. It holds no Y.Doc: a head, what the committed log knows, members.

Everything that another person sees leaves here, and it leaves only after the COMMIT (I2): `submit` queues,
`accepted` delivers. What the room knows (`knowledge`) is fed by committed updates alone, so an ack can never rest
on something that is still in flight. Commits of other nodes may be heard of late, twice or out of order; they are
delivered in seq order all the same, and a gap is read from the log. Pure: no sockets, no awaits, no clock but the
one passed in; `registry` does what needs waiting.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ydoc_store.errors import (
    AheadOfLog,
    ClientFault,
    EpochChanged,
    InvalidUpdate,
    StorageBusy,
    TooLarge,
    YdocError,
)
from ydoc_store.metrics import Distribution
from ydoc_store.rooms.cache import RoomCache
from ydoc_store.rooms.member import Delivery, Member, close_all
from ydoc_store.rooms.presence import Presence
from ydoc_store.storage.append_batch import Accepted, Created
from ydoc_store.storage.appender import Appender, QueuedUpdate
from ydoc_store.storage.loader import StoredDocument
from ydoc_store.yjs.merge import EMPTY_UPDATE, merge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, UpdateLimits, Walked, marker_update, walk


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """What one member may do to a room; the settings of the same names give the defaults and reasons."""

    update: UpdateLimits
    document_bytes_max: int
    # What one member may have in flight before its socket is no longer read: some seconds of the fastest typist.
    member_unsettled_bytes_max: int = 4 * 2**20
    queue_bytes_max: int = 64 * 2**20


@dataclass(slots=True)
class _Run:
    """Committed updates (first - 1, last] on their way to the members."""

    first: int
    last: int
    updates: Sequence[bytes]
    sole_writer: Member | None


class ColdPieces:
    """A document up to `seq`, cut for a first sync; kept alive by the readers that are taking it."""

    __slots__ = ("__weakref__", "pieces", "seq")

    def __init__(self, seq: int, pieces: list[bytes]):
        self.seq = seq
        self.pieces = pieces


class Room:
    """One document, its members, and the order in which they see it."""

    def __init__(
        self,
        tenant: str,
        name: str,
        appender: Appender,
        cache: RoomCache,
        limits: RoomLimits,
        presence: Presence,
        deliver_seconds: Distribution,
        catch_up: Callable[[Room], None],
    ):
        self.tenant = tenant
        self.name = name
        self.limits = limits
        self.cache = cache
        self.presence = presence
        self.appender = appender
        self.queue = appender.queue(tenant, name, self)
        self.members: dict[Member, None] = {}
        self.document_id: int | None = None
        self.epoch = 0
        self.marker: int | None = None
        self.head = 0
        self.knowledge = Knowledge()
        self.closed_by: YdocError | None = None
        self.size_bytes = 0
        self.tail_bytes = 0
        # What a load brought and no reader has taken yet; dropped by the registry when none comes for it.
        self.fresh: tuple[int, list[bytes]] | None = None
        # The pieces of a long first sync, shared while some reader is still taking them.
        self.cold_pieces: weakref.ref[ColdPieces] | None = None
        self.emptied_at_s = 0.0
        self._early: dict[int, _Run] = {}
        self._catch_up = catch_up
        self._deliver_seconds = deliver_seconds

    # What a room is made of

    def open_stored(self, stored: StoredDocument, knowledge: Knowledge) -> None:
        """Begin from what the database holds; `knowledge` is that of its snapshot and tail."""
        self._identify(stored.id, stored.epoch, stored.marker)
        knowledge.add_marker(stored.marker)
        self.knowledge = knowledge
        self.head = stored.head
        self.set_size(stored.size_bytes, stored.tail_bytes, stored.accepted_bytes)

    def _identify(self, document_id: int, epoch: int, marker: int) -> None:
        self.document_id = self.queue.document_id = document_id
        self.epoch = epoch
        self.marker = marker

    def set_size(self, size_bytes: int, tail_bytes: int, accepted_bytes: int) -> None:
        """Bound the document: its counter of accepted bytes only grows, so its ceiling is what is left, above it.

        A compaction shrinks the document and leaves the counter, so every poll tells the sizes anew.
        """
        self.size_bytes = size_bytes
        self.tail_bytes = tail_bytes
        self.queue.bytes_ceiling = accepted_bytes + max(0, self.limits.document_bytes_max - size_bytes)

    def state_vector(self) -> bytes:
        """What our Step1 says: committed content only, the epoch's marker included."""
        return self.knowledge.encode_state_vector()

    # What a member sends

    def judge_state_vector(self, vector: dict[int, int]) -> None:
        """Raises EpochChanged when the vector carries the marker of a history that this document is not."""
        for client in vector:
            if client >= RESERVED_CLIENT_ID_MIN and client != self.marker:
                raise EpochChanged("this document was recreated or repaired: reload it before editing on")

    def submit(self, member: Member, update: bytes) -> None:
        """Queue an update for its commit, or acknowledge it at once when it holds nothing new.

        Raises ClientFault, having stored nothing; the caller fences the member then.
        """
        counts = member.counts
        if update == EMPTY_UPDATE:
            counts.nothing_new += 1
            member.acknowledge(accepted=True)
            return
        walked = walk(update, self.limits.update)
        if self.knowledge.covers(walked):
            counts.nothing_new += 1
            member.acknowledge(accepted=True)
            return
        self._judge(walked)
        size = len(update)
        member.unsettled_bytes += size
        self.queue.put(QueuedUpdate(update, member.actor, member, walked, time.perf_counter()))
        if member.unsettled_bytes > self.limits.member_unsettled_bytes_max or (
            self.appender.queued_bytes > self.limits.queue_bytes_max
        ):
            member.pause()

    def _judge(self, walked: Walked) -> None:
        limits = self.limits.update
        if walked.over(limits) is not None:
            # What is merely repeated does not count: every reconnect brings the whole delete set.
            excess = self.knowledge.news(walked).over(limits)
            if excess is not None:
                raise TooLarge(f"this update brings too much at once: {excess}")
        for client, clock, end in (*walked.structs, *walked.deletes):
            if client >= RESERVED_CLIENT_ID_MIN:
                _judge_reserved(client, clock, end, self.marker)
        if not self.knowledge.knows_delete_targets(walked) and not self._in_flight_knows(walked):
            raise AheadOfLog("a delete of content that never came: sync again and bring it")

    def _in_flight_knows(self, walked: Walked) -> bool:
        # Rare: text that is deleted before its commit is back. What is in flight is few updates of this room.
        in_flight = Knowledge()
        for queued in (*self.queue.in_flight, *self.queue.waiting):
            in_flight.add(queued.walked)
        return self.knowledge.knows_delete_targets(walked, in_flight)

    # What became of it

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None:
        """The COMMIT is known: acknowledge, and deliver as soon as everything before it has been."""
        if result.created is not None:
            self.adopt(result.created)
        knowledge = self.knowledge
        senders: dict[Member, int] = {}
        for queued in updates:
            knowledge.add(queued.walked)
            member: Member = queued.sender
            senders[member] = senders.get(member, 0) + 1
            member.settled(len(queued.update))
            member.acknowledge(accepted=True)
        for member, count in senders.items():
            member.counts.accepted += count
        sole = next(iter(senders)) if len(senders) == 1 else None
        first = result.head - len(updates) + 1
        self.arrived(first, result.head, [queued.update for queued in updates], sole)
        self._deliver_seconds.observe(time.perf_counter() - updates[0].queued_at_s)

    def adopt(self, created: Created) -> None:
        """This document exists from now on. Its marker goes to everyone first, the writer included."""
        self._identify(created.document_id, created.epoch, created.marker)
        self.knowledge.add_marker(created.marker)
        delivery = Delivery(marker_update(created.marker))
        for member in self.members:
            if member.is_live:
                member.deliver(delivery)
        self.queue.bytes_ceiling = self.limits.document_bytes_max

    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
        """Nothing of these was accepted, or nobody knows. Whoever sent them is fenced; the log decides the rest."""
        for queued in updates:
            member: Member = queued.sender
            member.settled(len(queued.update))
            if isinstance(error, ClientFault):
                member.counts.refused += 1
            else:
                member.counts.failed += 1
        if isinstance(error, TooLarge):
            if self.tail_bytes > self.limits.document_bytes_max // COMPACTION_HELPS_SHARE:
                error = StorageBusy("this document waits for a compaction before it can grow")
            for member in {queued.sender: None for queued in updates}:
                self.fence(member, error)
        else:
            self.discard(error)

    def fence(self, member: Member, error: YdocError) -> None:
        """Close a member; nothing that it has queued behind is accepted (I4)."""
        self.queue.drop_waiting_of(member)
        member.close(error)

    # What everyone sees

    def arrived(self, first: int, last: int, updates: Sequence[bytes], sole_writer: Member | None = None) -> None:
        """Committed updates are here; deliver what is next in seq order, keep what is early, forget repetitions."""
        if last <= self.head:
            return
        if first > self.head + 1:
            self._early[first] = _Run(first, last, updates, sole_writer)
            self._catch_up(self)
            return
        # A run may begin before the head: a log row or a hint overlaps what was delivered.
        self._deliver(_Run(first, last, updates[self.head + 1 - first :], sole_writer))
        while self._early:
            following = min(self._early)
            if following > self.head + 1:
                self._catch_up(self)
                return
            run = self._early.pop(following)
            if run.last > self.head:
                run.updates = run.updates[self.head + 1 - run.first :]
                self._deliver(run)

    def arrived_from_elsewhere(self, first: int, last: int, updates: Sequence[bytes]) -> None:
        """Like `arrived`, for updates of another node: they are walked too, so that the room knows them."""
        if last <= self.head or first > self.head + 1:
            # A gap is read from the log, this run with it.
            if last > self.head:
                self._catch_up(self)
            return
        updates = updates[self.head + 1 - first :]
        for update in updates:
            self.knowledge.add(walk(update, STORED_LIMITS))
        self.arrived(self.head + 1, last, updates)

    def arrived_merged(self, last: int, update: bytes) -> None:
        """What the log holds up to `last`, as one update that may repeat things (a snapshot, a joined tail)."""
        if last > self.head:
            self.knowledge.add(walk(update, STORED_LIMITS))
            self._deliver(_Run(self.head + 1, last, [update], None))
            self.arrived_early()

    def arrived_early(self) -> None:
        """Deliver the runs that had come too early and fit by now."""
        while self._early and min(self._early) <= self.head + 1:
            run = self._early.pop(min(self._early))
            self.arrived(run.first, run.last, run.updates, run.sole_writer)

    def _deliver(self, run: _Run) -> None:
        self.head = run.last
        for update in _joined(run.updates):
            self.cache.add(run.last, update)
            delivery = Delivery(update)
            sole = run.sole_writer
            for member in self.members:
                if member.is_live and member is not sole:
                    member.deliver(delivery)

    # Coming and going

    def leave(self, member: Member) -> None:
        self.members.pop(member, None)
        member.closed = True
        member.is_live = False

    def discard(self, error: YdocError) -> None:
        """What this room remembers can no longer be trusted: everyone comes back to a room that is loaded anew."""
        if self.closed_by is None:
            self.closed_by = error
            for queued in self.queue.drop_waiting():
                queued.sender.settled(len(queued.update))
            self._early.clear()
            self.cache.clear(self.head)
            close_all(self.members, error)

    @property
    def is_idle(self) -> bool:
        """Nobody is here, and nothing waits for a commit."""
        return not self.members and not self.queue.waiting and not self.queue.in_flight

    @property
    def has_gap(self) -> bool:
        return bool(self._early)


# A full document of which more than one part in this many is not compacted yet will shrink: a passing trouble.
COMPACTION_HELPS_SHARE = 10

# What is in the log was within the limits of its day; it must be walked whatever today's are.
STORED_LIMITS = UpdateLimits(update_bytes_max=2**31, entries_max=2**31, nesting_max=100, types_nesting_max=2**31)


def _joined(updates: Sequence[bytes]) -> Sequence[bytes]:
    if len(updates) == 1:
        return updates
    try:
        return [merge(updates)]
    except InvalidUpdate:
        # Committed is committed: what pycrdt will not join is delivered one by one.
        return updates


def _judge_reserved(client: int, clock: int, end: int, marker: int | None) -> None:
    """Under reserved ids there is this epoch's marker, one unit at clock 0, and nothing else."""
    if client != marker:
        raise EpochChanged("this document was recreated or repaired: reload it before editing on")
    if (clock, end) != (0, 1):
        raise InvalidUpdate("client ids from 2^53 - 2^24 on are reserved")
