"""Pages of other origins: which may ask, and which headers of an answer they may read. Plain middleware.

The rule is the sockets' (`auth.origins`). A page that may not ask is answered without these headers, and so its
browser tells it nothing; whether it is let in at all is the door's business.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ydoc_store.auth.origins import Origins
from ydoc_store.errors import Forbidden

_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
# All that any of our protocols puts into an answer and its clients read.
_EXPOSED: Final = ", ".join(
    (
        "etag",
        "location",
        "link",
        "retry-after",
        "content-encoding",
        "stream-next-offset",
        "stream-cursor",
        "stream-up-to-date",
        "stream-closed",
        "stream-ttl",
        "stream-expires-at",
        "stream-sse-data-encoding",
        "producer-epoch",
        "producer-seq",
        "producer-expected-seq",
        "producer-received-seq",
        "electric-handle",
        "electric-offset",
        "electric-schema",
        "electric-cursor",
        "electric-up-to-date",
        "electric-has-data",
    )
)
_PREFLIGHT_KEPT_S: Final = 600


class Cors:
    """Answers preflights, and tells browsers what pages may read."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or not self._may_ask(origin, headers.get("host")):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _answer_preflight(origin, headers.get("access-control-request-headers"), send)
        else:
            await self._app(scope, receive, _exposing(origin, send))

    def _may_ask(self, origin: str, host: str | None) -> bool:
        try:
            self._origins.judge(origin, host)
        except Forbidden:
            return False
        return True


def _exposing(origin: str, send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-allow-credentials"] = "true"
            headers["access-control-expose-headers"] = _EXPOSED
            headers.add_vary_header("Origin")
        await send(message)

    return told


async def _answer_preflight(origin: str, wanted: str | None, send: Send) -> None:
    headers = MutableHeaders(
        {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": _METHODS,
            "access-control-max-age": str(_PREFLIGHT_KEPT_S),
            "vary": "Origin, Access-Control-Request-Headers",
        }
    )
    if wanted:
        headers["access-control-allow-headers"] = wanted
    await send({"type": "http.response.start", "status": 204, "headers": headers.raw})
    await send({"type": "http.response.body", "body": b""})
