"""What a line of the change feed shows to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from ydoc_store.http.changes import checkpoint, line_of
from ydoc_store.storage.feed import Change, FeedPage

APPEND = Change("c", "append", 7, "team/a", 2, 5, 3, "ann", datetime(2026, 1, 2, tzinfo=UTC), None)
RENAMED = replace(APPEND, what="renamed", seq=None, count=None, name_before="secret/a")


def within(*prefixes: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefixes)


def test_a_line_holds_what_is_known_and_null_for_the_rest() -> None:
    line = line_of(replace(APPEND, actor=None), within(""), "")
    assert line is not None
    assert orjson.loads(line) == {
        "cursor": "c",
        "type": "append",
        "document": "team/a",
        "id": 7,
        "epoch": 2,
        "seq": 5,
        "count": 3,
        "actor": None,
        "at": "2026-01-02T00:00:00+00:00",
    }


@pytest.mark.parametrize(("prefix", "may_read"), [("other/", within("")), ("", within("other/")), ("team/", within())])
def test_a_line_that_is_not_wanted_or_not_allowed_is_none(prefix: str, may_read: Callable[[str], bool]) -> None:
    assert line_of(APPEND, may_read, prefix) is None


@pytest.mark.parametrize(
    ("may_read", "prefix", "shown"),
    [
        (within("team/", "secret/"), "", ("team/a", "secret/a")),
        (within("team/"), "", ("team/a", None)),
        (within("secret/"), "", (None, "secret/a")),
        (within("team/", "secret/"), "secret/", ("team/a", "secret/a")),
        # Wanted under the one name, and allowed under the other alone.
        (within("team/"), "secret/", None),
        (within("other/"), "", None),
    ],
)
def test_of_a_renaming_each_is_told_the_names_that_it_may_read(
    may_read: Callable[[str], bool], prefix: str, shown: tuple[str | None, str | None] | None
) -> None:
    line = line_of(RENAMED, may_read, prefix)
    if shown is None:
        assert line is None
    else:
        assert line is not None
        told = orjson.loads(line)
        assert (told["document"], told["renamed_from"]) == shown


def test_a_checkpoint_is_a_line_like_the_others() -> None:
    assert orjson.loads(checkpoint(FeedPage([], "c", at_end=True))) == {
        "cursor": "c",
        "type": "checkpoint",
        "at_end": True,
    }
