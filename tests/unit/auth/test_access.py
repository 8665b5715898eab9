from __future__ import annotations

import time

import pytest

from ydoc_store.auth.access import Access, Granted, Reach, matches, strongest


@pytest.mark.parametrize(
    ("pattern", "document"),
    [
        ("*", "anything/at all"),
        ("a/*", "a/b"),
        ("a/*", "a/b/c"),
        ("a*", "a"),
        ("*.md", "notes/today.md"),
        ("a/*/z", "a/b/c/z"),
        ("a*b*c", "a-b-b-c"),
        ("exact", "exact"),
        ("**", ""),
        ("a.b", "a.b"),
    ],
)
def test_a_star_stands_for_any_characters_slashes_included(pattern: str, document: str) -> None:
    assert matches(pattern, document)


@pytest.mark.parametrize(
    ("pattern", "document"),
    [
        ("a/*", "b/a/c"),
        ("a/*", "a"),
        ("ab*ba", "aba"),
        ("a?c", "abc"),
        ("[ab]", "a"),
        ("a.b", "axb"),
        ("", "a"),
        ("a*b*a", "aba-b"),
        ("exact", "exact2"),
        ("A", "a"),
    ],
)
def test_nothing_else_is_special_and_the_whole_name_counts(pattern: str, document: str) -> None:
    assert not matches(pattern, document)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    started_s = time.process_time()
    assert not matches("a*" * 250 + "b", "a" * 512)
    assert time.process_time() - started_s < 0.5


def test_the_strongest_matching_pattern_wins_and_no_match_is_no_access() -> None:
    grants = {"*": Access.READ, "team/*": Access.WRITE, "team/secret": Access.READ}
    assert strongest(grants, "other") is Access.READ
    assert strongest(grants, "team/secret") is Access.WRITE
    assert strongest({"team/*": Access.WRITE}, "other") is Access.NONE
    assert strongest({}, "other") is Access.NONE


@pytest.mark.parametrize("word", ["none", "READ", "owner", "", None, 2, True, ["write"]])
def test_an_unknown_word_grants_nothing(word: object) -> None:
    assert Access.parse(word) is None


def test_a_reach_is_what_any_pattern_covers_and_nothing_that_was_taken_back() -> None:
    granted = Granted("default", "ann", Access.WRITE)
    everything = Reach(granted)
    assert everything.covers("any")
    assert everything.prefix == ""
    some = Reach(granted, {"team/a*": Access.READ, "team/b": Access.WRITE}, lambda name: name == "team/ab")
    assert [some.covers(name) for name in ("team/a", "team/abc", "team/ab", "team/b", "team/bc", "other")] == [
        True, True, False, True, False, False
    ]  # fmt: skip
    assert some.prefix == "team/"
    assert Reach(granted, {"a": Access.READ, "ab*": Access.READ}).prefix == "a"
    assert Reach(granted, {"*": Access.READ, "ab*": Access.READ}).prefix == ""


def test_a_reach_of_thousands_of_names_costs_a_line_no_more_than_one_of_few() -> None:
    names = {f"doc {number}": Access.READ for number in range(50_000)}
    reach = Reach(Granted("default", "ann", Access.READ), names | {"team/*": Access.READ})
    started_s = time.process_time()
    assert sum(reach.covers(f"doc {number}") for number in range(0, 100_000, 10)) == 5_000
    assert reach.covers("team/x")
    assert time.process_time() - started_s < 2
