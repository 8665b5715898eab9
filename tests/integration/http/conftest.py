"""A site on a database of the test's own, somebody who asks it, and a compactor that comes when it is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Worker
from tests.integration.http.shape_reader import Shape
from tests.sites import Site, running_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url) as started:
        yield started


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as opened:
        yield opened


@pytest.fixture
async def quick(database_url: str) -> AsyncIterator[Site]:
    """One whose long polls are short."""
    async with running_site(database_url, long_poll_timeout_s=0.3) as started:
        yield started


@pytest.fixture
def shape(client: httpx.AsyncClient) -> Shape:
    return Shape(client)


@pytest.fixture
async def compacted(site: Site) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Compacts an open document; returns up to which seq its snapshot reaches, which the site knows then."""
    async with Worker(timeout_s=60) as worker:

        async def run(name: str = "notes") -> int:
            room = site.room(name)
            assert room.document_id is not None
            done = await compact(site.database, worker, room.document_id, Terms(timeout_s=60), forced=True)
            assert isinstance(done, Compacted), done
            site.service.rooms.snapshots.forget(room)
            return room.head

        yield run
