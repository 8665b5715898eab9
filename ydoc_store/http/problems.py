"""Errors as RFC 9457 problem documents: one shape, whatever went wrong.

The status of our own errors comes from the error tree. Nothing unexpected is explained to the caller; it is
logged with its traceback instead.
"""

from __future__ import annotations

from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.errors import LimitExceeded, ServerFault, YdocError
from ydoc_store.logs import logger

CONTENT_TYPE = "application/problem+json"

log = logger(__name__)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, *, code: str | None = None) -> Response:
    """A response that says what is wrong and, in `detail`, what to do about it.

    `code` never changes for the same trouble; without one it is the status's own name.
    """
    title = HTTPStatus(status).phrase
    code = code or title.lower().replace(" ", "_").replace("-", "_")
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    # Caches may keep some of these, 404 and 410 among them, unless they are told.
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), status_code=status, media_type=CONTENT_TYPE, headers=headers)


async def of_http_exception(request: Request, error: Exception) -> Response:
    """404 and 405 as the router raises them."""
    if not isinstance(error, HTTPException):
        return await of_unexpected(request, error)
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            detail = "nothing lives at this path; GET / says what runs here"
        case 405:
            detail = f"{request.method} is not answered at this path"
        case _:
            detail = error.detail
    return problem(error.status_code, detail, headers)


async def of_ours(request: Request, error: Exception) -> Response:
    """Our errors carry the status with which they are told."""
    if not isinstance(error, YdocError):
        return await of_unexpected(request, error)
    headers = {"Retry-After": "1"} if isinstance(error, ServerFault | LimitExceeded) else None
    return problem(error.http_status, str(error), headers, code=error.code)


async def of_unexpected(request: Request, error: Exception) -> Response:
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(500, "an unexpected error; the server's log has it")
