"""What verification finds: nothing in a sound document, and each kind of damage under the promise it breaks."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import pytest

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Worker
from tests.log_rows import Writer, append, create_document
from tests.statements import prepare_all
from ydoc_store.storage import verification
from ydoc_store.storage.pool import Database
from ydoc_store.storage.verification import Verified, verify_document

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def document_id(database: Database, connection: Connection) -> int:
    """A document with a base, two segments, a snapshot and a tail of three rows: seqs 1-3, 4-6, and 7-12."""
    created = await create_document(connection)
    writer = Writer()
    async with Worker(timeout_s=60) as worker:
        for text in ("abc", "def"):
            await append(connection, created, writer.type_each(text))
            assert isinstance(await compact(database, worker, created, Terms(), forced=True), Compacted)
    await append(connection, created, [*writer.type_each("ghijk"), writer.delete(0, 2)], a_row=2)
    return created


async def broken(database: Database, document_id: int) -> list[tuple[str, str]]:
    verified = await verify_document(database, document_id)
    assert verified is not None
    return [(finding.promise, finding.text) for finding in verified.findings]


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, verification) == [
        "READ_HEAD",
        "READ_ROWS",
        "READ_SEGMENTS",
        "READ_SNAPSHOTS",
    ]


async def test_a_sound_document_has_no_findings(database: Database, document_id: int) -> None:
    assert await verify_document(database, document_id) == Verified(
        document_id, head=12, tail_rows=3, updates=6, segments=2, pending=False, findings=[]
    )


async def test_a_document_that_is_gone_is_told_as_such(database: Database, document_id: int) -> None:
    assert await verify_document(database, document_id + 1) is None


async def test_updates_that_wait_for_predecessors_are_told_and_are_no_fault(
    database: Database, connection: Connection
) -> None:
    gapped = await create_document(connection)
    first, _missing, third = Writer().type_each("abc")
    await append(connection, gapped, [first, third])
    verified = await verify_document(database, gapped)
    assert verified is not None
    assert (verified.pending, verified.findings) == (True, [])


@pytest.mark.parametrize(
    ("damage", "promise", "text"),
    [
        ("DELETE FROM ydoc.updates WHERE seq = 10", "I3", "row 12 begins at 10 and not at 8"),
        ("DELETE FROM ydoc.updates WHERE seq = 12", "I6", "the log ends at 10 and the head is 12"),
        ("UPDATE ydoc.documents SET head = 13", "I6", "the log ends at 12 and the head is 13"),
        ("UPDATE ydoc.documents SET accepted_rows = 8", "I3", "the tail has 3 rows and the counters say 2"),
        ("UPDATE ydoc.documents SET accepted_bytes = accepted_bytes + 1", "I3", "the counters say"),
        ("UPDATE ydoc.updates SET frames = '\\x0101' WHERE seq = 8", "I3", "row 8 holds 1 updates and says 2"),
        ("UPDATE ydoc.updates SET frames = '\\x0201' WHERE seq = 8", "I14", "row 8 does not hold whole frames"),
        ("UPDATE ydoc.updates SET frames = '\\x01010101' WHERE seq = 8", "I14", "update 7 does not decode"),
        ("UPDATE ydoc.snapshots SET bytes = '\\x00' WHERE superseded_at IS NULL", "I14", "does not decode"),
        ("UPDATE ydoc.snapshots SET state_vector = '\\x00'", "I6", "another state vector"),
        ("UPDATE ydoc.snapshots SET delete_set = '\\x01'", "I6", "another delete set"),
        ("DELETE FROM ydoc.snapshots WHERE superseded_at IS NULL", "I6", "no current one"),
        (
            "DELETE FROM ydoc.segments WHERE through_seq = 3; DELETE FROM ydoc.snapshots WHERE through_seq = 3",
            "I9",
            "neither a base nor another segment",
        ),
        ("UPDATE ydoc.segments SET bytes = '\\x02'", "I9", "unknown format"),
        ("UPDATE ydoc.segments SET raw_bytes = 1", "I9", "holds 3 rows through"),
    ],
)
async def test_damage_is_found_under_the_promise_that_it_breaks(
    database: Database, connection: Connection, document_id: int, damage: str, promise: str, text: str
) -> None:
    await connection.execute(damage)
    findings = await broken(database, document_id)
    assert any(found == promise and text in told for found, told in findings), findings


async def test_a_merged_row_that_is_still_in_the_log_is_found(
    database: Database, connection: Connection, document_id: int
) -> None:
    await connection.execute(
        "INSERT INTO ydoc.updates (document_id, seq, count, frames) VALUES ($1, 6, 1, '\\x0100')", document_id
    )
    findings = await broken(database, document_id)
    assert ("I8", "1 rows are still there that the snapshot through 6 holds") in findings
