"""Load for the fault laboratory: stock editors in pairs, one that types markers and one that sees them.

What is typed and what is seen goes to a journal, by the editors' own process. Whether it was kept is the oracle's
question; whether somebody is served, and how soon, is asked here.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.faults.journal import Entry, Journal
from tests.interop.editors import Editor, Editors

EVERY_MS = 2
SERVED_TIMEOUT_S = 60.0
LOOK_PAUSE_S = 0.01


class Load:
    """Pairs by document; a document may have several."""

    def __init__(self, editors: Editors, journal: Journal, *, every_ms: int = EVERY_MS) -> None:
        self.journal = journal
        self.by_document: dict[str, list[Editor]] = {}
        self._editors = editors
        self._every_ms = every_ms

    async def enter(self, document: str, writer_at: str, reader_at: str | None = None) -> Editor:
        """Another pair, which types at once; `…_at` are services' URLs. Returns its reader."""
        pair = self.by_document.setdefault(document, [])
        writer = await self._editors.open(writer_at, document)
        reader = await self._editors.open(reader_at or writer_at, document)
        await reader.note_seen(self.journal.path)
        await writer.keep_marking(self.journal.path, f"w{len(pair)}", self._every_ms)
        pair += [writer, reader]
        return reader

    async def shows(self, document: str, length: int) -> None:
        """Returns once the document's first reader shows so many letters."""
        await self.by_document[document][1].ask("untilLength", length=length, timeout_s=SERVED_TIMEOUT_S)

    async def stop_typing(self) -> None:
        for editors in self.by_document.values():
            for editor in editors:
                await editor.stop_typing()

    async def leave(self, *documents: str) -> None:
        """These editors are gone for good, and with them whatever they alone have."""
        for document in documents or tuple(self.by_document):
            for editor in self.by_document.pop(document):
                await editor.leave()

    async def served_after_now(self, document: str) -> float:
        """How long from now until something that is typed from now on was seen by another, in seconds."""
        now_s, begin = time.time(), self.journal.end
        async with asyncio.timeout(SERVED_TIMEOUT_S):
            while not (seen := _seen(self.journal.entries(begin), document)):  # noqa: ASYNC110 # in another process
                await asyncio.sleep(LOOK_PAUSE_S)
        return seen[0].at_s - now_s


def _seen(entries: list[Entry], document: str) -> list[Entry]:
    own = [entry for entry in entries if entry.document == document]
    tried = {entry.marker for entry in own if entry.kind == "attempted"}
    return [entry for entry in own if entry.kind == "acked" and entry.marker in tried]


def journal_beside(journal: Journal, name: str) -> Journal:
    """Another one, for documents that are looked at by themselves."""
    return Journal(Path(f"{journal.path}-{name}"))
