"""Who has a tail, found without reading the log."""

from __future__ import annotations

import json
from typing import TypeAlias

import asyncpg

from tests.log_rows import Writer, append, create_document
from tests.statements import prepare_all
from ydoc_store.storage import backlog
from ydoc_store.storage.backlog import FIND_BACKLOGS, find_backlogs, read_backlog
from ydoc_store.storage.pool import Database
from ydoc_store.storage.quarantine import record_failure
from ydoc_store.storage.snapshots import NewSnapshot, take_over

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, backlog) == ["FIND_BACKLOGS", "READ_BACKLOG"]


async def test_rows_bytes_and_age_are_those_behind_the_snapshot(database: Database, connection: Connection) -> None:
    document_id = await create_document(connection)
    writer = Writer()
    first, second = writer.type_each("ab"), writer.type_each("cde")
    await append(connection, document_id, first)
    await take_over(
        connection,
        NewSnapshot(document_id, 2, b"x" * 40, b"\0", b"\0", 2, sum(map(len, first)), "fold"),
        0,
        keep_base=True,
    )
    await connection.execute("DELETE FROM ydoc.updates")
    await append(connection, document_id, second, a_row=2)
    await connection.execute("UPDATE ydoc.updates SET accepted_at = now() - interval '1 hour' WHERE seq = 4")
    (found,) = (await find_backlogs(database, 0, 10)).backlogs
    assert (found.document_id, found.rows, found.bytes) == (document_id, 2, sum(map(len, second)))
    assert 3_600 <= found.age_s < 3_700
    assert 40 <= found.snapshot_bytes < 50
    assert await read_backlog(connection, document_id) is not None


async def test_an_age_is_never_negative_whatever_clock_dated_the_row(
    database: Database, connection: Connection
) -> None:
    await append(connection, await create_document(connection), Writer().type_each("a"))
    await connection.execute("UPDATE ydoc.updates SET accepted_at = now() + interval '1 hour'")
    assert [found.age_s for found in (await find_backlogs(database, 0, 10)).backlogs] == [0.0]


async def test_pages_reach_every_document_once_and_leave_out_the_deleted(
    database: Database, connection: Connection
) -> None:
    ids = []
    for number in range(7):
        ids.append(await create_document(connection, f"doc {number}"))
        await append(connection, ids[-1], Writer().type_each("abc"))
    empty = await create_document(connection, "without a tail")
    await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = ANY($1)", ids[2:4])
    await record_failure(connection, ids[5], "no", 1)
    seen, after_id = [], 0
    while True:
        page = await find_backlogs(database, after_id, 2)
        seen += [(found.document_id, found.quarantined) for found in page.backlogs]
        if page.next_after_id is None:
            break
        after_id = page.next_after_id
    assert seen == [(i, i == ids[5]) for i in ids if i not in ids[2:4]]
    assert await read_backlog(connection, empty) is None
    assert await read_backlog(connection, ids[2]) is None


async def test_the_log_is_probed_once_a_document_and_never_scanned(connection: Connection) -> None:
    updates = Writer().type_each("x" * 2_000)
    for number in range(5):
        await append(connection, await create_document(connection, f"doc {number}"), updates)
    await connection.execute("VACUUM ANALYZE ydoc.updates, ydoc.documents, ydoc.snapshots")
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {FIND_BACKLOGS}", 0, 100)
    touched = [node for node in _nodes(json.loads(plan)[0]["Plan"]) if node.get("Relation Name") == "updates"]
    assert {node["Node Type"] for node in touched} <= {"Index Scan", "Index Only Scan"}
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in touched) <= 15


def _nodes(plan: dict[str, object]) -> list[dict[str, object]]:
    children = plan.get("Plans", [])
    assert isinstance(children, list)
    return [plan, *(node for child in children for node in _nodes(child))]
