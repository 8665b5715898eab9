"""`history` and `export --at-seq`: where in the log something happened, and the document as it was there."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from tests.commands import Run, runner
from tests.log_rows import Writer, text_of
from tests.statements import prepare_all
from ydoc_store.storage import history
from ydoc_store.storage.documents import find_document
from ydoc_store.storage.history import read_at, read_history
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import frame


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(database_url, monkeypatch)


@pytest.fixture
def texts(run: Run) -> list[str]:
    """What the document `plan` shows at each seq: typed, compacted twice, and with a tail; its third part vanishes."""
    writer = Writer()
    shown = [""]

    def store(updates: list[bytes]) -> None:
        ran = run("import", "plan", "-", stdin=b"".join(map(frame, updates)))
        assert ran.code == 0, ran.err

    for word in ("one ", "two ", "three "):
        store([*writer.type_each(word)])
        shown += [shown[-1] + word[:at] for at in range(1, len(word) + 1)]
        if word != "three ":
            assert run("compact", "plan").code == 0
    store([writer.delete(4, 8)])
    shown.append("one three ")
    return shown


async def test_every_statement_is_one_that_postgres_accepts(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await prepare_all(connection, history) == ["READ_NEWEST_ROWS", "READ_SEGMENT_BEFORE"]
    await connection.close()


async def test_rows_come_newest_first_through_tail_and_history_and_any_seq_can_be_exported(
    run: Run, texts: list[str], database: Database
) -> None:
    everything = (await asyncio.to_thread(run, "history", "plan", "--limit", "1000", "--json")).rows
    ends = [row["seq"] for row in everything]
    assert ends[0] == len(texts) - 1
    assert [row["seq"] - row["count"] for row in everything] == [*ends[1:], 0]
    assert sum(row["written"] for row in everything) == len("one two three ")
    assert [row["deleted"] for row in everything if row["deleted"]] == [4]
    assert everything[0]["deleted"] == 4, "where the text vanished"
    document = await find_document(database, "default", "plan")
    assert document is not None
    for at, seq in enumerate(ends):
        for limit in range(1, len(ends) + 1):
            part = await read_history(database, document.id, until_seq=seq, limit=limit)
            assert [change.seq for change in part] == ends[at : at + limit]
        assert text_of((await read_at(database, document.id, seq)).updates()) == texts[seq]
    exported = await asyncio.to_thread(run, "export", "plan", "--at-seq", "3", "--format", "json")
    assert json.loads(exported.out) == {"text": "one"}
    beyond = await asyncio.to_thread(run, "export", "plan", "--at-seq", str(len(texts)))
    assert (beyond.code, f"ends at seq {len(texts) - 1}" in beyond.err) == (2, True)
