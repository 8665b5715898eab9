"""What every test may ask for. Databases are real ones; only tests that ask for one start a Postgres."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import service
from tests.postgres import Cluster, parent_folder, running_cluster

TESTS = Path(__file__).parent

# A machine that is busy for a moment has found no bug.
hypothesis.settings.register_profile("whenever", deadline=None)
hypothesis.settings.load_profile("whenever")

# Of `pytest -n auto`: much of what the tests take is waiting, for processes and for time-outs.
WORKERS_A_CORE = 2
# From so many on, one a core is enough.
WORKERS_ENOUGH = 8
# Files that take long come first, so that no worker is left alone with one; what is not named here comes between.
FIRST, LAST = ("simulation", "seeded_bugs", "faults", "interop"), ("properties", "unit")


# Whose tests rest on Postgres's own ways: locks, snapshots, plans, notifications. One of its majors after another
# may change those; what is above them sees the same rows.
EACH_POSTGRES = {"storage", "fanout", "compactor"}


def pytest_xdist_auto_num_workers() -> int | None:
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, min(WORKERS_A_CORE * cores, WORKERS_ENOUGH))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).parts[0]))
    for item in items:
        if item.path.parent.parent == TESTS / "integration" and item.path.parent.name in EACH_POSTGRES:
            item.add_marker("pg15")


def _place(folder: str) -> int:
    if folder in FIRST:
        return FIRST.index(folder) - len(FIRST)
    return LAST.index(folder) + 1 if folder in LAST else 0


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


@pytest.fixture(scope="module")
def module_database_url(cluster: Cluster) -> Iterator[str]:
    """A migrated database for one service that all tests of a module share, each with documents of its own."""
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
    return service.free_port()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder in a short path that every account may enter, unlike pytest's `tmp_path`; in memory if possible."""
    with _open_folder(parent_folder(durable=False)) as folder:
        yield folder


@pytest.fixture
def open_folder_on_disk() -> Iterator[Path]:
    """Likewise, for what takes more than memory should give, or belongs on the disk."""
    with _open_folder(parent_folder(durable=True)) as folder:
        yield folder


@contextmanager
def _open_folder(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir=parent))
    folder.chmod(0o755)
    yield folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
