"""A site on a database of the test's own, and somebody who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.sites import Site, running_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url) as started:
        yield started


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as opened:
        yield opened
