"""A cursor of the change feed: where it leads, where it leads no more, and how it sorts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ydoc_store.errors import CursorExpired
from ydoc_store.storage.feed_cursor import (
    Place,
    Source,
    Timeline,
    also_told,
    read_cursor,
    told_through,
    write_cursor,
)

NOTED_AT = datetime(2026, 1, 2, tzinfo=UTC)
FIRST = Timeline(1, "one", NOTED_AT, ends_at=1_000)
SECOND = Timeline(2, "two", NOTED_AT, ends_at=2_000)
PLACE = Place(through_xid=70, id=7, at_us=1_700_000_000_000_000, seen=2, through_lsn=900)


def test_a_cursor_leads_to_its_place() -> None:
    source = Source("here", [FIRST])
    assert read_cursor(source, "t", write_cursor(source, "t", PLACE)) == (PLACE, FIRST)


def test_a_cursor_from_before_another_server_took_over_leads_on_if_all_that_was_told_is_there() -> None:
    old = write_cursor(Source("here", [replace(FIRST, ends_at=1_500)]), "t", replace(PLACE, through_lsn=1_000))
    now = Source("here", [FIRST, SECOND])
    assert read_cursor(now, "t", old) == (replace(PLACE, through_lsn=1_000), FIRST)
    with pytest.raises(CursorExpired, match="without all that was told"):
        read_cursor(now, "t", told_through(old, 1_001))


@pytest.mark.parametrize(
    "now",
    [
        # Where the one ended nobody knows; another of that number; another database; nothing is known.
        Source("here", [replace(FIRST, ends_at=None), SECOND]),
        Source("here", [replace(FIRST, marker="another"), SECOND]),
        Source("there", [FIRST, SECOND]),
        Source("here", [SECOND]),
    ],
)
def test_a_cursor_of_which_nothing_is_certain_is_refused(now: Source) -> None:
    with pytest.raises(CursorExpired, match="restored"):
        read_cursor(now, "t", write_cursor(Source("here", [FIRST]), "t", PLACE))


def test_a_cursor_from_after_what_the_database_holds_is_refused() -> None:
    """A copy of the files that was put back: the same timeline, and less of it."""
    cursor = write_cursor(Source("here", [FIRST]), "t", replace(PLACE, through_lsn=1_001))
    with pytest.raises(CursorExpired, match="without all that was told"):
        read_cursor(Source("here", [FIRST]), "t", cursor)


def test_cursors_sort_as_their_places_do_and_as_servers_took_over() -> None:
    places = [
        Place(),
        Place(at_us=1),
        Place(1, 1, 5, 1),
        Place(1, 1, 5, 2),
        Place(1, 2, 4, 1),
        Place(2, 1, 3, 1),
        Place(256, 0, 0, 0),
    ]
    cursors = [
        write_cursor(Source("here", timelines), "t", place) for place in places for timelines in ([FIRST], [SECOND])
    ]
    assert cursors == sorted(cursors)
    assert len(set(cursors)) == len(cursors)


def test_what_was_also_told_moves_nothing_but_what_has_to_be_there() -> None:
    source = Source("here", [replace(FIRST, ends_at=2**64 - 1)])
    cursor = write_cursor(source, "t", PLACE)
    assert told_through(cursor, PLACE.through_lsn - 1) == cursor
    assert read_cursor(source, "t", told_through(cursor, 2**63))[0] == replace(PLACE, through_lsn=2**63)
    assert also_told(cursor, told_through(cursor, 5_000)) == told_through(cursor, 5_000)
    assert also_told(told_through(cursor, 5_000), cursor) == told_through(cursor, 5_000)
