"""What every test may ask for. Databases are real ones; only tests that ask for one start a Postgres."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.postgres import Cluster, running_cluster

# A machine that is busy for a moment has found no bug.
hypothesis.settings.register_profile("whenever", deadline=None)
hypothesis.settings.load_profile("whenever")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever runs on the shared cluster is worth running on another major as well: `pytest -m pg15`."""
    for item in items:
        if {"cluster", "start_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("pg15")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The Postgres that the tests of this run share: fast, not durable, with a migrated template database."""
    with running_cluster() as started:
        started.create_template()
        yield started


@pytest.fixture(scope="session")
def postgres_url(cluster: Cluster) -> str:
    """The shared Postgres's own database, for tests that make databases themselves."""
    return cluster.url()


@pytest.fixture
def database_url(cluster: Cluster) -> Iterator[str]:
    """A migrated, empty database of this test's own."""
    name = cluster.create_database()
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture
def empty_database_url(cluster: Cluster) -> Iterator[str]:
    """A database of this test's own without our schema."""
    name = cluster.create_database(template="template1")
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., Cluster]]:
    """Starts clusters that a test may stop, kill and start again: `start_cluster(durable=True, settings={…})`.

    A durable one syncs to disk as in production. Its databases come from `create_template`, `create_database`.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> Cluster:
            return stack.enter_context(running_cluster(**options))

        yield start


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder in a short path that every account may enter, unlike pytest's own `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
