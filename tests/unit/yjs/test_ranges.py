from __future__ import annotations

import random
import time

import pytest

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.lib0 import Malformed
from ydoc_store.yjs.ranges import (
    IntervalSet,
    Knowledge,
    decode_delete_set,
    decode_state_vector,
    encode_state_vector,
)
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, Walked, marker_update, walk


def walked(
    structs: list[tuple[int, int, int]] | None = None, deletes: list[tuple[int, int, int]] | None = None
) -> Walked:
    structs = structs or []
    deletes = deletes or []
    return Walked(structs, deletes, len(structs), len({client for client, *_ in structs + deletes}), len(deletes))


def test_intervals_that_touch_or_overlap_are_one() -> None:
    intervals = IntervalSet([(10, 12), (0, 2), (5, 6), (2, 5)])
    assert list(intervals) == [(0, 6), (10, 12)]
    intervals.add(4, 11)
    assert list(intervals) == [(0, 12)]
    intervals.add(3, 4)
    assert list(intervals) == [(0, 12)]


def test_covers_and_reach_end_at_a_gap() -> None:
    intervals = IntervalSet([(0, 5), (7, 9)])
    assert intervals.covers(0, 5)
    assert intervals.covers(8, 9)
    assert not intervals.covers(4, 6)
    assert not intervals.covers(5, 7)
    assert not intervals.covers(9, 10)
    assert [intervals.reach(clock) for clock in (0, 4, 5, 6, 7, 9)] == [5, 5, 5, 6, 9, 9]
    assert IntervalSet().reach(3) == 3


def test_contiguous_end_counts_from_clock_zero_only() -> None:
    assert IntervalSet([(0, 5), (7, 9)]).contiguous_end() == 5
    assert IntervalSet([(7, 9)]).contiguous_end() == 0
    assert IntervalSet().contiguous_end() == 0


def test_what_was_added_is_covered_and_nothing_else() -> None:
    knowledge = Knowledge()
    update = walked([(1, 0, 5), (2, 3, 4)], [(1, 2, 3)])
    assert not knowledge.covers(update)
    knowledge.add(update)
    assert knowledge.covers(update)
    assert knowledge.covers(walked([(1, 1, 2)]))
    assert not knowledge.covers(walked([(1, 4, 6)]))
    assert not knowledge.covers(walked([(1, 0, 5)], [(1, 2, 4)]))
    assert not knowledge.covers(walked([(3, 0, 1)]))
    assert knowledge.covers(walked())


def test_a_struct_behind_a_gap_is_known_but_stands_in_no_state_vector() -> None:
    knowledge = Knowledge()
    knowledge.add(walked([(1, 0, 2), (1, 5, 6), (2, 3, 4)]))
    assert knowledge.covers(walked([(2, 3, 4)]))
    assert knowledge.state_vector() == {1: 2}
    knowledge.add(walked([(1, 2, 5)]))
    assert knowledge.state_vector() == {1: 6}


def test_the_whole_delete_set_of_a_synced_client_is_nothing_new() -> None:
    knowledge = Knowledge()
    for clock in range(0, 1000, 2):
        knowledge.add(walked([(1, clock, clock + 2)], [(1, clock, clock + 1)]))
    assert knowledge.covers(walk(b"\x00" + knowledge.encode_delete_set()))


def test_delete_targets_are_known_from_the_log_from_what_is_in_flight_and_from_the_update() -> None:
    knowledge, in_flight = Knowledge(), Knowledge()
    knowledge.add(walked([(1, 0, 4), (1, 8, 9)]))
    in_flight.add(walked([(1, 4, 6)]))
    delete = walked(deletes=[(1, 2, 8)])
    assert knowledge.units_ahead(delete)
    assert knowledge.units_ahead(delete, in_flight)
    assert not knowledge.units_ahead(walked([(1, 6, 8)], [(1, 2, 9)]), in_flight)
    assert knowledge.units_ahead(walked([(1, 6, 8)], [(1, 2, 10)]), in_flight)
    assert knowledge.units_ahead(walked([(1, 6, 8)], [(2, 0, 1)]), in_flight)
    assert not knowledge.units_ahead(walked(deletes=[(1, 8, 9)]))


def test_many_intervals_at_once_are_the_same_set_as_one_by_one() -> None:
    rng = random.Random(5)
    at_once, one_by_one = IntervalSet([(10, 12), (5_000, 6_000)]), IntervalSet([(10, 12), (5_000, 6_000)])
    for reach in (200_000, 8_000, 400_000):
        starts = [rng.randrange(reach) for _ in range(1_500)]
        many = [(start, start + rng.randrange(1, 40)) for start in starts]
        at_once.add_all(many)
        for start, end in many:
            one_by_one.add(start, end)
        assert at_once == one_by_one
    both = walked([(1, 2 * at, 2 * at + 1) for at in range(2_000)], [(2, 3 * at, 3 * at + 1) for at in range(2_000)])
    knowledge = Knowledge()
    knowledge.add(both)
    assert knowledge.covers(both)
    assert (len(knowledge.structs[1]), len(knowledge.deletes[2])) == (2_000, 2_000)


