"""The Python client beside a stock Hocuspocus provider: one document, one presence, through a killed server."""

from __future__ import annotations

from typing import Any

import pytest
from pycrdt import Text

from tests.interop.editors import Editors
from tests.interop.together import ANN, BEN
from tests.service import Service
from tests.waiting import TIMEOUT_S, until
from ydoc_store.client import Document, connect, connection


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKOFF_S_MAX", 0.5)


def text_of(document: Document) -> Text:
    return document.ydoc.get("text", type=Text)


async def shows(document: Document, words: str) -> None:
    await until(lambda: str(text_of(document)) == words)


async def test_two_python_clients_and_a_stock_provider_converge_through_a_kill(
    service: Service, editors: Editors
) -> None:
    url = service.url.removesuffix("/yjs") + "/hocuspocus"
    tab = await editors.open_hocuspocus(url, "team/notes")
    await tab.saved()
    async with connect(url, "team/notes") as agent, connect(url, "team/notes") as job:
        agent.presence.show(BEN)
        await tab.ask("setPresence", presence=ANN)
        await tab.shows_others(BEN)
        await until(lambda: shown(agent) == [ANN])
        await tab.type("one ")
        await shows(agent, "one ")
        text_of(agent).insert(4, "two ")
        await agent.saved(timeout_s=TIMEOUT_S)
        await tab.shows("one two ")
        await service.kill()
        # All of them go on without a server.
        text_of(agent).insert(8, "😀 ")
        text_of(job).insert(0, "zero ")
        await tab.erase(0, 4)
        await service.restart()
        await agent.saved(timeout_s=60)
        await job.saved(timeout_s=60)
        await tab.saved()
        for document in (agent, job):
            await shows(document, "zero two 😀 ")
        await tab.shows("zero two 😀 ")
        await tab.shows_others(BEN)
    await tab.shows_others()


def shown(document: Document) -> list[dict[str, Any]]:
    return list(document.presence.others.values())
