"""Where a request stands behind a mount, whatever its server and its framework put into the scope."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Mount

from ydoc_store.http.document_requests import split_path
from ydoc_store.http.place import inside, place_of


def scope(path: str, raw_path: bytes | None, root_path: str = "", **others: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "http", "path": path, "root_path": root_path, "query_string": b"", "headers": []}
    return found | ({} if raw_path is None else {"raw_path": raw_path}) | others


@pytest.mark.parametrize(
    ("given", "root", "behind"),
    [
        pytest.param(scope("/yjs/a b", b"/yjs/a%20b"), "", b"/yjs/a%20b", id="no mount"),
        pytest.param(scope("/c/yjs/a b", b"/c/yjs/a%20b", "/c"), "/c", b"/yjs/a%20b", id="all of it, as ASGI says"),
        pytest.param(scope("/yjs/a", b"/c/yjs/a", "/c"), "/c", b"/yjs/a", id="the path cut, the raw path not"),
        pytest.param(scope("/yjs/a", b"/yjs/a", "/c"), "/c", b"/yjs/a", id="both cut, as behind a proxy"),
        pytest.param(scope("/c/yjs/ä/b", None, "/c"), "/c", b"/yjs/%C3%A4/b", id="no raw path"),
        pytest.param(scope("/c", b"/c", "/c"), "/c", b"/", id="the mount itself"),
        pytest.param(scope("/c/", b"/c/", "/c/"), "/c", b"/", id="a slash at the root's end"),
        pytest.param(scope("/a b/yjs/x", b"/a%20b/yjs/x", "/a b"), "/a b", b"/yjs/x", id="a mount with an escape"),
        pytest.param(scope("/c/yjs/a", b"/c/yjs/a?x=1", "/c"), "/c", b"/yjs/a", id="parameters in the raw path"),
        pytest.param(scope("/yjs/yjs/a", b"/yjs/yjs/a", "/yjs"), "/yjs", b"/yjs/a", id="a mount named like a route"),
        pytest.param(scope("/collabor/x", b"/collabor/x", "/collab"), "/collab", b"/collabor/x", id="no segment cut"),
        pytest.param(
            scope("/c/yjs/a", b"/c/yjs/a", "/api/c", app_root_path="/api"), "/api/c", b"/yjs/a", id="behind a proxy"
        ),
        pytest.param(
            scope("/api/c/yjs/a", b"/api/c/yjs/a", "/api/c", app_root_path="/api"), "/api/c", b"/yjs/a", id="uvicorn's"
        ),
    ],
)
def test_the_path_behind_the_mount_is_found(given: dict[str, Any], root: str, behind: bytes) -> None:
    assert place_of(given) == (root, behind)


@pytest.mark.parametrize(
    ("path", "raw_path"), [("/c/yjs/a/b", b"/c/yjs/a%2Fb"), ("/yjs/a/b", b"/c/yjs/a%2Fb"), ("/yjs/a/b", b"/yjs/a%2Fb")]
)
def test_inside_all_scopes_look_alike_and_urls_lead_back_here(path: str, raw_path: bytes) -> None:
    given = scope(path, raw_path, "/c", scheme="https", query_string=b"x=1", path_params={"theirs": 1})
    given["headers"] = [(b"host", b"app.example.com")]
    seen = inside(given, place_of(given))
    assert (seen["path"], seen["raw_path"], seen["root_path"]) == ("/c/yjs/a/b", b"/c/yjs/a%2Fb", "/c")
    assert str(Request(seen).base_url) == "https://app.example.com/c/"
    assert "path_params" not in seen
    assert place_of(seen) == place_of(given)
    assert place_of(given).target(given) == "/yjs/a%2Fb?x=1"


def test_starlettes_own_mounts_nested_in_each_other_are_followed() -> None:
    _, outer = Mount("/a", routes=[]).matches(scope("/a/b/yjs/x", b"/a/b/yjs/x"))
    given = scope("/a/b/yjs/x", b"/a/b/yjs/x") | outer
    _, inner = Mount("/b", routes=[]).matches(given)
    assert place_of(given | inner) == ("/a/b", b"/yjs/x")


def test_a_mount_that_is_called_like_a_route_of_ours_leads_to_the_right_document() -> None:
    """One document has one name everywhere."""
    seen = scope("/v1/documents/x/v1/documents/a/b", b"/v1/documents/x/v1/documents/a%2Fb", "/v1/documents/x")
    here = place_of(inside(seen, place_of(seen)))
    assert split_path(here.raw_path) == ("a/b", "")
