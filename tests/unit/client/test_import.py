"""Who imports the client gets a client: no server, no database driver, no settings that read its environment."""

from __future__ import annotations

import json
import subprocess
import sys

LISTING = """
import json, sys
import ydoc_store.client
print(json.dumps(sorted(sys.modules)))
"""
OF_OURS = {"ydoc_store", "ydoc_store.errors"}
ABSENT = {
    "asyncpg",
    "click",
    "httpx",
    "jwt",
    "prometheus_client",
    "pydantic",
    "pydantic_settings",
    "starlette",
    "structlog",
    "uvicorn",
    "apscheduler",
    "compactor",
}


def test_importing_the_client_imports_nothing_of_the_server() -> None:
    listed = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=True, timeout=60)
    modules = set(json.loads(listed.stdout))
    ours = {name for name in modules if name.split(".")[0] == "ydoc_store"}
    beyond = {name for name in ours - OF_OURS if not name.startswith(("ydoc_store.client", "ydoc_store.yjs"))}
    assert beyond == set()
    assert modules & ABSENT == set()
