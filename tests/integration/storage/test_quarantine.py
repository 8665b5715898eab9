"""Failures are counted, and at the limit the document is left alone until it is released."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

from tests.log_rows import create_document
from tests.statements import prepare_all
from ydoc_store.storage import quarantine
from ydoc_store.storage.documents import find_document
from ydoc_store.storage.pool import Database
from ydoc_store.storage.quarantine import (
    REASON_CHARACTERS_MAX,
    Counted,
    clear_failures,
    count_quarantined,
    record_failure,
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def counted_as(failures: int, *, quarantined: bool = False) -> Counted:
    return Counted(failures, quarantined)


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, quarantine) == [
        "CLEAR_FAILURES",
        "COUNT_QUARANTINED",
        "RECORD_FAILURE",
    ]


async def test_the_third_failure_quarantines_and_the_last_reason_is_the_one_shown(
    database: Database, connection: Connection
) -> None:
    document_id = await create_document(connection)
    counted = [await record_failure(connection, document_id, f"reason {n}", 3) for n in (1, 2, 3, 4)]
    assert counted == [counted_as(1), counted_as(2), counted_as(3, quarantined=True), counted_as(4, quarantined=True)]
    shown = await find_document(database, "t", "doc")
    assert shown is not None
    assert (shown.failures, shown.failure_reason) == (4, "reason 4")
    assert shown.quarantined_at is not None
    assert await count_quarantined(database) == 1


async def test_with_a_limit_of_one_the_first_failure_quarantines(connection: Connection) -> None:
    assert await record_failure(connection, 7, "no", 1) == counted_as(1, quarantined=True)


async def test_a_cleared_document_has_no_failures_and_counts_from_one_again(
    database: Database, connection: Connection
) -> None:
    document_id = await create_document(connection)
    await record_failure(connection, document_id, "no", 1)
    assert await clear_failures(connection, document_id)
    assert not await clear_failures(connection, document_id)
    shown = await find_document(database, "t", "doc")
    assert shown is not None
    assert (shown.failures, shown.failure_reason, shown.quarantined_at) == (0, None, None)
    assert await count_quarantined(database) == 0
    assert await record_failure(connection, document_id, "no", 3) == counted_as(1)


async def test_a_reason_of_any_length_is_cut_to_what_an_operator_reads(
    database: Database, connection: Connection
) -> None:
    await record_failure(connection, await create_document(connection), "x" * 100_000, 3)
    shown = await find_document(database, "t", "doc")
    assert shown is not None
    assert len(shown.failure_reason or "") == REASON_CHARACTERS_MAX
