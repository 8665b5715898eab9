"""A mounted service as README mounts it, run as README runs it: stock clients, and what a signal leaves behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.interop.editors import Editors
from tests.interop.test_readme import block
from tests.interop.together import meet_and_type, part_and_merge
from tests.postgres import RELAY_LOGIN, url_as
from tests.service import Program, free_port
from tests.stored import broken_seqs, connecting, names
from tests.waiting import until

BIN = Path(sys.executable).parent
RUNS = re.compile(r"[Rr]unning on http://127.0.0.1:(\d+)")
DJANGO_SETTINGS = """
SECRET_KEY = "none"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "project.urls"
"""
DJANGO_URLS = """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("own", lambda request: HttpResponse("the host's"))]
"""


def host_of(folder: Path, command: str, database_url: str) -> tuple[Program, int]:
    """A server as README starts it, in this folder, on a port of its own."""
    port = free_port()
    bind = f"--port {port}" if command.startswith("uvicorn") else f"--bind 127.0.0.1:{port}"
    environment = {"YDOC_DATABASE_URL": url_as(RELAY_LOGIN, database_url), "PATH": f"{BIN}:{os.environ['PATH']}"}
    line = f"cd {folder} && exec {command} {bind} 2>&1"
    return Program(("sh", "-c", line), RUNS, folder / "host.log", environment), port


def command_of(server: str) -> str:
    return next(line for line in block("servers of a mounted service").splitlines() if line.startswith(server))


async def is_over(pid: int, database_url: str) -> None:
    """Nothing of the process's group lives, and nobody is connected to the database any more."""

    def has_ended() -> bool:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await until(has_ended)
    async with connecting(database_url) as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert await connection.fetchval(others) == 0
        assert not await broken_seqs(connection)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_stock_clients_work_on_a_service_that_fastapi_mounts(
    server: str, editors: Editors, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(block("mounted in FastAPI"))
    (tmp_path / "hypercorn.toml").write_text("websocket_max_message_size = 33554432\n")
    host, port = host_of(tmp_path, command_of(server), database_url)
    try:
        await host.start()
        pid = host.pid
        ann = await editors.open_synced(f"ws://127.0.0.1:{port}/collab/yjs", "team/notes")
        ben = await editors.open_hocuspocus(f"ws://127.0.0.1:{port}/collab/hocuspocus", "team/notes")
        await ben.saved()
        await meet_and_type(ann, ben)
        await part_and_merge(ann, ben)
        cat = await editors.open_durable(f"http://127.0.0.1:{port}/collab/v1/yjs/default", "team/notes")
        await cat.shows("zero one two three")
        await cat.type("!")
        await cat.synced()
        await ann.shows("zero one two three!")
        await ben.saved()
        cid = await editors.open(f"ws://127.0.0.1:{port}/collab/elsewhere", "notes")
        assert (await cid.ask("untilStopped"))["code"] == 4404
        host.signal(signal.SIGTERM)
        # uvicorn dies by the signal that it was asked with, when all is done.
        assert await host.ended() in (0, -signal.SIGTERM), host.log_text()
        await ann.ask("untilDisconnected")
    finally:
        await host.clear_away()
    # hypercorn breaks off whom a client keeps open, and tells that with a traceback of its own.
    assert "ydoc_store" not in host.log_text()
    await is_over(pid, database_url)
    async with connecting(database_url) as connection:
        assert await names(connection) == {"team/notes"}


@pytest.mark.parametrize("lifespan", ["on", "off"])
async def test_a_django_project_carries_it_with_a_lifespan_or_without(
    lifespan: str, editors: Editors, database_url: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "__init__.py").touch()
    (project / "settings.py").write_text(DJANGO_SETTINGS)
    (project / "urls.py").write_text(DJANGO_URLS)
    (project / "asgi.py").write_text(block("mounted in Django"))
    command = command_of("uvicorn").replace("app:app", "project.asgi:application") + f" --lifespan {lifespan}"
    host, port = host_of(tmp_path, command, database_url)
    try:
        await host.start()
        pid = host.pid
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/own")).text == "the host's"
            assert (await client.get("/collab/health/ready")).json()["status"] == "ready"
        ann = await editors.open_synced(f"ws://127.0.0.1:{port}/collab/yjs", "notes")
        ben = await editors.open_hocuspocus(f"ws://127.0.0.1:{port}/collab/hocuspocus", "notes")
        await ben.saved()
        await meet_and_type(ann, ben)
        host.signal(signal.SIGTERM)
        assert await host.ended() in (0, -signal.SIGTERM), host.log_text()
    finally:
        await host.clear_away()
    assert "ydoc_store" not in host.log_text()
    await is_over(pid, database_url)
