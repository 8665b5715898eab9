"""A close that repeats is told once, and known as a loop where it will not pass by itself."""

from __future__ import annotations

from ydoc_store.relay.loops import KEYS_MAX, LOOP_CLOSES, SHORT_LIVED_S, WINDOW_S, Loop, Loops, Said


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
