"""A child process and short terms, for everything that compacts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from compactor.compaction import Terms
from compactor.worker import Worker


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Worker(timeout_s=60) as started:
        yield started


@pytest.fixture
def terms() -> Terms:
    return Terms(timeout_s=60)
