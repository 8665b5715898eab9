"""Commits that are known too early: kept in order, and not without end."""

from __future__ import annotations

from ydoc_store.rooms.early import EARLY_BYTES_MAX, EarlyRuns, Run


def test_a_run_is_taken_when_it_is_next_without_what_lies_before() -> None:
    early = EarlyRuns()
    early.put(Run(3, 5, [b"3", b"4", b"5"], None))
    assert early.take(1) is None
    run = early.take(3)
    assert run is not None
    assert run.updates == [b"4", b"5"]
    assert not early.reach_beyond(5)


def test_what_is_too_much_to_keep_is_left_to_the_log_and_known_to_be_there() -> None:
    """I15: one document's early commits are bounded while a look at the log is slow."""
    early = EarlyRuns()
    early.put(Run(3, 3, [bytes(EARLY_BYTES_MAX)], None))
    early.put(Run(4, 9, [b"x"], None))
    assert early.take(2) is not None
    assert early.take(3) is None
    assert early.reach_beyond(3)
    assert not early.reach_beyond(9)
    early.put(Run(11, 11, [bytes(EARLY_BYTES_MAX)], None))
    assert early.take(10) is not None
