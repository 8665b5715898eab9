"""What becomes of an answer that the server which carries us breaks off: it ends whole, and no error is told.

Servers that are stopping wait for requests before they tell an application that it ends, and cancel what takes too
long: event streams and long polls, whose clients come back. `serve` ends those itself and has no need of this.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def ending_whole(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Have `app` answer an HTTP request. A cancellation ends the answer, and goes no further: the request is over."""
    has_begun = is_whole = False

    async def noted(message: Message) -> None:
        nonlocal has_begun, is_whole
        has_begun = True
        is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    try:
        await app(scope, receive, noted)
    except asyncio.CancelledError:
        # The connection may be gone, and a body of a promised length stays short: the client sees either.
        with contextlib.suppress(Exception):
            if not has_begun:
                await Response(status_code=503, headers={"Retry-After": "1"})(scope, receive, send)
            elif not is_whole:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