def test_a_small_update_of_many_overlapping_deletes_is_judged_at_once() -> None:
    # Every second unit is held, the update brings the others, and each of its deletes goes over all of them.
    units, deletes = 3_000, 2_000
    known = Knowledge()
    known.add(walked([(1, 2 * at, 2 * at + 1) for at in range(units)]))
    coming = [(1, 2 * at + 1, 2 * at + 2) for at in range(units)]
    began_s = time.process_time()
    assert not known.units_ahead(walked(coming, [(1, 0, 2 * units - at % 2) for at in range(deletes)]))
    assert known.units_ahead(walked(coming, [(1, at % 2, 2 * units + 1) for at in range(deletes)]))
    # Some milliseconds; one by one it takes half a minute, in which nobody else is served.
    assert time.process_time() - began_s < 3


def test_a_thousandth_fragment_costs_what_the_first_one_did() -> None:
    knowledge = Knowledge()
    began_s = time.process_time()
    for offset in (0, 8, 4, 12):
        knowledge.add(walked([], [(1, offset + 16 * at, offset + 16 * at + 1) for at in reversed(range(50_000))]))
    assert len(knowledge.deletes[1]) == 200_000
    # A third of a second; inserted one by one it is some fifteen.
    assert time.process_time() - began_s < 4


def test_ten_bytes_cannot_erase_what_a_client_will_write() -> None:
    knowledge = Knowledge()
    knowledge.add(walked([(1, 0, 10)]))
    assert knowledge.units_ahead(walk(bytes.fromhex("00 01 01 01 00 ffffffff07")))


def test_news_is_what_is_not_known_and_counts_only_that() -> None:
    knowledge = Knowledge()
    knowledge.add(walked([(1, 0, 10)], [(1, clock, clock + 1) for clock in range(0, 10, 2)]))
    update = walked([(1, 0, 10), (2, 0, 1)], [(1, 0, 1), (1, 4, 5), (1, 7, 8)])
    news = knowledge.news(update)
    assert (news.structs, news.deletes) == ([(2, 0, 1)], [(1, 7, 8)])
    assert (news.struct_count, news.client_count, news.delete_count) == (1, 2, 1)
    assert knowledge.news(walked([(1, 0, 10)])).is_empty


def test_a_marker_that_a_synced_client_tells_of_is_nothing_new() -> None:
    marker = RESERVED_CLIENT_ID_MIN
    knowledge = Knowledge()
    knowledge.add_marker(marker)
    assert knowledge.covers(walk(marker_update(marker)))
    assert knowledge.covers(walked(deletes=[(marker, 0, 1)]))
    assert knowledge.state_vector() == {marker: 1}


def test_a_copy_goes_its_own_way() -> None:
    knowledge = Knowledge()
    knowledge.add(walked([(1, 0, 1)], [(1, 0, 1)]))
    copy = knowledge.copy()
    copy.add(walked([(1, 1, 2), (2, 0, 1)], [(1, 5, 6)]))
    assert knowledge == Knowledge.decode(b"\x01\x01\x01", b"\x01\x01\x01\x00\x01")
    assert (knowledge.clients, copy.clients) == (1, 2)


def test_encodings_have_the_greatest_client_first_as_yjs_writes_them() -> None:
    knowledge = Knowledge()
    knowledge.add(walked([(1, 0, 3), (300, 0, 2), (2, 5, 6)], [(1, 0, 1), (1, 2, 3), (300, 1, 2)]))
    assert knowledge.encode_state_vector() == bytes.fromhex("02 ac02 02 01 03")
    assert knowledge.encode_delete_set() == bytes.fromhex("02 ac02 01 01 01 01 02 00 01 02 01")
    assert encode_state_vector({}) == b"\x00"


@pytest.mark.parametrize(
    ("state_vector", "reason"),
    [
        ("", "truncated"),
        ("01 01", "truncated"),
        ("00 00", "bytes behind"),
        ("02 01 01 01 01", "a client twice"),
        ("01 01 8080808008", "a clock too large"),
        ("04 01 01 02 01 03 01 04 01", "4 clients, at most 3"),
        ("ffffffffffffff0f", "at most 3"),
    ],
)
def test_a_hostile_state_vector_is_refused(state_vector: str, reason: str) -> None:
    with pytest.raises(InvalidFrame, match=reason):
        decode_state_vector(bytes.fromhex(state_vector), clients_max=3)


def test_a_state_vector_may_name_a_client_of_which_nothing_is_held() -> None:
    assert decode_state_vector(b"\x01\x05\x00", clients_max=1) == {5: 0}
    assert Knowledge.decode(b"\x01\x05\x00", b"\x00") == Knowledge()


@pytest.mark.parametrize(
    "delete_set",
    ["", "01", "00 00", "01 01 01 05 00", "01 01 01 ffffffff07 01", "02 01 01 00 01 01 01 00 01", "01 01 02 00 01"],
)
def test_a_stored_delete_set_that_does_not_hold_together_is_refused(delete_set: str) -> None:
    with pytest.raises(Malformed):
        decode_delete_set(bytes.fromhex(delete_set))
    with pytest.raises(Malformed):
        Knowledge.decode(b"\x00", bytes.fromhex(delete_set))
