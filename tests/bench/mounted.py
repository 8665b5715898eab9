"""The host of `servers.server("mounted")`: a FastAPI project with the service, its compactor inside as in `serve`."""

from __future__ import annotations

from tests.hosts import fastapi_host
from ydoc_store.http import create_app

app = fastapi_host(create_app(with_compactor=True))
