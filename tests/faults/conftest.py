"""A journal, a Postgres that survives its crashes, and stock editors, for every row of the fault table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.journal import Journal
from tests.interop.editors import Editors, editing
from tests.postgres import Cluster


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as opened:
        yield opened


@pytest.fixture
async def editors() -> AsyncIterator[Editors]:
    async with editing() as started:
        yield started


@pytest.fixture
def durable(start_cluster: Callable[..., Cluster]) -> Cluster:
    """A Postgres of this test's own that syncs to disk, with one migrated database: `durable.url("migrated")`."""
    cluster = start_cluster(durable=True)
    cluster.create_template()
    return cluster
