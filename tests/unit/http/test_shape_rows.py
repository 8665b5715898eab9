"""Rows are JSON, and hold one lib0 frame each as PostgreSQL writes bytea."""

from __future__ import annotations

import json

import pytest

from ydoc_store.http.shape_request import Table
from ydoc_store.http.shape_rows import SCHEMAS, Row, array, array_size, awareness_row, events, up_to_date, update_row
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness
from ydoc_store.yjs.lib0 import frames

SIZES = [0, 1, 127, 128, 32 * 1024, 32 * 1024 + 1, 200_000]


def payload_of(row: dict[str, dict[str, str]]) -> bytes:
    text = row["value"]["op"]
    assert text.startswith("\\x")
    (payload,) = frames(bytes.fromhex(text[2:]))
    return payload


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_array_holds_its_rows_then_the_word_and_is_as_long_as_was_said(count: int) -> None:
    rows = [update_row(9, part, bytes(SIZES[part])) for part in range(count)]
    text = b"".join(array(rows, up_to_date(9)))
    assert len(text) == array_size(rows, up_to_date(9))
    *found, last = json.loads(text)
    assert [payload_of(row) for row in found] == [bytes(SIZES[part]) for part in range(count)]
    assert last == {"headers": {"control": "up-to-date", "global_last_seen_lsn": "9"}}


@pytest.mark.parametrize("size", SIZES)
def test_an_update_is_an_insert_under_a_key_of_its_own(size: int) -> None:
    update = bytes(i % 251 for i in range(size))
    row = json.loads(b"".join(update_row(12, 3, update).pieces()))
    assert row["key"] == '"ydoc"."updates"/"12"/"3"'
    assert (row["value"]["seq"], row["value"]["part"]) == ("12", "3")
    assert row["headers"] == {"operation": "insert"}
    assert payload_of(row) == update
    assert set(row["value"]) == set(json.loads(SCHEMAS[Table.UPDATES]))


@pytest.mark.parametrize("state", ['{"user":{"name":"Bén \\"😀"}}', None])
def test_presence_is_a_row_an_editor_and_its_end_an_update_and_no_delete(state: str | None) -> None:
    entry = AwarenessEntry(2**53 - 1, 7, state)
    for is_new, operation in ((True, "insert"), (False, "update")):
        row = json.loads(b"".join(awareness_row(entry, is_new=is_new).pieces()))
        assert row["headers"] == {"operation": operation}
        assert row["value"]["client_id"] == str(2**53 - 1)
        assert decode_awareness(payload_of(row), entries_max=1, bytes_max=1_000, json_depth_max=9) == [entry]
        assert set(row["value"]) == set(json.loads(SCHEMAS[Table.AWARENESS]))


def test_an_event_is_a_row_on_one_line() -> None:
    rows = [Row(b'{"a":"', b"\n\n", b'"}'), update_row(1, 0, b"\n")]
    text = b"".join(events(rows, up_to_date(1)))
    first, second, last, rest = text.split(b"\n\n")
    assert first == b'data: {"a":"0a0a"}'
    assert payload_of(json.loads(second.removeprefix(b"data: "))) == b"\n"
    assert json.loads(last.removeprefix(b"data: "))["headers"]["control"] == "up-to-date"
    assert rest == b""
