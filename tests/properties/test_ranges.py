"""IntervalSet and Knowledge against plain sets of clocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.yjs.intervals import IntervalSet
from ydoc_store.yjs.ranges import Knowledge, decode_delete_set, decode_state_vector
from ydoc_store.yjs.walker import Walked, walk

spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda span: (span[0], span[0] + span[1]))
ranges = st.lists(st.tuples(st.integers(1, 3), spans).map(lambda entry: (entry[0], *entry[1])), max_size=6)
walks = st.builds(
    lambda structs, deletes: Walked(structs, deletes, len(structs), 3, len(deletes)),
    ranges,
    ranges,
)
Clocks = set[tuple[int, int]]


def clocks(*lists: list[tuple[int, int, int]]) -> Clocks:
    return {(client, clock) for entries in lists for client, start, end in entries for clock in range(start, end)}


def known(updates: list[Walked]) -> Knowledge:
    knowledge = Knowledge()
    for update in updates:
        knowledge.add(update)
    return knowledge


@given(st.lists(spans, max_size=20), spans)
def test_an_interval_set_is_the_set_of_its_clocks(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    intervals = IntervalSet(added)
    model = {clock for start, end in added for clock in range(start, end)}
    found = list(intervals)
    assert {clock for start, end in found for clock in range(start, end)} == model
    assert all(left[1] < right[0] for left, right in pairwise(found))
    start, end = asked
    assert intervals.covers(start, end) == model.issuperset(range(start, end))
    reach = start
    while reach in model:
        reach += 1
    assert intervals.reach(start) == reach
    assert intervals.contiguous_end() == IntervalSet(added).reach(0)


@given(st.lists(walks, max_size=5), walks)
def test_an_update_is_covered_when_each_of_its_clocks_is_known(updates: list[Walked], asked: Walked) -> None:
    knowledge = known(updates)
    held = clocks(*(update.structs for update in updates))
    deleted = clocks(*(update.deletes for update in updates))
    assert knowledge.covers(asked) == (clocks(asked.structs) <= held and clocks(asked.deletes) <= deleted)
    assert knowledge.covers(asked) == knowledge.news(asked).is_empty
    knowledge.add(asked)
    assert knowledge.covers(asked)


@given(st.lists(walks, max_size=4), st.lists(walks, max_size=3), walks)
def test_a_delete_is_known_when_each_of_its_targets_is_held_somewhere(
    updates: list[Walked], in_flight: list[Walked], asked: Walked
) -> None:
    held = clocks(asked.structs, *(update.structs for update in updates))
    knowledge = known(updates)
    assert (not knowledge.units_ahead(asked)) == (clocks(asked.deletes) <= held)
    held |= clocks(*(update.structs for update in in_flight))
    assert (not knowledge.units_ahead(asked, known(in_flight))) == (clocks(asked.deletes) <= held)


@given(st.lists(walks, max_size=5))
def test_encodings_tell_the_contiguous_prefixes_and_all_deletes(updates: list[Walked]) -> None:
    knowledge = known(updates)
    vector = decode_state_vector(knowledge.encode_state_vector(), clients_max=3)
    assert vector == knowledge.state_vector()
    held = clocks(*(update.structs for update in updates))
    for client in (1, 2, 3):
        end = vector.get(client, 0)
        assert (client, end) not in held
        assert held.issuperset((client, clock) for clock in range(end))
    deleted = decode_delete_set(knowledge.encode_delete_set())
    assert clocks([(client, *span) for client, found in deleted.items() for span in found]) == clocks(
        *(update.deletes for update in updates)
    )
    assert known([walk(b"\x00" + knowledge.encode_delete_set())]).deletes == knowledge.deletes
    again = Knowledge.decode(knowledge.encode_state_vector(), knowledge.encode_delete_set())
    assert (again.state_vector(), again.deletes) == (vector, knowledge.deletes)


@given(st.lists(walks, max_size=4), walks)
def test_what_a_copy_learns_the_first_does_not(updates: list[Walked], later: Walked) -> None:
    knowledge = known(updates)
    copy = knowledge.copy()
    copy.add(later)
    assert knowledge == known(updates)
    assert copy == known([*updates, later])


@given(st.lists(walks, max_size=6), walks)
def test_what_is_pending_is_counted_as_it_comes_and_told_before(updates: list[Walked], coming: Walked) -> None:
    def pending(knowledge: Knowledge) -> int:
        return sum(
            len(clocks([(0, *found) for found in held])) - held.contiguous_end() for held in knowledge.structs.values()
        )

    knowledge, apart = Knowledge(), Knowledge()
    for number, update in enumerate(updates):
        knowledge.add(update)
        assert knowledge.pending_units == pending(knowledge)
        if number % 2:
            apart.update(known(updates[: number + 1]))
            assert apart.pending_units == knowledge.pending_units
    before, growth = knowledge.copy(), knowledge.pending_growth(coming)
    assert Knowledge().pending_growth(coming, knowledge) == growth
    knowledge.add(coming)
    assert knowledge.pending_units == before.pending_units + growth == pending(knowledge)
