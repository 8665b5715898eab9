"""`/v1/documents`: documents for backends, scripts and people with curl.

Which request is answered by what, and which access it needs. A document's name is one percent-encoded segment, so
these paths are matched as they came and not as the router decodes them. What is answered is the other modules'.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ydoc_store.auth.access import Access, Granted
from ydoc_store.errors import UnknownPath
from ydoc_store.http import document_actions, document_lists, document_reading, document_writing, problems
from ydoc_store.http.document_reading import DIALECT
from ydoc_store.http.document_requests import PREFIX, split_path
from ydoc_store.http.door import admit
from ydoc_store.http.here import Here, Present
from ydoc_store.http.openapi import description
from ydoc_store.http.place import place_of

COLLECTION_PATH: Final = PREFIX.rstrip("/")
BATCH_PATH: Final = COLLECTION_PATH + ":batch"
DESCRIPTION_PATH: Final = "/v1/openapi.json"

_READING: Final = ("GET", "HEAD")
Answer = Callable[[Here, Request, Granted, str], Awaitable[Response]]

ANSWERS: Final[dict[str, dict[str, tuple[Access, Answer]]]] = {
    "": {
        "GET": (Access.READ, document_reading.read),
        "HEAD": (Access.READ, document_reading.describe),
        "POST": (Access.WRITE, document_writing.append),
        "PATCH": (Access.WRITE, document_writing.edit),
        "PUT": (Access.WRITE, document_writing.create),
        "DELETE": (Access.ADMIN, document_actions.delete),
    },
    "content": {
        "GET": (Access.READ, document_reading.read_content),
        "PUT": (Access.WRITE, document_writing.create_with_content),
    },
    "state-vector": {"GET": (Access.READ, document_reading.read_vector)},
    "statistics": {"GET": (Access.READ, document_reading.read_statistics)},
    "copy": {"POST": (Access.READ, document_actions.copy)},
    "rename": {"POST": (Access.ADMIN, document_actions.rename)},
    "undelete": {"POST": (Access.ADMIN, document_actions.undelete)},
}
"""By action and method: the access to the document that is needed, and what answers."""


def routes(present: Present) -> list[Route]:
    """`present` raises StorageUnavailable while the service starts."""

    async def collection(request: Request) -> Response:
        if request.method in _READING:
            return await document_lists.list_documents(present(), request)
        return _not_answered(request, ["GET"])

    async def batch(request: Request) -> Response:
        if request.method == "POST":
            return await document_lists.import_batch(present(), request)
        return _not_answered(request, ["POST"])

    async def described(request: Request) -> Response:
        return document_reading.as_json(description(request.scope.get("root_path", "")))

    one = Route(PREFIX + "{rest:path}", _Any(lambda request: _answer(present, request)))
    # A line feed too, which no name holds: its sender is told that.
    one.path_regex = re.compile(one.path_regex.pattern, re.DOTALL)
    return [
        Route(COLLECTION_PATH, _Any(collection)),
        Route(BATCH_PATH, _Any(batch)),
        one,
        Route(DESCRIPTION_PATH, described),
    ]


class _Any:
    """An application for every method, so that a wrong one is told which ones are right."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]):
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


async def _answer(present: Present, request: Request) -> Response:
    name, action = split_path(place_of(request.scope).raw_path)
    methods = ANSWERS.get(action)
    if methods is None:
        raise UnknownPath("a document's name is one segment of the path, with / as %2F; what is done with it the next")
    # A HEAD is a GET whose body is left out, unless it has a shorter way.
    method = "GET" if request.method == "HEAD" and "HEAD" not in methods else request.method
    if method not in methods:
        return _not_answered(request, list(methods))
    here = present()
    needed, answer = methods[method]
    granted = await admit(here, request, name, needed, dialect=DIALECT)
    return await answer(here, request, granted, name)


def _not_answered(request: Request, methods: list[str]) -> Response:
    if "GET" in methods and "HEAD" not in methods:
        methods = [*methods, "HEAD"]
    allowed = ", ".join(methods)
    return problems.problem(405, f"{request.method} is not answered at this path, {allowed} is", {"Allow": allowed})
