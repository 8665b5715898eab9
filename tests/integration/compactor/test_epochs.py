"""Deletion, repair and purge while a compaction of the same document is under way: each as if it had been alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

import asyncpg
import pytest

from compactor.compaction import Compacted, Skipped, Terms, compact
from compactor.fold import fold_document
from compactor.worker import Worker
from tests.compacting import at_step, counts
from tests.interop.yjs_judge import shared_judge
from tests.log_rows import Writer, append, create_document, text_stored
from ydoc_store.commands.repair import prepare
from ydoc_store.errors import StorageBusy
from ydoc_store.storage.epochs import (
    Content,
    delete_document,
    list_epochs,
    purge_document,
    replace_content,
    undelete_document,
)
from ydoc_store.storage.loader import StoredDocument, load
from ydoc_store.storage.past import read_past
from ydoc_store.storage.pool import Database
from ydoc_store.storage.verification import verify_document
from ydoc_store.yjs.lib0 import frames

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
STEPS = ["after-read", "after-insert", "before-commit"]
NOTHING = {"updates": 0, "snapshots": 0, "segments": 0, "compactions": 0}


async def shown(database: Database) -> str:
    stored = await load(database, "t", "doc")
    assert isinstance(stored, StoredDocument)
    return text_stored(stored)


async def repair(database: Database, seq: int) -> None:
    past = await read_past(database, "t", "doc", seq)
    await replace_content(database, "t", "doc", rebuilt(past.updates, past.keep_deleted), epoch=past.current_epoch)


@pytest.mark.parametrize("step", STEPS)
async def test_a_repair_during_a_compaction_reads_the_one_history_or_the_other(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    """I9, I10: replayed from one moment; the compaction ends in the epoch in which it began."""
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("good bad"))

    outcome = await compact(
        database, worker, document_id, at_step(terms, step, lambda: repair(database, 4)), forced=True
    )

    assert isinstance(outcome, Compacted)
    assert await shown(database) == "good"
    old, new = await list_epochs(database, "t", "doc")
    for epoch in (old, new):
        verified = await verify_document(database, epoch.document_id)
        assert verified is not None
        assert verified.findings == []
    assert (await counts(connection, document_id))["segments"] == 1
    assert await compact(database, worker, document_id, terms, forced=True) == Skipped("the tail is empty")
    assert isinstance(await compact(database, worker, new.document_id, terms, forced=True), Compacted)
    assert await shown(database) == "good"


@pytest.mark.parametrize("step", STEPS)
async def test_a_deletion_during_a_compaction_loses_nothing_that_an_undelete_brings_back(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    """I12: neither waits for the other."""
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("kept"))

    async def delete() -> None:
        await delete_document(database, "t", "doc")

    outcome = await compact(database, worker, document_id, at_step(terms, step, delete), forced=True)

    assert isinstance(outcome, Compacted)
    await append(connection, document_id, Writer(2).type_each("!"))
    assert await compact(database, worker, document_id, terms, forced=True) == Skipped("the tail is empty")
    await undelete_document(database, "t", "doc")
    assert set(await shown(database)) == set("kept!")
    assert isinstance(await compact(database, worker, document_id, terms, forced=True), Compacted)


@pytest.mark.parametrize("step", STEPS)
async def test_a_purge_never_leaves_behind_what_a_compaction_was_about_to_write(
    database: Database, connection: Connection, worker: Worker, terms: Terms, step: str
) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, Writer().type_each("secret"))
    refused: list[str] = []

    async def purge() -> None:
        await delete_document(database, "t", "doc")
        with pytest.raises(StorageBusy) as busy:
            await purge_document(database, "t", "doc", replaced_only=False)
        refused.append(str(busy.value))

    assert isinstance(await compact(database, worker, document_id, at_step(terms, step, purge), forced=True), Compacted)

    assert refused == ["a compaction of 'doc' is under way: try again in a moment"]
    purged = await purge_document(database, "t", "doc", replaced_only=False)
    assert (purged.epochs, purged.snapshots, purged.segments) == (1, 1, 1)
    assert await counts(connection, document_id) == NOTHING
    assert await compact(database, worker, document_id, terms, forced=True) == Skipped("the tail is empty")
    assert await counts(connection, document_id) == NOTHING


@pytest.mark.parametrize("seed", range(6))
async def test_a_repair_of_any_history_to_any_seq_is_what_yjs_had_there(
    database: Database, connection: Connection, worker: Worker, terms: Terms, seed: int
) -> None:
    """I9, I10: all shared types, whatever was merged before, and a repair of what a repair made."""
    updates = shared_judge().history(seed).updates
    chance = random.Random(seed)
    document_id = await create_document(connection)
    cut = chance.randrange(1, len(updates))
    await append(connection, document_id, updates[:cut], a_row=chance.randrange(1, 5))
    await compact(database, worker, document_id, terms, forced=True)
    await append(connection, document_id, updates[cut:], a_row=chance.randrange(1, 5))
    for seq in (chance.randrange(1, len(updates)), len(updates)):
        past = await read_past(database, "t", "doc", seq, epoch=1)
        content, repair = prepare(past, rebuilt)
        assert content is not None
        assert shared_judge().difference(updates[:seq], [content.update]) is None
        assert (repair.earliest_seq, repair.updates > 0) == (0, True)
        await replace_content(database, "t", "doc", content, epoch=past.current_epoch)
        stored = await load(database, "t", "doc")
        assert isinstance(stored, StoredDocument)
        assert [list(frames(row.frames)) for row in stored.tail] == [[content.update]]
        verified = await verify_document(database, stored.id)
        assert verified is not None
        assert verified.findings == []
    assert [epoch.epoch for epoch in await list_epochs(database, "t", "doc")] == [1, 2, 3]


def rebuilt(updates: Sequence[bytes], keep_deleted: bool) -> Content:
    folded = fold_document(None, updates, keep_deleted)
    return Content(folded.snapshot, folded.way)
