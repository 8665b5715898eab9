"""A running service and editors, for everything that talks to stock npm clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.editors import Editors, editing
from tests.service import Service, serving


@pytest.fixture
async def editors() -> AsyncIterator[Editors]:
    async with editing() as started:
        yield started


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    """`ydoc-store serve` on a database of this test's own."""
    async with serving(tmp_path, database_url=database_url) as started:
        yield started


@pytest.fixture
def data_dir(open_folder: Path) -> Path:
    """Where an embedded Postgres may make its data folder; nothing is there yet."""
    return open_folder / "data"
