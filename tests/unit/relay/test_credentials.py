from __future__ import annotations

from websockets.datastructures import Headers

from ydoc_store.relay.credentials import read_credentials, select_subprotocol


def token_of(path: str = "/yjs/a", **headers: str) -> str | None:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return read_credentials(path, named, "10.0.0.1").token


def test_a_token_comes_from_the_subprotocol_the_header_or_the_url_in_this_order() -> None:
    assert token_of("/yjs/a?token=from-url") == "from-url"
    assert token_of("/yjs/a?token=from-url", Authorization="bearer from-header") == "from-header"
    offered = "ydoc, ydoc.token.from-protocol"
    assert token_of("/yjs/a?token=u", Authorization="Bearer h", Sec_WebSocket_Protocol=offered) == "from-protocol"
    assert token_of("/yjs/a") is None
    assert token_of("/yjs/a?token=") is None
    assert token_of(Authorization="Basic abc") is None


def test_a_flood_of_parameters_holds_no_token() -> None:
    assert token_of("/yjs/a?" + "&".join(f"a{n}=1" for n in range(200)) + "&token=t") is None


def test_cookies_and_the_origin_are_passed_on_as_they_came() -> None:
    found = read_credentials("/yjs/a", Headers({"Cookie": "a=1; b=2", "Origin": "https://x"}), "10.0.0.1")
    assert (found.cookie, found.origin, found.address) == ("a=1; b=2", "https://x", "10.0.0.1")


def test_the_selected_subprotocol_is_no_token_where_another_was_offered() -> None:
    assert select_subprotocol(["ydoc.token.secret", "ydoc"]) == "ydoc"
    assert select_subprotocol(["ydoc.token.secret"]) == "ydoc.token.secret"
    assert select_subprotocol(["anything"]) == "anything"
    assert select_subprotocol([]) is None
