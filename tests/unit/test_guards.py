"""What a guard comes to, judged on the state of a locked head row and in the order of arrival."""

from __future__ import annotations

import pytest

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
from ydoc_store.storage.appender import QueuedUpdate
from ydoc_store.storage.guards import (
    PRODUCER_ID_BYTES_MAX,
    PRODUCER_NUMBER_MAX,
    STREAM_SEQ_BYTES_MAX,
    Closed,
    Duplicate,
    Guard,
    GuardedState,
    Judgement,
    Place,
    Producer,
    Verdict,
    judge,
)


def queued(guard: Guard | None = None, update: bytes = b"u") -> QueuedUpdate:
    return QueuedUpdate(update, None, None, None, guard=guard)


def produced(epoch: int, seq: int, producer_id: str = "p") -> Guard:
    return Guard(producer=Producer(producer_id, epoch, seq))


def state(*, head: int = 0, closed: bool = False, stream_seq: str | None = None, **producers: Place) -> GuardedState:
    return GuardedState(epoch=3, head=head, closed=closed, stream_seq=stream_seq, producers=dict(producers))


def with_room(bytes_left: int, **producers: Place) -> GuardedState:
    return GuardedState(bytes_left=bytes_left, producers=dict(producers))


def verdicts(judgement: Judgement) -> list[Verdict]:
    return [left.verdict for left in judgement.left]


def verdict_on(before: GuardedState, guard: Guard, update: bytes = b"u") -> Verdict | None:
    """What one update comes to, None where it is stored; whatever is not stored changes nothing."""
    judgement = judge(before, [queued(guard, update)])
    assert len(judgement.kept) + len(judgement.left) == 1
    if judgement.left and isinstance(judgement.left[0].verdict, YdocError):
        assert judgement.is_empty
    return judgement.left[0].verdict if judgement.left else None


# Producers


def test_a_producer_that_nobody_knows_begins_with_seq_0_in_any_epoch() -> None:
    assert verdict_on(state(), produced(0, 0)) is None
    assert verdict_on(state(), produced(7, 0)) is None


@pytest.mark.parametrize("epoch", [1, 6, 8])
def test_a_request_under_a_key_is_stored_once_and_another_one_is_refused(epoch: int) -> None:
    key = Guard(producer=Producer("k", 7, 0, is_request=True))
    other = Guard(producer=Producer("k", epoch, 0, is_request=True))
    judgement = judge(state(), [queued(key), queued(key), queued(other)])
    assert len(judgement.kept) == 1
    assert judgement.producers == {"k": Place(7, 0)}
    repeated, refused = verdicts(judgement)
    assert isinstance(repeated, Duplicate)
    assert isinstance(refused, KeyReused)


@pytest.mark.parametrize("seq", [1, 2, 100])
def test_a_producer_that_nobody_knows_and_that_begins_later_has_a_gap(seq: int) -> None:
    refusal = verdict_on(state(), produced(0, seq))
    assert isinstance(refusal, ProducerGap)
    assert (refusal.expected, refusal.received) == (0, seq)


def test_the_next_seq_is_stored_and_becomes_the_producers_place() -> None:
    judgement = judge(state(p=Place(2, 4)), [queued(produced(2, 5))])
    assert len(judgement.kept) == 1
    assert judgement.producers == {"p": Place(2, 5)}


@pytest.mark.parametrize("seq", [0, 3, 4])
def test_a_seq_that_was_accepted_before_is_a_duplicate_and_the_producers_place_is_told(seq: int) -> None:
    judgement = judge(state(head=9, p=Place(2, 4)), [queued(produced(2, seq))])
    assert not judgement.kept
    assert verdicts(judgement) == [Duplicate(4, 9)]
    assert judgement.left[0].otherwise == Duplicate(4, 9)


def test_a_duplicate_writes_its_place_again_so_that_its_commit_is_waited_for() -> None:
    judgement = judge(state(p=Place(2, 4)), [queued(produced(2, 1))])
    assert judgement.producers == {"p": Place(2, 4)}
    assert not judgement.is_empty


def test_a_seq_beyond_the_next_is_a_gap() -> None:
    refusal = verdict_on(state(p=Place(2, 4)), produced(2, 6))
    assert isinstance(refusal, ProducerGap)
    assert (refusal.expected, refusal.received) == (5, 6)


@pytest.mark.parametrize("seq", [0, 4, 5])
def test_an_earlier_epoch_is_stale_whatever_its_seq(seq: int) -> None:
    refusal = verdict_on(state(p=Place(2, 4)), produced(1, seq))
    assert isinstance(refusal, ProducerStale)
    assert refusal.current_epoch == 2


