"""What an append may be made to depend on, and the judgement of it: pure, on the state of a locked head row.

A guard is judged in the append's own transaction, behind the lock and before anything is written, so that a retry on
another node at the same moment finds either nothing or everything of the first. Updates of one document are judged
in the order in which they arrived, each as if those before it were stored already. How the state is read and written
is in `producers`; no SQL and no waiting here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import (
    ConditionFailed,
    EpochChanged,
    InvalidRequest,
    KeyReused,
    ProducerGap,
    ProducerStale,
    StreamClosed,
    StreamFull,
    StreamSeqStale,
    YdocError,
)

if TYPE_CHECKING:
    from ydoc_store.storage.appender import QueuedUpdate

PRODUCER_ID_BYTES_MAX: Final = 256
"""Producers' ids are UUIDs and service names; they are kept with every document that they write to."""
STREAM_SEQ_BYTES_MAX: Final = 256
NO_ROOM: Final = "this stream has no room for that (YDOC_STREAM_BYTES_MAX); it can still be read and closed"
ANOTHER_REQUEST: Final = "this key came with another request before: a new request takes a new key"
PRODUCER_NUMBER_MAX: Final = 2**53 - 1
"""Greatest epoch and seq: what JavaScript counts exactly."""


@dataclass(frozen=True, slots=True)
class Producer:
    """An idempotent producer's place: `seq` rises by one from 0 within each epoch, and each is stored once.

    With `is_request` it is one request under its key, told by its epoch: another epoch is another request, and refused.
    Raises InvalidRequest for an id or a number outside its range.
    """

    id: str
    epoch: int
    seq: int
    is_request: bool = False

    def __post_init__(self) -> None:
        _check_text("a producer's id", self.id, PRODUCER_ID_BYTES_MAX)
        if not 0 <= self.epoch <= PRODUCER_NUMBER_MAX or not 0 <= self.seq <= PRODUCER_NUMBER_MAX:
            raise InvalidRequest(f"a producer's epoch and seq are numbers from 0 to {PRODUCER_NUMBER_MAX}")


