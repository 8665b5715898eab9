"""The Python client among the editors of the fault laboratory: what it types, what it was told is saved, its ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from pycrdt import Text

from tests.nodes import Node
from tests.waiting import TIMEOUT_S, until
from ydoc_store.client import ClientError, Document, connect
from ydoc_store.names import HOCUSPOCUS_PATH


@dataclass
class Agent:
    """One document that is open. `connects` counts its connections, from the first on."""

    document: Document
    connects: Callable[[], int]
    _stack: contextlib.AsyncExitStack

    @property
    def root(self) -> Text:
        return self.document.ydoc.get("text", type=Text)

    @property
    def text(self) -> str:
        return str(self.root)

    async def type(self, words: str) -> None:
        """Returns when it was told that they are saved."""
        self.root.insert(len(self.root), words)
        await self.document.saved(timeout_s=TIMEOUT_S)

    async def shows(self, words: str) -> None:
        await self.document.wait_for(lambda _ydoc: self.text == words, timeout_s=TIMEOUT_S)

    async def is_back(self, connects: int) -> None:
        """Returns once it is in sync again, over a later connection than so many."""
        await until(lambda: self.connects() > connects and self.document.is_connected)

    async def ended(self) -> ClientError | None:
        await self.document.wait_ended()
        return self.document.ended

    async def state(self) -> bytes:
        return self.document.ydoc.get_update()

    async def leave(self) -> None:
        await self._stack.aclose()


async def open_agent(node: Node, name: str) -> Agent:
    asked: list[None] = []

    async def token() -> str:
        asked.append(None)
        return ""

    stack = contextlib.AsyncExitStack()
    url = f"ws://127.0.0.1:{node.port}{HOCUSPOCUS_PATH}"
    document = await stack.enter_async_context(connect(url, name, token=token, timeout_s=TIMEOUT_S))
    return Agent(document, lambda: len(asked), stack)