def test_a_later_epoch_begins_with_seq_0() -> None:
    judgement = judge(state(p=Place(2, 4)), [queued(produced(9, 0))])
    assert judgement.producers == {"p": Place(9, 0)}
    for seq in (1, 5):
        assert isinstance(verdict_on(state(p=Place(2, 4)), produced(9, seq)), InvalidRequest)


def test_producers_are_told_apart_by_id_and_case() -> None:
    judgement = judge(state(p=Place(0, 3)), [queued(produced(0, 0, "P")), queued(produced(0, 4))])
    assert judgement.producers == {"P": Place(0, 0), "p": Place(0, 4)}


# Several of one batch


def test_several_of_one_producer_follow_each_other_in_one_batch() -> None:
    judgement = judge(state(), [queued(produced(0, seq)) for seq in (0, 1, 2)])
    assert len(judgement.kept) == 3
    assert judgement.producers == {"p": Place(0, 2)}


def test_a_retry_in_the_same_batch_is_a_duplicate_of_what_the_batch_stores() -> None:
    first, again = queued(produced(0, 0)), queued(produced(0, 0))
    judgement = judge(state(head=4), [first, again])
    assert judgement.kept == [first]
    assert verdicts(judgement) == [Duplicate(0, 5)]
    assert judgement.left[0].otherwise is None, "nothing of it is stored if the batch is not"


def test_an_old_retry_behind_new_updates_stays_true_without_them() -> None:
    judgement = judge(state(head=4, p=Place(0, 1)), [queued(produced(0, 2)), queued(produced(0, 1))])
    assert verdicts(judgement) == [Duplicate(2, 5)]
    assert judgement.left[0].otherwise == Duplicate(1, 4)


def test_what_follows_a_refused_update_of_its_producer_is_a_gap() -> None:
    first = queued(Guard(producer=Producer("p", 0, 0), head_is=8))
    judgement = judge(state(head=4), [first, queued(produced(0, 1))])
    assert not judgement.kept
    assert [type(verdict) for verdict in verdicts(judgement)] == [ConditionFailed, ProducerGap]


def test_a_new_epoch_in_the_batch_makes_the_old_one_stale_behind_it() -> None:
    judgement = judge(state(p=Place(0, 0)), [queued(produced(0, 1)), queued(produced(1, 0)), queued(produced(0, 2))])
    assert len(judgement.kept) == 2
    assert isinstance(verdicts(judgement)[0], ProducerStale)
    assert judgement.producers == {"p": Place(1, 0)}


def test_the_others_of_a_batch_are_stored_around_what_is_left_out() -> None:
    plain = [queued() for _ in range(3)]
    guarded = [queued(Guard(head_is=99)), queued(produced(0, 5))]
    judgement = judge(state(), [plain[0], guarded[0], plain[1], guarded[1], plain[2]])
    assert judgement.kept == plain
    assert [left.queued for left in judgement.left] == guarded
    assert judgement.size == 3


# Where the document is


def test_an_expected_head_is_the_one_behind_everything_before_it_in_the_batch() -> None:
    assert verdict_on(state(head=6), Guard(head_is=6)) is None
    judgement = judge(state(head=6), [queued(), queued(Guard(head_is=7)), queued(Guard(head_is=7))])
    assert len(judgement.kept) == 2
    (refusal,) = verdicts(judgement)
    assert isinstance(refusal, ConditionFailed)
    assert refusal.head == 8


def test_an_expected_head_of_0_is_a_document_to_which_nothing_was_ever_accepted() -> None:
    assert verdict_on(state(), Guard(head_is=0)) is None
    refusal = verdict_on(state(head=1), Guard(head_is=0))
    assert isinstance(refusal, ConditionFailed)
    assert refusal.head == 1


def test_a_retry_whose_condition_held_then_is_a_duplicate_though_it_holds_no_more() -> None:
    guard = Guard(producer=Producer("p", 0, 0), head_is=6, stream_seq="a")
    before = state(head=7, stream_seq="a", p=Place(0, 0))
    assert verdict_on(before, guard) == Duplicate(0, 7)


def test_another_epoch_of_the_document_is_told_before_anything_else() -> None:
    assert verdict_on(state(), Guard(epoch_is=3)) is None
    guard = Guard(producer=Producer("p", 0, 0), epoch_is=2)
    assert isinstance(verdict_on(state(p=Place(0, 0)), guard), EpochChanged)


# Streams


def test_a_stream_seq_rises_strictly_in_the_order_of_its_bytes() -> None:
    assert verdict_on(state(), Guard(stream_seq="a")) is None
    assert verdict_on(state(stream_seq="a"), Guard(stream_seq="b")) is None
    assert verdict_on(state(stream_seq="\uffff"), Guard(stream_seq="\U00010000")) is None
    for stale in ("b", "a", "10", "B"):
        assert isinstance(verdict_on(state(stream_seq="b"), Guard(stream_seq=stale)), StreamSeqStale)
    judgement = judge(state(stream_seq="1"), [queued(Guard(stream_seq=seq)) for seq in ("2", "2", "3", "1")])
    assert len(judgement.kept) == 2
    assert judgement.stream_seq == "3"


