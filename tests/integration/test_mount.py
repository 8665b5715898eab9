"""The service mounted in somebody else's application: paths, refusals, start and end, under two servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.hosts import SERVERS, Host, fastapi_host, hosting, mounted
from tests.nodes import Editor, closed_at_once, connect_raw
from tests.tokens import SECRET, token
from ydoc_store.http import create_app
from ydoc_store.mount import Mounted
from ydoc_store.settings import Settings
from ydoc_store.errors import SettingInvalid, StorageUnavailable
from ydoc_store.yjs import messages


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Mounted]:
    return mounted(database_url)


@pytest.fixture
async def host(server: str, database_url: str) -> AsyncIterator[Host]:
    async with hosting(server, fastapi_host(mounted(database_url))) as started:
        yield started


def notes(host: Host, name: str = "notes") -> str:
    return host.socket_url(f"/collab/yjs/{name}")


async def get(host: Host, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(host.url(path), **options)


async def test_two_editors_meet_and_what_they_type_is_stored(host: Host, connection: asyncpg.Connection) -> None:
    ann = await Editor.open_synced(notes(host))
    ben = await Editor.open_synced(notes(host))
    await ann.type("Hello")
    await ben.shows("Hello")
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 1
    await ben.type(", Ann")
    await ann.shows("Hello, Ann")
    await ann.show(1)
    await ben.sees(ann.doc.client_id, '{"name":"Ann"}')
    await ann.leave()
    await ben.sees(ann.doc.client_id, None)
    await ben.leave()
