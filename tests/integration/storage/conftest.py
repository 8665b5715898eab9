"""A database for the code under test, and a connection of the test's own beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from ydoc_store.storage.pool import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()
