"""Real editing histories, compacted again and again while they are appended: the text is that of the history."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TypeAlias

import asyncpg
import pytest

from compactor.compaction import Compacted, Terms, compact
from compactor.policy import CompactionPolicy
from compactor.worker import Worker
from tests.log_rows import append, create_document, text_of, text_stored, trace
from ydoc_store.storage.loader import read_after
from ydoc_store.storage.pool import Database
from ydoc_store.storage.segments import replay
from ydoc_store.storage.verification import verify_document

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.mark.parametrize("name", ["friendsforever", "json-crdt-patch", "sveltecomponent"])
async def test_a_history_compacted_while_it_is_appended_ends_with_its_text_and_can_be_replayed(
    database: Database, connection: Connection, worker: Worker, terms: Terms, name: str
) -> None:
    updates, text = trace(name)
    dice = random.Random(name)
    document_id = await create_document(connection)
    busy = replace(terms, policy=CompactionPolicy(tail_rows=1), run_rows_max=700)
    at = runs = 0
    while at < len(updates):
        count = dice.choice([1, 300, 2_000, 4_000])
        await append(connection, document_id, updates[at : at + count], a_row=dice.choice([1, 3, 20]))
        at += count
        outcome = await compact(database, worker, document_id, busy)
        runs += isinstance(outcome, Compacted) and outcome.run.way == "fold"
    assert runs > 5

    stored = await read_after(database, document_id, 0)
    assert stored.snapshot is not None
    assert text_stored(stored) == text
    verified = await verify_document(database, document_id)
    assert verified is not None
    assert (verified.findings, verified.pending) == ([], False)

    for seq in (1, len(updates) // 3, len(updates) - 1):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            replayed = await replay(connection, document_id, seq)
        assert text_of(replayed.updates()) == text_of(updates[:seq])
