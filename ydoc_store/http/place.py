"""Where a request stands when this application is mounted under a path of somebody else's. Pure.

Servers and frameworks disagree about what `path` and `raw_path` hold under a `root_path`: all of it, or what is
behind it. `inside` makes one of them all, the one that ASGI describes: both paths hold all of it, so that a URL made
of `request.url`, `request.base_url` or the raw path leads back here, and routes match what is behind `root_path`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

# What ASGI defines. A framework's own keys (its router, its parameters) mean nothing in another application.
_OF_ASGI: Final = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "query_string",
    "headers",
    "client",
    "server",
    "state",
    "extensions",
    "subprotocols",
)


class Place(NamedTuple):
    """The path of the mount, empty or without a slash at its end, and the undecoded path behind it."""

    root: str
    raw_path: bytes

    def target(self, scope: MutableMapping[str, Any]) -> str:
        """The request target behind the mount, undecoded and with its parameters."""
        query = scope.get("query_string") or b""
        return (self.raw_path + b"?" + query if query else self.raw_path).decode("latin-1")


def place_of(scope: MutableMapping[str, Any]) -> Place:
    """From a scope as a server or a framework hands it over; `raw_path` may be missing, as ASGI allows."""
    root = str(scope.get("root_path") or "").rstrip("/")
    raw_path = scope.get("raw_path") or quote(scope["path"]).encode()
    raw_path = raw_path.partition(b"?")[0]
    # A server may keep its own root out of the path, and a framework's mount then adds to that root.
    outer = str(scope.get("app_root_path") or "").rstrip("/")
    for prefix in dict.fromkeys((root, root.removeprefix(outer))):
        behind = _behind(raw_path, prefix)
        if behind is not None:
            return Place(root, behind or b"/")
    return Place(root, raw_path)


def inside(scope: MutableMapping[str, Any], place: Place) -> MutableMapping[str, Any]:
    """The scope as the mounted application sees it."""
    kept: dict[str, Any] = {name: scope[name] for name in _OF_ASGI if name in scope}
    behind = unquote_to_bytes(place.raw_path).decode(errors="replace")
    raw_path = quote(place.root).encode() + place.raw_path
    return kept | {"path": place.root + behind, "raw_path": raw_path, "root_path": place.root}


def _behind(raw_path: bytes, prefix: str) -> bytes | None:
    """What follows `prefix`, segment for segment however it is encoded; None where it does not begin with it."""
    parts = raw_path.split(b"/", prefix.count("/") + 1)
    head, behind = parts[: prefix.count("/") + 1], parts[prefix.count("/") + 1 :]
    if not prefix:
        return raw_path
    if unquote_to_bytes(b"/".join(head)).decode(errors="replace") != prefix:
        return None
    return b"/" + behind[0] if behind else b""
