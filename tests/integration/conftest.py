"""What tests with real processes and real databases may ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from ydoc_store.storage.pool import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of the code under test."""
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
def data_dir(open_folder: Path) -> Path:
    """Where an embedded Postgres may make its data folder; nothing is there yet."""
    return open_folder / "data"


@pytest.fixture
def as_root() -> None:
    """For tests of what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
