"""A member: one connection in a room, and the outlet by which the transport takes what it is sent.

A member is `syncing` from its Step1 until its first sync has gone out, and is skipped by deliveries meanwhile: it
catches up from the log afterwards, so that a slow first sync holds nothing. Then it is live. Dialects differ only
in how messages look, which a `Dialect` answers. Pure: no sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from ydoc_store.errors import ClientFault, YdocError
from ydoc_store.metrics import DialectCounts

if TYPE_CHECKING:
    from ydoc_store.rooms.first_sync import Reader
    from ydoc_store.rooms.room import Room
    from ydoc_store.storage.appender import QueuedUpdate
    from ydoc_store.storage.guards import Verdict
    from ydoc_store.yjs.walked import Walked


# Reading begins again when a paused member has less than this in flight, so that it is not paused for each update.
RESUME_BELOW_BYTES = 256 * 1024
MAY_ONLY_READ = "you may only read this document: what you edit is not stored"
READ_ONLY = "this server is read-only for now: what you edit is not stored, and offered again at your next connection"


class Outlet(Protocol):
    """The transport's side of one connection. None of its methods calls back into the room before it returns.

    `id` names it in log lines.
    """

    id: str

    def encode(self, message: bytes) -> bytes:
        """The message as this transport's bytes; the same for every outlet of its kind, so it is built once."""

    def write(self, encoded: bytes) -> None:
        """Send live bytes, counted in the outbox; an outlet over its cap closes itself with 1013."""

    async def write_paced(self, encoded: bytes) -> bool:
        """Send bytes of a first sync; returns when the socket has taken nearly all, False once it is closed."""

    def close(self, error: YdocError) -> None:
        """Say why, and close; idempotent."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer until `resume_reading`; other reasons to pause are the outlet's own."""

    def resume_reading(self) -> None: ...


class Dialect(Protocol):
    """How this connection's messages look."""

    @property
    def name(self) -> str: ...

    def step1(self, state_vector: bytes) -> bytes: ...
    def step2(self, update: bytes) -> bytes: ...
    def update(self, update: bytes) -> bytes: ...
    def awareness(self, payload: bytes) -> bytes: ...
    def ack(self, *, accepted: bool) -> bytes | None:
        """The message that acknowledges one Step2 or Update, None where the dialect has none."""

    def denied(self, reason: str) -> bytes | None:
        """The message that says why writes are not taken, None where the dialect has none."""

    def stateless(self, words: str) -> bytes | None:
        """The message that carries words which are never stored, None where the dialect has none."""


class Member:
    """One connection in one room. `unsettled_bytes` is what it sent and what has no outcome yet."""

    __slots__ = (
        "acks_owed",
        "actor",
        "asked_with",
        "closed",
        "counts",
        "declined",
        "deletes_ahead_left",
        "dialect",
        "is_live",
        "may_write",
        "outlet",
        "paused",
        "presence_sent",
        "room",
        "sync_superseded",
        "sync_wanted",
        "syncing",
        "unsettled_bytes",
    )

    def __init__(
        self,
        room: Room,
        outlet: Outlet,
        dialect: Dialect,
        counts: DialectCounts,
        actor: str | None = None,
        *,
        may_write: bool = True,
    ):
        self.room = room
        self.counts = counts
        self.outlet = outlet
        self.dialect = dialect
        self.actor = actor
        self.may_write = may_write
        self.is_live = False
        self.closed = False
        self.paused = False
        self.presence_sent = False
        self.declined = False
        # The state vector of its Step1, until its Step2 is here; and the acks that the Step2's is to bring along.
        self.asked_with: dict[int, int] | None = None
        self.acks_owed = 0
        # A task is sending it what it lacks; the Step1 that came last meanwhile is answered after that.
        self.syncing = False
        self.sync_wanted: Reader | None = None
        # How many others came before that one: their answers lie within its answer.
        self.sync_superseded = 0
        self.unsettled_bytes = 0
        # How many units this member may delete of content that never came; an editor none, it syncs again instead.
        self.deletes_ahead_left = 0

    def send(self, message: bytes) -> None:
        self.outlet.write(self.outlet.encode(message))

    def acknowledge(self, *, accepted: bool, times: int = 1, seq: int | None = None) -> None:
        """Tell what became of one update; `seq` is its own where it is stored now, which no dialect tells."""
        message = self.dialect.ack(accepted=accepted)
        if message is not None:
            for _ in range(times):
                self.send(message)

    def asked(self, vector: dict[int, int] | None) -> None:
        """Its Step1 is here: a stock client's count of what is not saved begins anew, at one, for the Step2 to come."""
        self.asked_with = vector
        self.acks_owed = 0
        for queued in (*self.room.queue.in_flight, *self.room.queue.waiting):
            if queued.sender is self:
                queued.acks = 0

    def acks_for(self, walked: Walked, *, answers: bool) -> int:
        """How many acks this update's commit is worth, so that a stock client never says "saved" too early (I1).

        What such a client typed while it had no connection it sends one by one between its Step1 and its Step2,
        having forgotten to count it; an ack for the first of those would count as that for everything. The Step2
        holds them all. So nothing is acked before the Step2 is, and then what the client has counted: not what
        it had already when it wrote its Step1.
        """
        if self.asked_with is None:
            return 1
        if answers:
            acks, self.asked_with, self.acks_owed = 1 + self.acks_owed, None, 0
            return acks
        known = self.asked_with
        if not len(walked.structs) or any(end > known.get(client, 0) for client, _start, end in walked.structs):
            # A delete alone does not tell when it was made.
            self.acks_owed += 1
        return 0

    def decline(self, why: str, *, answers: bool = False) -> None:
        """Store nothing of an update, because this server or this member may only read, and keep the connection.

        `why` is told once.

        Closing would be worse: a stock client comes back within a moment and types on, a reconnect for each key,
        and a code that stops it takes the document from its reader. Nothing is lost by staying: no later update of
        this member is accepted either (I4), and the client brings all of it at its next sync.
        """
        self.counts.read_only += 1
        if answers:
            self.asked_with = None
        self.acknowledge(accepted=False)
        if not self.declined:
            self.declined = True
            message = self.dialect.denied(why)
            if message is not None:
                self.send(message)

    def pause(self) -> None:
        """Read no more from this member until what it sent has an outcome: pausing, unlike dropping, loses nothing."""
        if not self.paused:
            self.paused = True
            self.outlet.pause_reading()

    def settled(self, size: int) -> None:
        """An update of `size` bytes has its outcome."""
        self.unsettled_bytes -= size
        if self.paused and self.unsettled_bytes <= RESUME_BELOW_BYTES:
            self.paused = False
            self.outlet.resume_reading()

    def refused(self, size: int, error: YdocError) -> None:
        """An update of `size` bytes was not accepted, or nobody knows; its room decides what becomes of the member."""
        self.settled(size)
        if isinstance(error, ClientFault):
            self.counts.refused += 1
        else:
            self.counts.failed += 1

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        """Its update was left out. A socket sets no guards, so that there is nothing to say to it but a refusal."""
        if isinstance(verdict, YdocError):
            self.close(verdict)

    def close(self, error: YdocError) -> None:
        """Fence this member: nothing that it sends from now on is accepted, nothing queued behind is acked (I4)."""
        if not self.closed:
            self.closed = True
            self.is_live = False
            self.outlet.close(error)


def close_all(members: Iterable[Member], error: YdocError) -> None:
    for member in list(members):
        member.close(error)
