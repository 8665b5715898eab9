"""Whose state is whose, which entry is newer, and what is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.rooms.presence import (
    FOREIGN_CLOCK_MAX,
    FOREIGN_CLOCK_STEP_MAX,
    GONE_REMEMBERED_S,
    Guest,
    Node,
    Presence,
)
from ydoc_store.yjs.awareness import AwarenessEntry


def entry(client_id: int, clock: int, state: str | None = "{}") -> AwarenessEntry:
    return AwarenessEntry(client_id, clock, state)


def test_a_newer_clock_wins_and_an_equal_one_only_with_null() -> None:
    presence = Presence(10)
    assert presence.hear("a", [entry(1, 5)], 0).fresh == [entry(1, 5)]
    assert not presence.hear("a", [entry(1, 5, '{"x":1}')], 0).fresh
    assert not presence.hear("a", [entry(1, 4, None)], 0).fresh
    assert presence.hear("a", [entry(1, 5, None)], 0).fresh == [entry(1, 5, None)]
    assert not len(presence)


def test_another_members_null_at_an_equal_clock_is_no_news_but_another_nodes_is() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 5)], 0)
    assert not presence.hear("b", [entry(1, 5, None)], 0).fresh
    assert presence.hear(Node("n"), [entry(1, 5, None)], 0, is_node=True).fresh


def test_a_takeover_leaves_the_old_owner_nothing_to_say() -> None:
    presence = Presence(10)
    presence.hear("old", [entry(1, 1)], 0)
    presence.hear("new", [entry(1, 2)], 0)
    assert presence.leave("old", 0) == []
    assert presence.leave("new", 0) == [entry(1, 3, None)]


def test_a_late_echo_does_not_bring_anyone_back_and_is_corrected() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 1)], 0)
    presence.leave("a", 0)
    heard = presence.hear("b", [entry(1, 1)], 1)
    assert not heard.fresh
    assert heard.corrections == [entry(1, 2, None)]
    assert presence.hear("a", [entry(1, 3)], 1).fresh == [entry(1, 3)]


def test_a_null_of_somebody_never_seen_is_nothing() -> None:
    presence = Presence(10)
    assert not presence.hear("a", [entry(number, 1, None) for number in range(100)], 0).fresh
    assert presence.is_empty


def test_what_is_not_renewed_expires_and_is_forgotten_later() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 1), entry(2, 1)], 0)
    presence.hear("a", [entry(2, 1)], 20)
    assert presence.expire(31, 30) == [entry(1, 2, None)]
    assert [found.client_id for found in presence.current()] == [2]
    presence.leave("a", 31)
    presence.expire(31 + GONE_REMEMBERED_S + 1, 30)
    assert presence.is_empty


def test_states_and_those_who_left_are_bounded() -> None:
    presence = Presence(states_max=10, owned_max=4)
    for owner in "abcd":
        presence.hear(owner, [entry(ord(owner) * 100 + number, 1) for number in range(6)], 0)
    assert len(presence) == 10
    for number in range(1000):
        presence.hear("x", [entry(number, 1)], 0)
        presence.leave("x", 0)
    for owner in "abcd":
        presence.leave(owner, 0)
    assert len(presence._gone) <= 10
    assert not presence._owned


def test_another_node_speaks_for_any_number() -> None:
    presence = Presence(states_max=10, owned_max=2)
    presence.hear(Node("n"), [entry(number, 1) for number in range(8)], 0, is_node=True)
    assert len(presence) == 8
    assert len(presence.current()) == 8
    assert not presence.current_here()


def test_nobody_moves_anothers_clock_to_where_its_owner_would_be_refused() -> None:
    """I13: a client goes on from the clock that it is told of itself, and would close its own connection for ever."""
    presence = Presence(10)
    presence.hear("ben", [entry(1, 5)], 0)
    for clock in (2**31 - 1, FOREIGN_CLOCK_MAX, 5 + FOREIGN_CLOCK_STEP_MAX + 1):
        assert not presence.hear("rude", [entry(1, clock, None)], 0).fresh
        assert not presence.hear("rude", [entry(1, clock)], 0).fresh
        assert not presence.hear("rude", [entry(2, max(clock, FOREIGN_CLOCK_MAX))], 0).fresh
    assert presence.hear("rude", [entry(1, 9, None)], 0).fresh
    assert not presence.hear("rude", [entry(1, 2**31 - 1)], 0).fresh, "nor of one that is gone"
    assert presence.hear("ben", [entry(1, 10)], 0).fresh
    assert presence.hear("ben", [entry(1, FOREIGN_CLOCK_MAX + 7)], 0).fresh, "its own is its own"
    assert presence.hear(Node("n"), [entry(1, FOREIGN_CLOCK_MAX + 8)], 0, is_node=True).fresh


def test_what_one_member_shows_is_bounded_in_bytes_too() -> None:
    """I15: a hundred entries of the largest size would be 1.6 MB a connection."""
    presence = Presence(10, 10, owned_bytes_max=10)
    assert presence.hear("a", [entry(1, 1, "123456")], 0).fresh
    assert not presence.hear("a", [entry(2, 1, "12345")], 0).fresh
    assert not presence.hear("a", [entry(1, 2, "12345678901")], 0).fresh
    assert presence.hear("a", [entry(1, 2, "1234567890")], 0).fresh
    assert presence.hear("b", [entry(2, 1, "12345")], 0).fresh
    assert presence.hear("a", [entry(1, 3, None)], 0).fresh


def test_a_state_of_another_node_is_taken_over_by_whose_it_is_and_by_nobody_else() -> None:
    """Whose it is stands in the stamp: without it, a token that names nobody took over everyone, and ann, who comes
    back to this node while her old socket is half open there, stayed unseen until that timed out."""
    presence = Presence(10, is_stamped=True)
    of_ann = '{"user":{"id":"ann"}}'
    presence.hear(Node("n"), [entry(1, 5, of_ann)], 0, is_node=True)
    assert not presence.hear("somebody", [entry(1, 6, '{"user":{}}')], 0).fresh
    assert not presence.hear("ben", [entry(1, 6, '{"user":{"id":"ben"}}')], 0, principal="ben").fresh
    assert presence.hear("ann", [entry(1, 6, of_ann)], 0, principal="ann").fresh


def test_without_identities_nobodys_name_keeps_a_client_from_coming_back_to_another_node() -> None:
    presence = Presence(10)
    presence.hear(Node("n"), [entry(1, 5, '{"user":{"id":"ann"}}')], 0, is_node=True)
    assert presence.hear("a", [entry(1, 6)], 0).fresh


def test_what_a_node_showed_before_it_said_gone_brings_nobody_back_when_it_comes_late() -> None:
    """Found by the simulation's seed 284: two hints of another node, the second one first."""
    presence = Presence(10)
    node = Node("n")
    assert not presence.hear(node, [entry(1, 1, None)], 0, is_node=True).fresh
    assert not presence.hear(node, [entry(1, 0)], 0.5, is_node=True).fresh
    assert presence.current() == []
    assert presence.hear(node, [entry(1, 2)], 1, is_node=True).fresh


