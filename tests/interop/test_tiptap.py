"""Tiptap, its stock Collaboration and caret extensions and the stock HocuspocusProvider, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.editors import Editor, Editors, editing
from tests.service import Service, serving

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# Starting a browser on a busy machine.
STARTED_WITHIN_S = 90.0


@pytest.fixture
async def browser() -> AsyncIterator[Editors]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip("absent: chromium (apt-get install chromium, or CHROMIUM=/path/to/it)")
    async with editing("browser.mjs") as started:
        yield started


async def open_page(browser: Editors, service: Service, user: str) -> Editor:
    url = service.url.removesuffix("/yjs") + "/hocuspocus"
    return await browser.open(url, "page", user, user=user, timeout_s=STARTED_WITHIN_S)


async def shows(page: Editor, text: str) -> None:
    await page.ask("untilShows", text=text, timeout_s=70)


async def test_tiptap_shows_who_types_what_and_where_and_what_it_calls_saved_is_in_postgres(
    tmp_path: Path, database_url: str, browser: Editors
) -> None:
    """I1, I2."""
    async with serving(tmp_path, database_url=database_url) as service:
        ann = await open_page(browser, service, "Ann")
        ben = await open_page(browser, service, "Ben")
        await ann.type("Hello")
        await shows(ben, "Hello")
        await ben.ask("untilCarets", users=["Ann"])
        await ben.type("Well: ")
        await shows(ann, "Well: Hello")
        await ann.ask("untilCarets", users=["Ben"])
        await ann.saved()
        await ben.saved()
        # Typed while the service is away.
        await service.kill()
        for page in (ann, ben):
            await page.ask("untilDisconnected")
        await ann.type(", Ben")
        assert (await ann.ask("unsynced"))["number"] > 0
        await service.restart()
        await shows(ben, "Well: Hello, Ben")
        await ann.saved()
        await ann.ask("untilCarets", users=["Ben"])
        await service.kill()
        await browser.close()
    async with serving(tmp_path, database_url=database_url) as service, editing("browser.mjs") as another:
        await shows(await open_page(another, service, "Eve"), "Well: Hello, Ben")
