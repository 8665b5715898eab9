"""Document names: one rule, and one decoding of the URL, for every adapter."""

from __future__ import annotations

import pytest

from ydoc_store.errors import InvalidName, UnknownPath
from ydoc_store.names import name_from_raw_path, parse_name

CLOSE_REASON_BYTES_MAX = 123


@pytest.mark.parametrize(
    "name", ["a", "notes/2024/plan", "日本", "a b", "..a", "a..", "...", "%2e%2e", "\\", "a" * 512]
)
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a//b",
        "/a",
        "a/",
        ".",
        "..",
        "a/../b",
        "a/.",
        "\0",
        "a\nb",
        "\x1f",
        "\x7f",
        "\x80",
        "\x9f",
        "é" * 257,
    ],
)
def test_a_name_outside_the_rule_is_refused_with_a_reason_that_fits_a_close_frame(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(name)
    assert 0 < len(str(caught.value).encode()) <= CLOSE_REASON_BYTES_MAX


def test_a_name_that_is_no_unicode_text_is_refused() -> None:
    with pytest.raises(InvalidName):
        parse_name("\udcff")


def test_the_longest_name_is_measured_in_bytes() -> None:
    assert parse_name("é" * 256) == "é" * 256
    with pytest.raises(InvalidName):
        parse_name("é" * 256 + "a")


def test_names_that_look_alike_stay_different() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert parse_name(composed) != parse_name(decomposed)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/yjs/plan", "plan"),
        (b"/yjs/a/b", "a/b"),
        (b"/yjs/a%2Fb", "a/b"),
        (b"/yjs/a%20b?token=x", "a b"),
        (b"/yjs/%E6%97%A5", "日"),
        ("/yjs/日".encode(), "日"),
        (b"/yjs/a+b", "a+b"),
        (b"/yjs/100%", "100%"),
        (b"/yjs/100%zz", "100%zz"),
    ],
)
def test_a_path_is_decoded_once(path: bytes, name: str) -> None:
    assert name_from_raw_path(path, b"/yjs/") == name


def test_a_path_is_not_decoded_twice() -> None:
    assert name_from_raw_path(b"/yjs/%252e%252e", b"/yjs/") == "%2e%2e"


@pytest.mark.parametrize(
    "path",
    [
        b"/yjs/",
        b"/yjs/?a",
        b"/yjs/%2e%2e",
        b"/yjs/a/%2E%2E/b",
        b"/yjs/%00",
        b"/yjs/%ff",
        b"/yjs/%c2%80",
        b"/yjs//a",
    ],
)
def test_encoding_hides_no_bad_name(path: bytes) -> None:
    with pytest.raises(InvalidName):
        name_from_raw_path(path, b"/yjs/")


@pytest.mark.parametrize("path", [b"/", b"/yjs", b"/other/plan", b"", b"yjs/plan", b"/YJS/plan"])
def test_any_other_path_is_unknown_and_the_right_one_is_named(path: bytes) -> None:
    with pytest.raises(UnknownPath, match="/yjs/NAME"):
        name_from_raw_path(path, b"/yjs/")
