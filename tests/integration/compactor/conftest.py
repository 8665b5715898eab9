"""A database, a child process and short terms, for everything that compacts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from compactor.compaction import Terms
from compactor.worker import Worker
from ydoc_store.storage.pool import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The test's own eyes: not one of the pool's connections."""
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Worker(timeout_s=60) as started:
        yield started


@pytest.fixture
def terms() -> Terms:
    return Terms(timeout_s=60)
