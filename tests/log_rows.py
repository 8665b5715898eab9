"""Log rows for tests of what comes after the append: written as the appender writes them, without one.

Also a writer whose edits are real Yjs updates, and the text that a set of updates shows.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pycrdt import Doc, Text, TransactionEvent

from ydoc_store.storage.loader import StoredDocument
from ydoc_store.yjs.lib0 import frames, join_frames
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
_markers = itertools.count(RESERVED_CLIENT_ID_MIN)

INSERT_DOCUMENT = """
INSERT INTO ydoc.documents (tenant, name, marker, keep_deleted) VALUES ($1, $2, $3, $4) RETURNING id
"""
ADVANCE = """
UPDATE ydoc.documents
SET head = head + $2, accepted_rows = accepted_rows + $3, accepted_bytes = accepted_bytes + $4, changed_at = now()
WHERE id = $1
RETURNING head - $2
"""


class Writer:
    """One editor's document; `type` and `delete` return the update that the editor would send.

    Positions count UTF-8 bytes, as pycrdt has it: one inside a character makes an update that no editor sends.
    """

    def __init__(self, client_id: int = 1):
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self.text = self.doc.get("text", type=Text)
        self._sent: list[bytes] = []
        self._subscription = self.doc.observe(self._note)

    def _note(self, event: TransactionEvent) -> None:
        self._sent.append(event.update)

    def type(self, text: str, at: int | None = None) -> bytes:
        self.text.insert(len(self.text) if at is None else at, text)
        return self._sent.pop()

    def delete(self, start: int, end: int) -> bytes:
        del self.text[start:end]
        return self._sent.pop()

    def type_each(self, text: str) -> list[bytes]:
        """One update a character, as a keyboard makes them."""
        return [self.type(character) for character in text]

    def receive(self, updates: Iterable[bytes]) -> None:
        for update in updates:
            self.doc.apply_update(update)
        self._sent.clear()


def text_of(updates: Sequence[bytes]) -> str:
    """What an editor shows once it has loaded these, in one apply."""
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    doc.apply_update(merge(updates))
    return str(text)


def text_stored(stored: StoredDocument) -> str:
    """What an editor shows once it has loaded this document."""
    held = [stored.snapshot.bytes] if stored.snapshot is not None and stored.snapshot.bytes else []
    return text_of([*held, *(update for row in stored.tail for update in frames(row.frames))])


def trace(name: str) -> tuple[list[bytes], str]:
    """A real editing history: its updates and the text it ends with; the test is skipped where it is not there."""
    path = TRACES / f"{name}.yupdates.gz"
    if not path.exists():
        pytest.skip(f"absent: the editing histories beside this checkout ({path.parent})")
    updates = list(frames(gzip.decompress(path.read_bytes())))
    return updates, (TRACES / f"{name}.txt").read_text(encoding="utf-8")


async def create_document(
    connection: asyncpg.Connection[asyncpg.Record],
    name: str = "doc",
    *,
    tenant: str = "t",
    keep_deleted: bool = False,
) -> int:
    """A document without updates; its id."""
    created: int = await connection.fetchval(INSERT_DOCUMENT, tenant, name, next(_markers), keep_deleted)
    return created


async def append(
    connection: asyncpg.Connection[asyncpg.Record],
    document_id: int,
    updates: Sequence[bytes],
    *,
    a_row: int = 1,
    actor: str | None = None,
) -> int:
    """Append the updates, `a_row` of them to a row, in one transaction; the new head."""
    rows = [updates[at : at + a_row] for at in range(0, len(updates), a_row)]
    async with connection.transaction():
        seq: int = await connection.fetchval(ADVANCE, document_id, len(updates), len(rows), sum(map(len, updates)))
        await connection.copy_records_to_table(
            "updates",
            schema_name="ydoc",
            columns=["document_id", "seq", "count", "actor", "frames"],
            records=list(_records(document_id, seq, rows, actor)),
        )
    return seq + len(updates)


def _records(
    document_id: int, seq: int, rows: Sequence[Sequence[bytes]], actor: str | None
) -> Iterator[tuple[int, int, int, str | None, bytes]]:
    for row in rows:
        seq += len(row)
        yield document_id, seq, len(row), actor, join_frames(row)
