"""A room: one document's life in this process. It holds no Y.Doc: a head, what the committed log knows, members.

Everything that another person sees leaves here, and it leaves only after the COMMIT (I2): `submit` queues,
`accepted` delivers. What the room knows (`knowledge`) is fed by committed updates alone, so an ack can never rest
on something that is still in flight. Commits of other nodes may be heard of late, twice or out of order; they are
delivered in seq order all the same, and a gap is read from the log. Pure: no sockets, no awaits, no clock but the
one that measures; its keeper does what needs waiting.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ydoc_store.errors import (
    Draining,
    RoomDiscarded,
    ServerFull,
    StorageBusy,
    TooLarge,
    YdocError,
)
from ydoc_store.rooms.admission import STORED_LIMITS, RoomLimits, blanks_a_live_client
from ydoc_store.rooms.delivering import deliver, send_all
from ydoc_store.rooms.early import EarlyRuns, Run
from ydoc_store.rooms.judging import judge
from ydoc_store.rooms.member import MAY_ONLY_READ, READ_ONLY, Member, close_all
from ydoc_store.storage.appender import QueuedUpdate
from ydoc_store.storage.lane import QUEUED_OVERHEAD_BYTES
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import Walked, marker_update, walk

if TYPE_CHECKING:
    from ydoc_store.metrics import Distribution
    from ydoc_store.rooms.cache import RoomCache
    from ydoc_store.rooms.first_sync import ColdPieces
    from ydoc_store.rooms.keeper import Keeper
    from ydoc_store.rooms.presence import Presence
    from ydoc_store.storage.append_batch import Accepted
    from ydoc_store.storage.appender import Appender
    from ydoc_store.storage.creating import Created
    from ydoc_store.storage.guards import Guard, Verdict
    from ydoc_store.storage.loader import StoredDocument

# A full document of which more than one part in this many is not compacted yet will shrink: a passing trouble.
COMPACTION_HELPS_SHARE = 10
# Runs of clocks are counted anew when so many more may have come; a typed character mostly makes none.
COUNT_AGAIN_AFTER = 1_000


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
        keeper: Keeper,
    ):
        self.tenant = tenant
        self.name = name
        self.limits = limits
        self.cache = cache
        self.presence = presence
        self.appender = appender
        self.queue = appender.queue(tenant, name, self)
        self.members: dict[Member, None] = {}
        # How readers that come for news themselves are told that there is some.
        self.wakers: dict[Callable[[], None], None] = {}
        self.document_id: int | None = None
        self.epoch = 0
        self.marker: int | None = None
        self.head = 0
        self.knowledge = Knowledge()
        # A stored state vector cannot tell what its snapshot holds behind a gap. False until somebody has looked.
        self.gaps_known = True
        self.closed_by: YdocError | None = None
        self.size_bytes = 0
        self.tail_bytes = 0
        # The pieces of a long first sync, shared while some reader is still taking them.
        self.cold_pieces: weakref.ref[ColdPieces] | None = None
        self.emptied_at_s = 0.0
        self._in_flight: Knowledge | None = None
        self._state_vector: bytes | None = None
        # At most so many runs of clocks are known: counted when it was opened, and at least what came since.
        self.ranges_at_most = 0
        self._counted_ranges = 0
        self._early = EarlyRuns()
        self.keeper = keeper
        self._deliver_seconds = deliver_seconds

    # What a room is made of

    def open_stored(self, stored: StoredDocument, knowledge: Knowledge) -> None:
        """Begin from what the database holds; `knowledge` is that of its snapshot and tail."""
        self._identify(stored.id, stored.epoch, stored.marker)
        knowledge.add_marker(stored.marker)
        self.knowledge = knowledge
        self.count_ranges()
        self.gaps_known = stored.snapshot is None
        self.head = stored.head
        self.set_size(stored.size_bytes, stored.tail_bytes, stored.accepted_bytes)

    def _identify(self, document_id: int, epoch: int, marker: int) -> None:
        self.document_id = self.queue.document_id = document_id
        self.epoch = epoch
        self.marker = self.queue.marker = marker
        self.keeper.identified(self)

    def set_size(self, size_bytes: int, tail_bytes: int, accepted_bytes: int) -> None:
        """Bound the document: its counter of accepted bytes only grows, so its ceiling is what is left, above it.

        A compaction shrinks the document and leaves the counter, so every poll tells the sizes anew.
        """
        self.size_bytes = size_bytes
        self.tail_bytes = tail_bytes
        self.queue.bytes_ceiling = accepted_bytes + max(0, self.limits.document_bytes_max - size_bytes)

    def learn_gaps(self, behind_gaps: bytes | None) -> None:
        """Take in what the snapshot holds beyond its state vector, as an update; None when it holds nothing there."""
        if behind_gaps is not None:
            self._state_vector = None
            self.knowledge.add(walk(behind_gaps, STORED_LIMITS))
            self.count_ranges()
        self.gaps_known = True

    def state_vector(self) -> bytes:
        """What our Step1 says: committed content only, the epoch's marker included. Encoded once for many readers."""
        if self._state_vector is None:
            self._state_vector = self.knowledge.encode_state_vector()
        return self._state_vector

    # What a member sends

    def submit(self, member: Member, update: bytes, *, answers: bool = False) -> None:
        """Queue an update for its commit, or acknowledge it at once when it holds nothing new.

        `answers` tells a Step2. What only repeats something in flight is queued behind it and stored again: its ack
        must not rest on what is uncommitted. A read-only room declines what is new and keeps the member. Raises
        ClientFault, having stored nothing; the caller fences the member then.
        """
        self.submit_walked(member, update, walk(update, self.limits.update), answers=answers)

    def submit_walked(
        self,
        member: Member,
        update: bytes,
        walked: Walked,
        *,
        news: Walked | None = None,
        answers: bool = False,
        guard: Guard | None = None,
    ) -> None:
        """`submit`, for an update that was walked already, within this room's limits. `news` is what of it the room
        lacks, where somebody has looked.

        One with a guard always goes to the database, which alone can judge it.
        """
        news = walked if news is None else news
        if guard is None and self.knowledge.covers(news):
            member.counts.nothing_new += 1
            member.acknowledge(accepted=True, times=member.acks_for(walked, answers=answers))
            return
        # What is left holds something new, were it only a delete hidden in a Step2 (I17).
        if self.limits.read_only or not member.may_write:
            member.decline(READ_ONLY if self.limits.read_only else MAY_ONLY_READ, answers=answers)
            return
        judge(self, member, news)
        if self.appender.queued_bytes > self.limits.incoming_bytes_max:
            raise ServerFull("this server is busy: try again later")
        member.unsettled_bytes += len(update) + QUEUED_OVERHEAD_BYTES
        acks = member.acks_for(walked, answers=answers)
        self.queue.put(QueuedUpdate(update, member.actor, member, news, time.perf_counter(), acks, guard))
        if self._in_flight is not None:
            self._in_flight.add(news)
        is_much = self.appender.queued_bytes > self.limits.queue_bytes_max
        if is_much or member.unsettled_bytes > self.limits.member_unsettled_bytes_max:
            member.pause()

    def count_ranges(self) -> None:
        """Count what is known, for the limits on it; costs a microsecond for ten clients."""
        self._counted_ranges = self.ranges_at_most = self.knowledge.range_count

    def tidy_count(self) -> None:
        """Count anew where more may have come since than is worth guessing."""
        if self.ranges_at_most > self._counted_ranges + COUNT_AGAIN_AFTER:
            self.count_ranges()

    def flying(self) -> Knowledge:
        """What is in flight. Made when first asked for and kept up from there, or an import full of deletes would look
        through everything in flight for each of them."""
        if self._in_flight is None:
            self._in_flight = Knowledge.of(queued.walked for queued in (*self.queue.in_flight, *self.queue.waiting))
        return self._in_flight

    # What became of it

    def accepted(self, updates: list[QueuedUpdate], result: Accepted) -> None:
        """The COMMIT is known: acknowledge, and deliver as soon as everything before it has been."""
        if result.created is not None:
            self._created(result.created, is_whole=result.head == len(updates))
        is_open = self.closed_by is None
        self._state_vector = None
        senders: dict[Member, int] = {}
        for seq, queued in enumerate(updates, result.head - len(updates) + 1):
            member: Member = queued.sender
            senders[member] = senders.get(member, 0) + 1
            member.settled(len(queued.update) + QUEUED_OVERHEAD_BYTES)
            if is_open:
                if queued.walked.blanks and blanks_a_live_client(queued.walked, member, self.knowledge, self.presence):
                    self.keeper.audited(self, member, "blank run", seq)
                self._know(queued.walked)
                member.acknowledge(accepted=True, times=queued.acks, seq=seq)
        for member, count in senders.items():
            member.counts.accepted += count
        if not is_open:  # its members are on their way to a room that is loaded anew, with all that is in the log
            return
        if not self.queue.waiting:
            self._in_flight = None
        sole = next(iter(senders)) if len(senders) == 1 else None
        if self.appender.failpoints is not None:
            self.appender.failpoints.reach_at_once("append.after-ack")
        self.arrived(result.head - len(updates) + 1, result.head, [queued.update for queued in updates], sole)
        if self.head >= result.head:
            self._deliver_seconds.observe(time.perf_counter() - updates[0].queued_at_s)

    def _know(self, walked: Walked) -> None:
        self.knowledge.add(walked)
        self.ranges_at_most += len(walked.structs) + len(walked.deletes)

    def _created(self, created: Created, *, is_whole: bool) -> None:
        if self.closed_by is None:
            self.adopt(created)
        if is_whole:  # whoever adopts another node's document reads its size from the log
            self.queue.bytes_ceiling = self.limits.document_bytes_max

    def adopt(self, created: Created) -> None:
        """This document exists from now on. Its marker goes to everyone first (I10), first syncs under way included."""
        if self.document_id is not None:
            if self.document_id != created.document_id:
                self.discard(RoomDiscarded("this document was recreated meanwhile: sync again"))
            return
        self._identify(created.document_id, created.epoch, created.marker)
        self._state_vector = None
        self.knowledge.add_marker(created.marker)
        send_all(self, marker_update(created.marker), None, syncing_too=True)

    def refused(self, updates: list[QueuedUpdate], error: YdocError) -> None:
        """Nothing of these was accepted, or nobody knows. Whoever sent them is fenced; the log decides the rest."""
        for queued in updates:
            queued.sender.refused(len(queued.update) + QUEUED_OVERHEAD_BYTES, error)
        if isinstance(error, TooLarge) and self.tail_bytes > self.limits.document_bytes_max // COMPACTION_HELPS_SHARE:
            error = StorageBusy("this document waits for a compaction before it can grow")
        if isinstance(error, TooLarge | StorageBusy | Draining):
            # Known to be rolled back: what the room remembers still holds, and only the senders must sync again.
            for member in {queued.sender: None for queued in updates}:
                self.fence(member, error)
        else:
            self.discard(error)

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        """A guard left this update out of its batch, whose other updates are told after it: it flies no more."""
        self._in_flight = None
        queued.sender.settled(len(queued.update) + QUEUED_OVERHEAD_BYTES)
        queued.sender.judged(queued, verdict)

    def regrant(self, member: Member, *, may_write: bool) -> None:
        """Whether this member may write, from now on. What it has waiting, and may not write any more, is refused."""
        member.may_write = may_write
        if not may_write:
            for queued in self.queue.drop_waiting_of(member):
                member.settled(len(queued.update) + QUEUED_OVERHEAD_BYTES)
                member.decline(MAY_ONLY_READ)
            self._in_flight = None

    def fence(self, member: Member, error: YdocError) -> None:
        """Close a member; nothing that it has queued behind is accepted (I4)."""
        self.queue.drop_waiting_of(member)
        self._in_flight = None
        member.close(error)

    # What everyone sees

    def arrived(self, first: int, last: int, updates: Sequence[bytes], sole_writer: Member | None = None) -> None:
        """Committed updates are here; deliver what is next in seq order, keep what is early, forget repetitions."""
        if last <= self.head or self.closed_by is not None:
            return
        if first > self.head + 1:
            self._early.put(Run(first, last, updates, sole_writer))
            self.keeper.catch_up(self)
            return
        # A run may begin before the head: a log row or a hint overlaps what was delivered.
        self._deliver(Run(first, last, updates[self.head + 1 - first :], sole_writer))
        self.arrived_early()

    def arrived_from_elsewhere(self, first: int, last: int, updates: Sequence[bytes]) -> None:
        """Like `arrived`, for updates of another node: they are walked too, so that the room knows them.

        Raises InvalidUpdate when the log holds what cannot be walked.
        """
        if last <= self.head or self.closed_by is not None:
            return
        if first > self.head + 1:
            # A gap is read from the log, this run with it.
            self.keeper.catch_up(self)
            return
        updates = updates[self.head + 1 - first :]
        self._state_vector = None
        for update in updates:
            self._know(walk(update, STORED_LIMITS))
        self.arrived(self.head + 1, last, updates)

    def arrived_merged(self, last: int, update: bytes, knowledge: Knowledge) -> None:
        """What the log holds up to `last`, as one update that may repeat things (a snapshot), and what it knows."""
        if last > self.head and self.closed_by is None:
            self._state_vector = None
            self.knowledge.update(knowledge)
            self.count_ranges()
            self._deliver(Run(self.head + 1, last, [update], None))
            self.arrived_early()

    def arrived_early(self) -> None:
        """Deliver the runs that had come too early and fit by now."""
        while (run := self._early.take(self.head)) is not None:
            self._deliver(run)

    def _deliver(self, run: Run) -> None:
        before, self.head = self.head, run.last
        deliver(self, run, before)

    def wake_followers(self) -> None:
        """Something that a reader at its own pace may wait for has happened here."""
        for wake in tuple(self.wakers):
            wake()

    # Coming and going

    @property
    def is_full(self) -> bool:
        return len(self.members) >= self.limits.members_max

    def enter(self, member: Member) -> None:
        self.members[member] = None

    def leave(self, member: Member) -> None:
        self.members.pop(member, None)
        member.closed = True
        member.is_live = False

    def discard(self, error: YdocError) -> None:
        """What this room remembers can no longer be trusted: everyone comes back to a room that is loaded anew."""
        if self.closed_by is None:
            self.closed_by = error
            self.queue.is_abandoned = True
            for queued in self.queue.drop_waiting():
                queued.sender.settled(len(queued.update) + QUEUED_OVERHEAD_BYTES)
            self._early.clear()
            self._in_flight = None
            self.keeper.discarded(self)
            close_all(self.members, error)

    @property
    def is_idle(self) -> bool:
        """Nobody is here, and nothing waits for a commit."""
        return not self.members and not self.queue.waiting and not self.queue.in_flight

    @property
    def has_gap(self) -> bool:
        """Whether the log is known to hold what this room has not delivered."""
        return self._early.reach_beyond(self.head)
