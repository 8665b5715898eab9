"""A close that repeats is told once, and known as a loop where it will not pass by itself."""

from __future__ import annotations

from ydoc_store.relay.credentials import fingerprint
from ydoc_store.relay.loops import (
    KEYS_MAX,
    LOOP_CLOSES,
    RETURN_WAIT_MAX_S,
    SHORT_LIVED_S,
    WINDOW_S,
    Loop,
    Loops,
    Returning,
    Said,
)


def test_a_client_that_returns_to_be_sent_away_is_one_loop_until_it_stops() -> None:
    loops = Loops()
    begun = [loops.closed("notes", 1011, 0.1, float(at)) for at in range(2 * LOOP_CLOSES)]
    assert begun.index(True) == LOOP_CLOSES - 1
    assert begun.count(True) == 1
    last_s = 2.0 * LOOP_CLOSES - 1
    assert loops.look(last_s + WINDOW_S - 1) == (1, [])
    assert loops.look(last_s + WINDOW_S) == (0, [Loop("notes", 1011)])
    assert loops.look(last_s + WINDOW_S) == (0, [])


def test_leaving_a_deployment_and_an_outage_are_no_loops() -> None:
    loops = Loops()
    for code in (1000, 1001, 1005, 1006, 1012, 1013):
        assert not any(loops.closed("notes", code, 0.1, 0.0) for _ in range(100))
    assert not any(loops.closed("notes", 1008, SHORT_LIVED_S, 0.0) for _ in range(100))
    assert not any(loops.closed("notes", 1008, 0.1, at * WINDOW_S / (LOOP_CLOSES - 2)) for at in range(100))


def test_however_many_documents_peers_name_it_stays_bounded() -> None:
    loops, said = Loops(), Said()
    for number in range(3 * KEYS_MAX):
        for _ in range(LOOP_CLOSES):
            loops.closed(f"{number}", 1008, 0.1, 0.0)
        assert said.first(number, 0.0)
    assert len(loops._closes) == len(loops._begun) == len(said._said_at_s) == KEYS_MAX


def test_the_same_is_said_once_in_a_window() -> None:
    said = Said()
    assert [said.first("away", at) for at in (0.0, 1.0, WINDOW_S - 1, WINDOW_S, WINDOW_S + 1)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_whoever_comes_back_to_a_final_refusal_waits_twice_as_long_each_time() -> None:
    returning = Returning()
    waits = []
    for at in range(8):
        waits.append(returning.wait_s("ann", float(at)))
        returning.refused("ann", 0.1, float(at))
    assert waits == [0, 0, 0.5, 1, 2, 4, RETURN_WAIT_MAX_S, RETURN_WAIT_MAX_S]
    assert returning.wait_s("ben", 8.0) == 0


def test_whoever_was_served_or_stayed_away_does_not_wait() -> None:
    returning = Returning()
    for at in range(5):
        returning.refused("ann", 0.1, float(at))
    assert returning.wait_s("ann", 4 + WINDOW_S) == 0
    assert returning.wait_s("ann", 5.0) > 0
    returning.refused("ann", SHORT_LIVED_S, 5.0)
    assert returning.wait_s("ann", 5.0) == 0


def test_however_many_are_refused_it_stays_bounded() -> None:
    returning = Returning()
    for number in range(3 * KEYS_MAX):
        returning.refused(number, 0.1, 0.0)
    assert len(returning._refused) == KEYS_MAX


class Headers:
    def __init__(self, **values: str) -> None:
        self.values = values

    def get_all(self, key: str) -> list[str]:
        found = self.values.get(key.lower())
        return [] if found is None else [found]


def test_who_it_is_depends_on_all_that_was_brought() -> None:
    ann = fingerprint("/yjs/notes?token=a", Headers(cookie="a"), "127.0.0.1")
    assert ann == fingerprint("/yjs/notes?token=a", Headers(cookie="a"), "127.0.0.1")
    others = [
        fingerprint("/yjs/notes?token=b", Headers(cookie="a"), "127.0.0.1"),
        fingerprint("/yjs/notes?token=a", Headers(cookie="b"), "127.0.0.1"),
        fingerprint("/yjs/notes?token=a", Headers(cookie="a", authorization="c"), "127.0.0.1"),
        fingerprint("/yjs/notes?token=a", Headers(cookie="a"), "127.0.0.2"),
    ]
    assert ann not in others
