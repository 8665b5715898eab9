"""How fast a reader is, as its server sees it."""

from __future__ import annotations

import math

from ydoc_store.rooms.pace import WINDOW_SHARE, Pace

WINDOW_S = 30 * WINDOW_SHARE


def test_nobody_is_slow_before_a_window_is_over() -> None:
    pace = Pace(30)
    assert pace.bytes_per_s(0) == math.inf
    pace.sending(1_000, 0)
    assert pace.bytes_per_s(WINDOW_S - 0.1) == math.inf


def test_what_is_on_its_way_counts_as_taken_for_nobody_can_tell() -> None:
    pace = Pace(30)
    pace.sending(1_000, 0)
    assert pace.bytes_per_s(WINDOW_S) == 1_000 / WINDOW_S
    assert pace.bytes_per_s(4 * WINDOW_S) == 1_000 / (4 * WINDOW_S)


def test_a_reader_is_as_fast_as_it_takes_what_waits_for_it() -> None:
    pace = Pace(30)
    for second in range(40):
        pace.sending(500, second)
        pace.sent(second + 1)
    assert pace.bytes_per_s(40) == 500


def test_what_this_server_takes_to_go_on_is_not_the_readers_slowness() -> None:
    pace = Pace(30)
    for second in range(0, 60, 10):
        pace.sending(500, second)
        pace.sent(second + 1)
    assert pace.bytes_per_s(60) == math.inf


def test_one_that_was_slow_and_keeps_up_again_is_slow_no_more() -> None:
    pace = Pace(30)
    pace.sending(500, 0)
    pace.sent(20)
    assert pace.bytes_per_s(20) == 25
    for tenth in range(200, 400):
        pace.sending(500, tenth / 10)
        pace.sent(tenth / 10 + 0.01)
    assert pace.bytes_per_s(40) == math.inf


def test_one_that_was_quick_and_stops_is_found_within_a_window() -> None:
    pace = Pace(30)
    for tenth in range(200):
        pace.sending(50_000, tenth / 10)
        pace.sent(tenth / 10 + 0.1)
    pace.sending(50_000, 20)
    # What it took before in this window still counts.
    assert pace.bytes_per_s(20 + 2 * WINDOW_S) < 500_000 / 2
    assert pace.bytes_per_s(20 + 20 * WINDOW_S) < 5_000
