"""The open server's guard in front of the ASGI application, as plain middleware.

The decision is `auth.open_mode.refusal`, the very one that sockets go through. Nothing is decided here.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ydoc_store.auth.open_mode import Refused, is_loopback_name, refusal
from ydoc_store.http.problems import problem


class OpenModeGuard:
    """Answers 403 to every request that may come from elsewhere, before anything of ours looks at it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
            verdict = refusal(headers)
            if isinstance(verdict, Refused):
                await problem(403, verdict.reason)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_this_machine(request: Request) -> bool:
    """Whether a request comes from a program of this machine, and through no proxy, as far as it can tell."""
    peer = request.client.host if request.client is not None else ""
    is_local = is_loopback_name(f"[{peer}]" if ":" in peer else peer)
    return is_local and not isinstance(refusal(request.headers.items()), Refused)
