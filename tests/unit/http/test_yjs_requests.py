"""What a request of the Yjs protocol may say: paths, and how errors are told to providers that take them literally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ydoc_store import errors
from ydoc_store.errors import InvalidRequest, TooLarge, YdocError
from ydoc_store.http.yjs_requests import (
    PATH_CHARACTERS_MAX,
    parse_path,
    parse_stream_name,
    read_frames,
    response_to,
    split_path,
)
from ydoc_store.names import parse_name


@given(st.text(alphabet=st.sampled_from("ab/._-%\x00é ")))
def test_a_path_that_is_taken_is_the_name_of_a_document_everywhere(path: str) -> None:
    try:
        name = parse_path(path)
    except InvalidRequest:
        return
    assert parse_name(name) == name
    assert "." not in name
    assert parse_path(name) == name


def test_a_path_may_be_this_long_and_no_longer() -> None:
    assert parse_path("x" * PATH_CHARACTERS_MAX)
    with pytest.raises(InvalidRequest):
        parse_path("x" * (PATH_CHARACTERS_MAX + 1))


@pytest.mark.parametrize(
    ("raw_path", "found"),
    [
        (b"/v1/yjs/default/docs/notes", ("default", "notes")),
        (b"/mounted/here/v1/yjs/acme/docs/a/b", ("acme", "a/b")),
        (b"/v1/yjs/ac%20me/docs/docs/docs", ("ac me", "docs/docs")),
        (b"/v1/yjs/default/docs/a%2Fb", ("default", "a/b")),
    ],
)
def test_the_service_and_the_name_are_read_from_the_raw_path(raw_path: bytes, found: tuple[str, str]) -> None:
    assert split_path(raw_path) == found


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\u00e9", "x" * 65])
def test_an_awareness_streams_name_is_plain(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_stream_name(name)


def leaves(kind: type[YdocError]) -> list[type[YdocError]]:
    below = kind.__subclasses__()
    return [kind] if not below else [leaf for child in below for leaf in leaves(child)]


def made(kind: type[YdocError]) -> YdocError:
    match kind.__name__:
        case "ProducerStale":
            return errors.ProducerStale(4)
        case "ProducerGap":
            return errors.ProducerGap(0, 3)
        case "ConditionFailed":
            return errors.ConditionFailed(3)
        case "StreamClosed":
            return errors.StreamClosed(3)
    return kind("why")


def test_only_a_gap_is_a_conflict_and_only_a_stale_epoch_or_no_access_is_forbidden() -> None:
    """The stock producer repeats a 409 without a pause, and a 403 for ever with the next epoch."""
    statuses = {
        kind.__name__: response_to(made(kind)).status_code
        for kind in leaves(YdocError)
        if kind.__module__ == errors.__name__
    }
    assert {name for name, status in statuses.items() if status == 409} == {"ProducerGap"}
    assert {name for name, status in statuses.items() if status == 403} == {"Forbidden", "ProducerStale"}
    assert {name for name, status in statuses.items() if status == 410} == set()
    assert {"DocumentDeleted", "DocumentRenamed", "EpochChanged", "NoSuchDocument"} <= {
        name for name, status in statuses.items() if status == 404
    }
    assert response_to(errors.ProducerGap(0, 3)).headers["producer-expected-seq"] == "0"
    assert response_to(errors.ProducerStale(4)).headers["producer-epoch"] == "4"
    assert response_to(errors.StorageBusy("why")).headers["retry-after"] == "1"


def test_no_more_frames_are_read_than_may_come() -> None:
    assert read_frames(b"\1a\0\1b", "an update", 3) == [b"a", b"", b"b"]
    # What is no frame stands behind those: it is never come to.
    with pytest.raises(TooLarge):
        read_frames(b"\0" * 4 + b"\xff", "an update", 3)
    for bad in (b"", b"\xff", b"\0\2a"):
        with pytest.raises(InvalidRequest):
            read_frames(bad, "an update", 3)
