"""What a request asks for: names in paths, forms, conditions, keys."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from ydoc_store.errors import InvalidName, InvalidRequest, NotAcceptable, UnsupportedMediaType
from ydoc_store.http.document_keys import key_of, parse_key
from ydoc_store.http.document_requests import (
    Conditions,
    Version,
    accepted,
    conditions_of,
    only,
    require_type,
    single,
    split_path,
)
from ydoc_store.storage.listing import after_all

FORMS = ("application/octet-stream", "application/json", "text/plain")
VERSION = Version(1, 7, "0123456789ab")


def asking(query: str = "", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "query_string": query.encode(), "headers": raw, "method": "GET", "path": "/"})


def test_a_path_is_a_name_and_an_action() -> None:
    assert split_path(b"/v1/documents/a%2Fb/content") == ("a/b", "content")
    assert split_path(b"/v1/documents/%E2%98%83") == ("☃", "")
    assert split_path(b"/v1/documents/a/b/c") == ("a", "b/c")
    assert split_path(b"/v1/documents/v1%2Fdocuments%2Fa") == ("v1/documents/a", "")
    for path in (b"/v1/documents/", b"/v1/documents//content", b"/v1/documents/a%2F%2Fb", b"/v1/documents/%ff"):
        with pytest.raises(InvalidName):
            split_path(path)


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("", FORMS[0]),
        ("*/*", FORMS[0]),
        ("application/json", FORMS[1]),
        ("text/*", FORMS[2]),
        ("application/json;q=0.5, text/plain", FORMS[2]),
        ("*/*;q=0.1, application/*;q=0.2, text/plain;q=0.15", FORMS[0]),
        ("application/octet-stream;q=0, */*", FORMS[1]),
        ("APPLICATION/JSON; Q=1", FORMS[1]),
        ("application/json;q=x, text/plain;q=0.1", FORMS[2]),
    ],
)
def test_the_form_is_the_one_that_the_reader_likes_most(header: str, form: str) -> None:
    assert accepted(asking(accept=header), FORMS) == form


@pytest.mark.parametrize("header", ["image/png", "application/json;q=0", "text/html, image/*", "*/*;q=0"])
def test_a_reader_that_takes_none_is_told(header: str) -> None:
    with pytest.raises(NotAcceptable):
        accepted(asking(accept=header), FORMS)


def test_conditions_are_lists_of_versions() -> None:
    etag = VERSION.etag
    assert conditions_of(asking()) == Conditions()
    assert conditions_of(asking(if_match="*", if_none_match="*")) == Conditions(is_any=True, is_absent=True)
    assert conditions_of(asking(if_match=etag)).match == (VERSION,)
    # A weak one is good enough to save a read, and for nothing else.
    assert conditions_of(asking(if_match=f"W/{etag}")).match == (None,)
    assert conditions_of(asking(if_none_match=f'W/{etag} ,"other",  {etag}')).none_match == (VERSION, None, VERSION)
    assert conditions_of(asking(if_match='"01-1-0123456789ab"')).match == (None,)


@pytest.mark.parametrize("header", ["", "x", '"', '"a" "b"', '"a",x', "*,*", 'w/"a"', '"a b"'])
def test_conditions_that_are_none_are_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        conditions_of(asking(if_none_match=header))


def test_a_body_is_of_a_kind_that_is_taken() -> None:
    assert require_type(asking(), "text/plain", default="text/plain") == "text/plain"
    assert require_type(asking(content_type='Text/Plain; charset="UTF-8"'), "text/plain") == "text/plain"
    for headers in (
        {},
        {"content_type": "application/json"},
        {"content_type": "text/plain; charset=utf-16"},
        {"content_type": "text/plain", "content_encoding": "gzip"},
    ):
        with pytest.raises(UnsupportedMediaType):
            require_type(asking(**headers), "text/plain")


def test_a_parameter_comes_once_and_is_known() -> None:
    assert single(asking("a=1&b=2"), "a") == "1"
    assert single(asking("a=1"), "b") is None
    only(asking("a=1&token=x"), "a")
    with pytest.raises(InvalidRequest):
        single(asking("a=1&a=1"), "a")
    with pytest.raises(InvalidRequest, match='no parameter "b"'):
        only(asking("a=1&b=1"), "a")


def test_a_key_is_its_senders_own() -> None:
    assert parse_key("a", "ann") == parse_key('"a"', "ann") != parse_key("a", "ben")
    assert parse_key("delete it", "ann") == parse_key('"delete it"', "ann")
    assert parse_key("a", None).producer_id.startswith("key:")
    for key in ("", '""', "x" * 256, "a\nb", 'a"b', "ä", '"a'):
        with pytest.raises(InvalidRequest):
            parse_key(key, "ann")


def test_a_key_comes_once_or_not_at_all() -> None:
    assert key_of(asking(), "ann") is None
    assert key_of(asking(idempotency_key="a"), "ann") == parse_key("a", "ann")
    headers = [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    twice = Request({"type": "http", "headers": headers, "method": "POST", "path": "/"})
    with pytest.raises(InvalidRequest):
        key_of(twice, "ann")


def test_a_request_under_a_key_is_told_by_all_of_its_parts() -> None:
    key = parse_key("a", "ann")
    assert key.of("edit", b"body") == key.of("edit", b"body")
    different = [("edit", b"body"), ("edit", b"bodY"), ("append", b"body"), ("editb", b"ody"), ("edit", "", b"body")]
    assert len({key.of(*parts) for parts in different}) == len(different)
    assert {key.of(*parts).seq for parts in different} == {0}


@pytest.mark.parametrize(
    ("prefix", "after"),
    [
        ("", None),
        ("a", "b"),
        ("team/", "team0"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff\U0010ffff", None),
    ],
)
def test_what_stands_behind_a_prefix(prefix: str, after: str | None) -> None:
    assert after_all(prefix) == after