def test_a_reader_is_told_what_changed_behind_its_version() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 1), entry(2, 1)], 0)
    seen = presence.version
    assert presence.since(0) == [entry(1, 1), entry(2, 1)]
    assert presence.since(seen) == []
    presence.hear("a", [entry(2, 2, '{"x":1}')], 0)
    presence.hear("b", [entry(3, 1)], 0)
    presence.leave("a", 0)
    assert sorted(presence.since(seen)) == [entry(1, 2, None), entry(2, 3, None), entry(3, 1)]


def test_a_renewal_that_changes_nothing_is_no_version() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 1)], 0)
    seen = presence.version
    presence.hear("a", [entry(1, 1)], 10)
    assert presence.version == seen
    assert not presence.expire(35, 30)


def test_a_correction_is_told_again_to_whoever_reads() -> None:
    presence = Presence(10)
    presence.hear("a", [entry(1, 1)], 0)
    presence.leave("a", 0)
    seen = presence.version
    presence.hear("a", [entry(1, 1)], 1)
    assert presence.since(seen) == [entry(1, 2, None)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans(), st.integers(0, 2)), max_size=40), st.data()
)
def test_a_reader_that_comes_when_it_likes_sees_who_is_there(
    steps: list[tuple[int, int, bool, int]], data: st.DataObject
) -> None:
    """However the states come, go and expire, and whatever of it a reader misses in between, as long as those who left
    are remembered: here all four."""
    presence = Presence(4)
    shown: dict[int, str | None] = {}
    version = 0
    for at, (client_id, clock, is_gone, owner) in enumerate(steps):
        presence.hear(owner, [entry(client_id, clock, None if is_gone else f'{{"at":{at}}}')], at)
        if data.draw(st.booleans()):
            presence.expire(at, 5)
        if data.draw(st.booleans()):
            presence.leave(owner, at)
        if data.draw(st.booleans()):
            shown.update((one.client_id, one.state_json) for one in presence.since(version))
            version = presence.version
    shown.update((one.client_id, one.state_json) for one in presence.since(version))
    there = {one.client_id: one.state_json for one in presence.current()}
    assert {client_id: state for client_id, state in shown.items() if state is not None} == there


def test_guests_leave_together_and_members_stay() -> None:
    presence = Presence(10)
    presence.hear(Guest("ann"), [entry(1, 1)], 0)
    presence.hear(Guest(None, 2), [entry(2, 1)], 0)
    presence.hear("member", [entry(3, 1)], 0)
    assert presence.leave_guests(0) == [entry(1, 2, None), entry(2, 2, None)]
    assert presence.current() == [entry(3, 1)]
