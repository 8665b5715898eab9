"""Paths that belong to one protocol as a whole: all methods of them, so that a wrong one is told in its words too.

What a request means is the protocol's; here is only that whatever goes wrong with it becomes an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ydoc_store.errors import YdocError
from ydoc_store.logs import logger

log = logger(__name__)


class Answering:
    """The ASGI application that such a route leads to."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        told: Callable[[YdocError], Response],
        failed: Callable[[], Response],
    ):
        """`told` puts an error of ours into the protocol's words, `failed` says that nobody foresaw what went wrong."""
        self._answer = answer
        self._told = told
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except YdocError as error:
            response = self._told(error)
        except Exception:
            log.exception("a request failed", method=request.method)
            response = self._failed()
        await response(scope, receive, send)
