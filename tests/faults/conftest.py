"""A journal, a Postgres that survives its crashes, and stock editors, for every row of the fault table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.journal import Journal
from tests.faults.standby import DATABASE, PRIMARY_SETTINGS, Pair, Switch, followed
from tests.interop.editors import Editors, editing
from tests.nodes import Node, running_node
from tests.postgres import Cluster, running_cluster
from tests.stored import connecting

if TYPE_CHECKING:
    from tests.stored import Connection


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as opened:
        yield opened


@pytest.fixture
async def editors() -> AsyncIterator[Editors]:
    async with editing() as started:
        yield started


@pytest.fixture(scope="session")
def durable_cluster() -> Iterator[Cluster]:
    """A Postgres that syncs to disk, which no test kills: what died is what used it."""
    with running_cluster(durable=True) as started:
        started.create_template()
        yield started


@pytest.fixture
def durable_url(durable_cluster: Cluster) -> Iterator[str]:
    """A database of this test's own on it."""
    name = durable_cluster.create_database()
    yield durable_cluster.url(name)
    durable_cluster.drop_database(name)


@pytest.fixture
def mortal_cluster() -> Iterator[Cluster]:
    """A Postgres of this test's own, to be killed: it syncs to disk. Its database is `url("migrated")`."""
    with running_cluster(durable=True) as started:
        started.create_template()
        yield started


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """The test's own eyes, and its hand on rows."""
    async with connecting(database_url) as opened:
        yield opened


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    """A node in this process that closes a room as soon as nobody is in it."""
    async with running_node(database_url, room_idle_s=0) as started:
        yield started


@pytest.fixture
async def pair(start_cluster: Callable[..., Cluster]) -> AsyncIterator[Pair]:
    primary = start_cluster(durable=True, settings=PRIMARY_SETTINGS)
    primary.create_template()
    async with followed(primary, apply_delay="1s") as (standby, line), Switch(primary.url(DATABASE)) as switch:
        yield Pair(primary, standby, line, switch)
