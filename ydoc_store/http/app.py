"""The ASGI application: which path is answered by what.

`application` is given everything that a route asks, as callables; it opens nothing and starts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ydoc_store import metrics
from ydoc_store.auth.access import Access
from ydoc_store.auth.origins import Origins
from ydoc_store.errors import StorageUnavailable, YdocError
from ydoc_store.http import (
    changes,
    document_list,
    documents,
    problems,
    revocations,
    shapes,
    streams,
    yjs_streams,
)
from ydoc_store.http.cors import Cors
from ydoc_store.http.door import EVERYTHING, admit
from ydoc_store.http.guard import OpenModeGuard, is_this_machine
from ydoc_store.http.health import Report, Verdict
from ydoc_store.http.here import Here
from ydoc_store.http.pages import what_runs_here
from ydoc_store.names import HOCUSPOCUS_PATH, YJS_PREFIX


@dataclass(frozen=True, slots=True)
class Services:
    """What the application asks: `ready` for the verdict of now, `metrics` for all samples in text form."""

    ready: Callable[[], Awaitable[Report]]
    metrics: Callable[[], bytes]
    has_identities: bool
    here: Callable[[], Here | None] = lambda: None
    origins: Origins = field(default_factory=lambda: Origins(()))

    def present(self) -> Here:
        """Raises StorageUnavailable while the service starts."""
        found = self.here()
        if found is None:
            raise StorageUnavailable("this service is starting")
        return found


def application(services: Services) -> Starlette:
    """The application over these services. Without identities it answers this machine alone."""

    async def live(_request: Request) -> Response:
        return _json({"status": "live"})

    async def ready(_request: Request) -> Response:
        report = await services.ready()
        body = {
            "status": report.verdict.name.lower(),
            "checks": [
                {"name": check.name, "status": check.verdict.name.lower(), "detail": check.detail}
                for check in report.checks
            ],
        }
        return _json(body, 503 if report.verdict is Verdict.UNREADY else 200)

    async def samples(request: Request) -> Response:
        if services.has_identities and not is_this_machine(request):
            await admit(services.present(), request, EVERYTHING, Access.ADMIN)
        return Response(services.metrics(), media_type=metrics.CONTENT_TYPE)

    return Starlette(
        routes=[
            # First, because appends come by the thousand, and a route costs a look. One name is not for them.
            *document_list.routes(services.present),
            *streams.routes(services.present),
            Route("/", what_runs_here),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", samples),
            Route(YJS_PREFIX + "{name:path}", _only_sockets),
            Route(HOCUSPOCUS_PATH, _only_sockets),
            *revocations.routes(services.present),
            *documents.routes(services.present),
            *shapes.routes(services.present),
            *yjs_streams.routes(services.present),
            *changes.routes(services.present),
        ],
        middleware=[
            *([] if services.has_identities else [Middleware(OpenModeGuard)]),
            Middleware(Cors, services.origins),
        ],
        exception_handlers={
            HTTPException: problems.of_http_exception,
            YdocError: problems.of_ours,
            Exception: problems.of_unexpected,
        },
    )


async def _only_sockets(_request: Request) -> Response:
    return problems.problem(
        426, "documents are spoken over WebSocket; GET / says how an editor connects", {"Upgrade": "websocket"}
    )


def _json(body: object, status: int = 200) -> Response:
    return Response(
        orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
