"""A node to be a client of, and clients that do not wait long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.nodes import Node, running_node
from ydoc_store.client import connection


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url) as started:
        yield started


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come back soon, and give up a close soon; nothing that is sent waits for time to pass."""
    monkeypatch.setattr(connection, "BACKOFF_S_MAX", 0.3)
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(connection, "TICK_S", 60.0)
