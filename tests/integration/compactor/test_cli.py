"""`ydoc-compactor` as a process: once, run, explain, and killed with -9 at each step."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any, TypeAlias

import asyncpg
import pytest

from tests.log_rows import Writer, append, create_document
from tests.waiting import until
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.pool import Database
from ydoc_store.storage.verification import verify_document

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SCRIPT = "from compactor.cli import main; main()"
BEFORE_COMMIT = ["after-read", "after-fold", "after-insert", "after-delete", "before-commit"]


async def start(database_url: str, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
    named = {f"YDOC_{name.upper()}": value for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        *arguments,
        "--database-url",
        database_url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "YDOC_COMPACT_TAIL_ROWS": "3", **named},
    )


async def run(database_url: str, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
    process = await start(database_url, *arguments, **settings)
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def a_document(connection: Connection, text: str = "abcdef", name: str = "notes") -> int:
    document_id = await create_document(connection, name, tenant=DEFAULT_TENANT)
    await append(connection, document_id, Writer().type_each(text))
    return document_id


async def counts(connection: Connection) -> tuple[int, ...]:
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM ydoc.updates), (SELECT count(*) FROM ydoc.snapshots), "
        "(SELECT count(*) FROM ydoc.segments), (SELECT count(*) FROM ydoc.compactions)"
    )
    assert row is not None
    return tuple(row)


async def test_once_compacts_what_is_due_and_reports_one_object_a_sweep(
    database_url: str, connection: Connection
) -> None:
    await a_document(connection)
    code, stdout, stderr = await run(database_url, "once", "--json")
    assert code == 0, stderr
    reports = [json.loads(line) for line in stdout.splitlines()]
    assert [(report["due"], report["compacted"]) for report in reports] == [(1, 1)]
    assert await counts(connection) == (0, 1, 1, 1)


async def test_once_ends_with_1_where_a_document_failed(database_url: str, connection: Connection) -> None:
    await a_document(connection)
    await connection.execute("DELETE FROM ydoc.updates WHERE seq = 3")
    code, _stdout, stderr = await run(database_url, "once")
    assert code == 1
    assert "the log has a hole" in stderr


@pytest.mark.parametrize("step", BEFORE_COMMIT)
async def test_a_compactor_killed_before_its_commit_had_no_effect_and_the_next_run_succeeds(
    database_url: str, database: Database, connection: Connection, step: str
) -> None:
    document_id = await a_document(connection)
    code, _stdout, _stderr = await run(database_url, "once", failpoints=f"compaction.{step}=kill")
    assert code == -signal.SIGKILL
    await until_only_ours(connection)
    assert await counts(connection) == (6, 0, 0, 0)
    assert (await run(database_url, "once"))[0] == 0
    assert await counts(connection) == (0, 1, 1, 1)
    verified = await verify_document(database, document_id)
    assert verified is not None
    assert verified.findings == []


async def test_a_compactor_killed_after_its_commit_had_its_whole_effect(
    database_url: str, connection: Connection
) -> None:
    await a_document(connection)
    code, _stdout, _stderr = await run(database_url, "once", failpoints="compaction.after-commit=kill")
    assert code == -signal.SIGKILL
    assert await counts(connection) == (0, 1, 1, 1)


async def test_run_sweeps_until_it_is_told_to_end(database_url: str, connection: Connection) -> None:
    await a_document(connection)
    process = await start(database_url, "run", sweep_interval_s="0.1", sweep_jitter_s="0", log_format="json")

    async def compacted() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM ydoc.snapshots"))

    try:
        await until(compacted)
        process.terminate()
        async with asyncio.timeout(60):
            _stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, stderr.decode()
    told = [json.loads(line) for line in stderr.splitlines()]
    assert (told[0]["event"], told[0]["interval_s"]) == ("sweeping", 0.1)


async def test_explain_tells_the_verdict_the_sizes_and_the_last_runs(database_url: str, connection: Connection) -> None:
    await a_document(connection)
    before = await explained(database_url)
    assert (before["due"], before["reason"]) == (True, "rows: 6 of 3")
    assert (before["tail_rows"], before["runs"]) == (6, [])
    await run(database_url, "once")
    after = await explained(database_url)
    assert (after["due"], after["reason"]) == (False, "the tail is empty")
    assert [(made["result"], made["way"], made["rows_merged"]) for made in after["runs"]] == [("done", "fold", 6)]
    code, stdout, _stderr = await run(database_url, "explain", "notes")
    assert code == 0
    assert "the tail is empty" in stdout


async def test_explain_shows_a_quarantine_with_its_reason(database_url: str, connection: Connection) -> None:
    await a_document(connection)
    await connection.execute("DELETE FROM ydoc.updates WHERE seq = 3")
    await run(database_url, "once", compact_failures_max="1")
    found = await explained(database_url)
    assert (found["due"], found["reason"]) == (False, "quarantined after 1 failure")
    assert "the log has a hole" in found["failure_reason"]


async def test_explaining_an_unknown_document_ends_with_4(database_url: str) -> None:
    code, stdout, stderr = await run(database_url, "explain", "nothing")
    assert (code, stdout) == (4, "")
    assert stderr == "ydoc-compactor: no document is named 'nothing'\n"


async def explained(database_url: str) -> dict[str, Any]:
    code, stdout, stderr = await run(database_url, "explain", "notes", "--json")
    assert code == 0, stderr
    found: dict[str, Any] = json.loads(stdout)
    return found


async def until_only_ours(connection: Connection) -> None:
    """A killed process's backend notices with its next write: until then its locks stand."""

    async def alone() -> bool:
        return bool(
            await connection.fetchval(
                "SELECT count(*) = 0 FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'ydoc-store' AND state <> 'idle'"
            )
        )

    await until(alone)
