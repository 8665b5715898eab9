"""Only what the protocol says is a shape's request, and the one condition names a document."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from ydoc_store.errors import InvalidName, InvalidRequest
from ydoc_store.http.shape_request import ShapeRequest, Start, Table, parse_shape_request

NAMED = {"table": "updates", "where": "document = $1", "params[1]": "notes"}


def parse(**changes: str | None) -> ShapeRequest:
    given = {name: value for name, value in {**NAMED, **changes}.items() if value is not None}
    return parse_shape_request(urlencode(given))


def test_what_a_stock_client_asks_first() -> None:
    asked = parse(offset="-1", log="full", replica="default")
    assert asked == ShapeRequest(Table.UPDATES, "notes", Start.BEGINNING, None, is_live=False, wants_events=False)
    asked = parse(table="awareness", offset="now", log="full", expired_handle="x", **{"cache-buster": "1-a"})
    assert (asked.table, asked.offset) == (Table.AWARENESS, Start.NOW)


def test_what_a_stock_client_asks_while_it_stays() -> None:
    asked = parse(offset="17_0", handle="1-2-ab", live="true", cursor="1700", live_sse="true")
    assert (asked.offset, asked.handle, asked.is_live, asked.wants_events) == (17, "1-2-ab", True, True)
    assert parse(offset="17_0", handle="h", live="true", cursor="", experimental_live_sse="true").wants_events
    assert not parse(live_sse="true").wants_events, "events are for who stays"


@pytest.mark.parametrize(
    "name", ["notes", "a/b", "it's", "''", "ä 漢字 😀", "a' OR 'a' = 'a", "$1", "x" * 512, "'" * 512]
)
def test_a_name_is_what_it_is_as_a_parameter_and_as_a_literal(name: str) -> None:
    assert parse(**{"params[1]": name}).document == name
    literal = "document = '" + name.replace("'", "''") + "'"
    assert parse(where=literal, **{"params[1]": None}).document == name
    assert parse(where=f"  document='{literal[12:-1]}' ", **{"params[1]": None}).document == name


@pytest.mark.parametrize(
    "where",
    [
        "",
        "document",
        "document = 'a' OR 1 = 1",
        "document = 'a' --",
        "document = 'a'; DROP TABLE ydoc.documents",
        "document = 'it's'",
        "document = 'a",
        'document = "a"',
        "document = $2",
        "document = $1 AND true",
        "documents = 'a'",
        "document <> 'a'",
        "DOCUMENT = 'a'",
        "document = '" + "a" * 2_000 + "'",
    ],
)
def test_any_other_condition_is_refused(where: str) -> None:
    for parameter in (None, "notes"):
        with pytest.raises(InvalidRequest, match="where is"):
            parse(where=where, **{"params[1]": parameter})


def test_parameters_that_no_condition_uses_are_refused() -> None:
    for changes in ({"params[1]": None}, {"params[2]": "b"}, {"params": '{"1":"notes"}'}):
        with pytest.raises(InvalidRequest, match="where is"):
            parse(**changes)
    with pytest.raises(InvalidRequest, match="where is"):
        parse(where="document = 'notes'")


@pytest.mark.parametrize("name", ["", "a//b", "..", "a\0", "x" * 513])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse(**{"params[1]": name})


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"table": None}, "table"),
        ({"table": "documents"}, "table"),
        ({"offset": "1"}, "offset"),
        ({"offset": "0_inf", "handle": "h"}, "offset"),
        ({"offset": "5_1", "handle": "h"}, "offset"),
        ({"offset": "-2", "handle": "h"}, "offset"),
        ({"offset": "٣_0", "handle": "h"}, "offset"),
        ({"offset": "1" * 17 + "_0", "handle": "h"}, "offset"),
        ({"offset": "5_0"}, "handle"),
        ({"handle": "h" * 100}, "handle"),
        ({"live": "yes"}, "live"),
        ({"live": "true", "live_sse": "1"}, "live_sse"),
        ({"cursor": "a b"}, "cursor"),
        ({"cursor": "1" * 100}, "cursor"),
        ({"log": "changes_only"}, "log"),
        ({"replica": "some"}, "replica"),
        ({"columns": "op"}, "columns"),
        ({"subset__limit": "1"}, "subsets"),
    ],
)
def test_whatever_else_is_wrong_is_named(changes: dict[str, str | None], about: str) -> None:
    with pytest.raises(InvalidRequest, match=about):
        parse(**changes)


def test_a_query_that_is_none_is_refused() -> None:
    for query in ("table=%ff", "table=updates&table=awareness", "&".join(f"a{i}=1" for i in range(60))):
        with pytest.raises(InvalidRequest):
            parse_shape_request(query)