def test_closing_stores_its_update_and_refuses_everything_behind_it() -> None:
    last = queued(Guard(closes=True))
    judgement = judge(state(head=4), [last, queued(), queued(produced(0, 0))])
    assert judgement.kept == [last]
    assert judgement.closes
    assert [type(verdict) for verdict in verdicts(judgement)] == [StreamClosed, StreamClosed]
    assert {verdict.head for verdict in verdicts(judgement) if isinstance(verdict, StreamClosed)} == {5}


def test_an_empty_update_closes_and_stores_nothing() -> None:
    judgement = judge(state(head=4), [queued(Guard(closes=True), b"")])
    assert not judgement.kept
    assert judgement.closes
    assert verdicts(judgement) == [Closed(4)]


def test_an_empty_close_of_a_producer_takes_its_place() -> None:
    guard = Guard(producer=Producer("p", 0, 1), closes=True)
    judgement = judge(state(head=4, p=Place(0, 0)), [queued(guard, b""), queued(guard, b"")])
    assert judgement.producers == {"p": Place(0, 1)}
    assert verdicts(judgement) == [Closed(4), Duplicate(1, 4, closed=True)]


def test_closing_again_changes_nothing_unless_it_brings_something_or_was_ordered() -> None:
    before = state(head=4, closed=True)
    again = judge(before, [queued(Guard(closes=True), b"")])
    assert again.is_empty
    assert verdicts(again) == [Closed(4)]
    assert isinstance(verdict_on(before, Guard(closes=True)), StreamClosed)
    assert isinstance(verdict_on(before, Guard(producer=Producer("p", 0, 0), closes=True), b""), StreamClosed)


def test_a_retry_of_the_close_is_a_duplicate() -> None:
    guard = Guard(producer=Producer("p", 0, 3), closes=True)
    assert verdict_on(state(head=4, closed=True, p=Place(0, 3)), guard) == Duplicate(3, 4, closed=True)


def test_an_update_without_a_guard_is_stored_unless_the_stream_is_closed() -> None:
    assert len(judge(state(), [queued()]).kept) == 1
    assert isinstance(verdicts(judge(state(closed=True), [queued()]))[0], StreamClosed)


# What a guard may hold


@pytest.mark.parametrize("producer_id", ["", "x" * (PRODUCER_ID_BYTES_MAX + 1), "é" * 129, "a\0b", "\ud800"])
def test_a_producers_id_is_bounded_text_that_postgres_takes(producer_id: str) -> None:
    with pytest.raises(InvalidRequest):
        Producer(producer_id, 0, 0)


@pytest.mark.parametrize(("epoch", "seq"), [(-1, 0), (0, -1), (PRODUCER_NUMBER_MAX + 1, 0), (0, 2**63)])
def test_a_producers_numbers_are_those_that_javascript_counts(epoch: int, seq: int) -> None:
    with pytest.raises(InvalidRequest):
        Producer("p", epoch, seq)
    assert Producer("p" * PRODUCER_ID_BYTES_MAX, PRODUCER_NUMBER_MAX, PRODUCER_NUMBER_MAX)


@pytest.mark.parametrize("stream_seq", ["", "x" * (STREAM_SEQ_BYTES_MAX + 1), "\0"])
def test_a_stream_seq_is_bounded_text_that_postgres_takes(stream_seq: str) -> None:
    with pytest.raises(InvalidRequest):
        Guard(stream_seq=stream_seq)


# A stream's size


def test_what_has_no_room_is_refused_alone_and_what_fits_is_stored() -> None:
    judgement = judge(with_room(5), [queued(update=update) for update in (b"abc", b"def", b"gh", b"i")])
    assert [kept.update for kept in judgement.kept] == [b"abc", b"gh"]
    assert [type(verdict) for verdict in verdicts(judgement)] == [StreamFull, StreamFull]


def test_a_full_stream_takes_back_nothing_of_what_it_said() -> None:
    """A repetition is one, and an end needs no room, however far over its size the stream is."""
    assert isinstance(verdict_on(with_room(-9, p=Place(0, 3)), produced(0, 3)), Duplicate)
    assert isinstance(verdict_on(with_room(-9), Guard(closes=True), b""), Closed)
    assert isinstance(verdict_on(with_room(0), Guard(closes=True)), StreamFull)
    assert isinstance(verdict_on(with_room(0, p=Place(0, 3)), produced(0, 4)), StreamFull)
    assert isinstance(verdict_on(with_room(0), Guard(stream_seq="a")), StreamFull)