@dataclass(frozen=True, slots=True)
class Guard:
    """What has to hold for one update to be stored; what is None is not asked. Raises InvalidRequest.

    `head_is` is the seq that the document must be at, 0 for one to which nothing was ever accepted; `epoch_is` its
    epoch. `stream_seq` must be greater than the last one, in the order of its bytes. With `closes`, nothing follows
    the update; an empty update closes and stores nothing.
    """

    producer: Producer | None = None
    head_is: int | None = None
    epoch_is: int | None = None
    stream_seq: str | None = None
    closes: bool = False

    def __post_init__(self) -> None:
        if self.stream_seq is not None:
            _check_text("Stream-Seq", self.stream_seq, STREAM_SEQ_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """This update was accepted before; `producer_seq` is the producer's last one, `head` where the document is.

    `closed` tells of a stream whether it takes nothing more.
    """

    producer_seq: int
    head: int
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The stream is closed, and nothing was to be stored with that; `head` is where it ends."""

    head: int


Verdict = Duplicate | Closed | YdocError
"""What a guarded update comes to that is not stored."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a producer has come."""

    epoch: int
    seq: int


@dataclass(slots=True)
class GuardedState:
    """What the locked head row says, and where the producers are that this batch asks about.

    `bytes_left` is what a stream has room for; None for a document, whose size is judged as a whole.
    """

    epoch: int = 1
    head: int = 0
    closed: bool = False
    stream_seq: str | None = None
    bytes_left: int | None = None
    producers: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """An update that is left out. `otherwise` is what is true of it also where nothing of this batch is stored."""

    queued: QueuedUpdate
    verdict: Verdict
    otherwise: Duplicate | None


@dataclass(slots=True)
class Judgement:
    """Which updates of one document are stored, in order, and what else their commit writes.

    `producers` holds the new places, and those of producers that only repeated themselves: their rows are written
    too, so that the commit is waited for like any other before anybody is told that it was stored.
    """

    kept: list[QueuedUpdate] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    producers: dict[str, Place] = field(default_factory=dict)
    closes: bool = False
    stream_seq: str | None = None

    @property
    def size(self) -> int:
        """Bytes of what is stored."""
        return sum(len(queued.update) for queued in self.kept)

    @property
    def is_empty(self) -> bool:
        """Nothing changes: neither the log nor the head row nor a producer."""
        return not self.kept and not self.producers and not self.closes and self.stream_seq is None


def judge(state: GuardedState, updates: Sequence[QueuedUpdate]) -> Judgement:
    """Judge the updates of one document in arrival order; `state`, before the first, is as after the last in the end.

    An update without a guard is stored unless the stream is closed by then.
    """
    judgement = Judgement()
    stored_places, stored_head, stored_closed = dict(state.producers), state.head, state.closed
    for queued in updates:
        guard: Guard = queued.guard or _NO_GUARD
        size = len(queued.update)
        verdict = _judge_one(state, guard, size)
        producer = guard.producer
        if verdict is None:
            if producer is not None:
                state.producers[producer.id] = judgement.producers[producer.id] = Place(producer.epoch, producer.seq)
            if guard.stream_seq is not None:
                state.stream_seq = judgement.stream_seq = guard.stream_seq
            if guard.closes:
                state.closed = judgement.closes = True
            if not size:
                judgement.left.append(Left(queued, Closed(state.head), None))
            else:
                state.head += 1
                if state.bytes_left is not None:
                    state.bytes_left -= size
                judgement.kept.append(queued)
            continue
        otherwise = None
        if isinstance(verdict, Duplicate) and producer is not None:
            judgement.producers[producer.id] = state.producers[producer.id]
            stored = stored_places.get(producer.id)
            if stored is not None and _covers(stored, producer):
                otherwise = Duplicate(stored.seq, stored_head, stored_closed)
        judgement.left.append(Left(queued, verdict, otherwise))
    return judgement


def _judge_one(state: GuardedState, guard: Guard, size: int) -> Verdict | None:
    if guard.epoch_is is not None and guard.epoch_is != state.epoch:
        return EpochChanged("this document was recreated or repaired: reload it")
    producer = guard.producer
    place = state.producers.get(producer.id) if producer is not None else None
    # A repetition first: whatever else its guard asked held when it was stored, and need not hold any more.
    if producer is not None and place is not None and _covers(place, producer):
        return Duplicate(place.seq, state.head, state.closed)
    if state.closed:
        # To close what is closed changes nothing, unless a producer's order says that it was somebody else's close.
        return Closed(state.head) if not size and guard.closes and producer is None else StreamClosed(state.head)
    if producer is not None and (refusal := _judge_producer(place, producer)) is not None:
        return refusal
    if guard.stream_seq is not None and state.stream_seq is not None and guard.stream_seq <= state.stream_seq:
        return StreamSeqStale(f"Stream-Seq has to rise: the last one was {state.stream_seq}")
    if guard.head_is is not None and guard.head_is != state.head:
        return ConditionFailed(state.head)
    if size and state.bytes_left is not None and size > state.bytes_left:
        return StreamFull(NO_ROOM)
    return None


def _judge_producer(place: Place | None, producer: Producer) -> YdocError | None:
    if place is not None and producer.is_request:
        return KeyReused(ANOTHER_REQUEST)
    if place is not None and producer.epoch < place.epoch:
        return ProducerStale(place.epoch)
    if place is not None and producer.epoch > place.epoch:
        return None if producer.seq == 0 else InvalidRequest("a producer's new epoch begins with seq 0")
    expected = 0 if place is None else place.seq + 1
    return None if producer.seq == expected else ProducerGap(expected, producer.seq)


def _covers(place: Place, producer: Producer) -> bool:
    return place.epoch == producer.epoch and producer.seq <= place.seq


def _check_text(what: str, text: str, bytes_max: int) -> None:
    # Postgres takes neither NUL nor half a surrogate pair: such a value would fail its whole batch first.
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= bytes_max or "\0" in text:
        raise InvalidRequest(f"{what} takes 1 to {bytes_max} bytes of UTF-8, without a NUL")


_NO_GUARD: Final = Guard()
