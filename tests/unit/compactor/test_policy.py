"""When a tail is merged: worth it first, then wanted by rows, bytes or age."""

from __future__ import annotations

import pytest

from compactor.policy import ROW_COST_BYTES, Backlog, CompactionPolicy, Due, NotDue, due

POLICY = CompactionPolicy(tail_rows=500, tail_bytes=256 * 1024, tail_age_s=3_600)


def backlog(*, rows: int = 1, tail_bytes: int = 30, age_s: float = 0.0, snapshot_bytes: int = 0) -> Backlog:
    return Backlog(rows, tail_bytes, age_s, snapshot_bytes)


def test_an_empty_tail_is_never_due_however_old_its_document() -> None:
    assert due(backlog(rows=0, tail_bytes=0, age_s=1e9), POLICY) == NotDue("the tail is empty")


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (backlog(rows=500), "rows: 500 of 500"),
        (backlog(tail_bytes=256 * 1024), "bytes: 262144 of 262144"),
        (backlog(age_s=3_600), "age: 3600 s of 3600 s"),
    ],
)
def test_each_threshold_is_enough_by_itself_and_is_named(given: Backlog, threshold: str) -> None:
    assert due(given, POLICY) == Due(threshold)


@pytest.mark.parametrize("given", [backlog(rows=499), backlog(tail_bytes=256 * 1024 - 1), backlog(age_s=3_599.9)])
def test_a_tail_below_every_threshold_is_left_for_now(given: Backlog) -> None:
    assert isinstance(due(given, POLICY), NotDue)


def test_a_tail_too_light_for_its_snapshot_is_left_whatever_else_is_crossed() -> None:
    verdict = due(backlog(rows=500, tail_bytes=15_000, age_s=1e6, snapshot_bytes=20 * 2**20), POLICY)
    assert isinstance(verdict, NotDue)
    assert "20971520" in verdict.reason


def test_what_a_snapshot_demands_grows_with_it_and_counts_the_cost_of_rows() -> None:
    weight = 1_000 * ROW_COST_BYTES + 30_000
    at_bound = backlog(rows=1_000, tail_bytes=30_000, snapshot_bytes=8 * weight)
    over_bound = backlog(rows=1_000, tail_bytes=30_000, snapshot_bytes=8 * weight + 8)
    assert isinstance(due(at_bound, POLICY), Due)
    assert isinstance(due(over_bound, POLICY), NotDue)


def test_a_document_without_a_snapshot_is_always_worth_merging() -> None:
    assert isinstance(due(backlog(age_s=4_000), POLICY), Due)
