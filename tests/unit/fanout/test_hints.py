"""Log hints: read when they make sense, ignored when they do not."""

from __future__ import annotations

import base64

import pytest

from ydoc_store.fanout.hints import LogHint, parse_log_hint
from ydoc_store.yjs.lib0 import join_frames


def inline(*updates: bytes) -> str:
    return base64.b64encode(join_frames(updates)).decode()


def test_bytes_come_along_for_one_document() -> None:
    assert parse_log_hint(f"them;{inline(b'a', b'b')}|7:2:9", "us") == [LogHint(7, 2, 9, [b"a", b"b"])]


def test_many_documents_share_a_hint_without_bytes() -> None:
    assert parse_log_hint("them;|7:2:9|8:1:1", "us") == [LogHint(7, 2, 9, None), LogHint(8, 1, 1, None)]


def test_a_hint_tells_the_epoch_by_its_marker() -> None:
    assert parse_log_hint(f"them;{inline(b'a')}|7:1:9:77", "us") == [LogHint(7, 1, 9, [b"a"], 77)]


def test_a_document_that_is_not_what_it_was_is_a_hint_without_a_count() -> None:
    assert parse_log_hint(";|7:0:0", "us") == [LogHint(7, 0, 0, None)]


def test_our_own_are_no_news() -> None:
    assert parse_log_hint("us;|7:2:9", "us") == []


def test_bytes_that_are_not_as_many_as_said_are_read_from_the_log() -> None:
    assert parse_log_hint(f"them;{inline(b'a')}|7:2:9", "us") == [LogHint(7, 2, 9, None)]


@pytest.mark.parametrize(
    "payload",
    ["", ";", "them", "them;x|7:2:9", "them;|7:2", "them;|a:b:c", "them;|7:0:9", "them;|7:10:9", "them;/w==|1:1:1"],
)
def test_what_makes_no_sense_is_no_hint(payload: str) -> None:
    assert parse_log_hint(payload, "us") == []
