"""The commands as a person runs them: a real Postgres, exit codes and what is told where.

Some are a process of their own (`run_command`, `program`), which takes ten times as long; the others run in this one,
from their entry point on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pycrdt import Doc, Text

from tests.commands import Ran, Run, runner
from tests.postgres import run_apart
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.yjs.lib0 import frame, frames

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def clean_environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YDOC_")}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def run_command(*arguments: str | Path, stdin: bytes = b"", **variables: str) -> Ran:
    command = [sys.executable, "-m", "ydoc_store", *map(str, arguments)]
    finished = subprocess.run(
        command,
        env=clean_environment(**variables),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ran(finished.returncode, finished.stdout, finished.stderr.decode())


@pytest.fixture
def program(database_url: str) -> Run:
    """Runs a command on this test's own database, in a process of its own."""

    def of_this_test(*arguments: str | Path, **options: Any) -> Ran:
        return run_command(*arguments, YDOC_DATABASE_URL=database_url, **options)

    return of_this_test


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on this test's own database."""
    return runner(database_url, monkeypatch)


@pytest.fixture
def run_nowhere(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command where no database answers."""
    return runner(NOWHERE, monkeypatch)


def typed(text: str) -> list[bytes]:
    """The updates of somebody who types this, a character at a time."""
    doc = Doc(client_id=7)
    doc["text"] = into = Text()
    updates = []
    for character in text:
        before = doc.get_state()
        into += character
        updates.append(doc.get_update(before))
    return updates


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "plan.log"
    path.write_bytes(b"".join(frame(update) for update in typed("Grüße 👋")))
    return path


def test_a_document_goes_in_and_comes_out_the_same(program: Run, log: Path, tmp_path: Path) -> None:
    updates = len(list(frames(log.read_bytes())))
    imported = program("import", "notes/plan", log, "--json")
    assert (imported.code, imported.err) == (0, "")
    assert imported.rows == [
        {
            "name": "notes/plan",
            "updates": updates,
            "bytes": log.stat().st_size - updates,
            "accepted": updates,
            "nothing_new": 0,
            "head": updates,
            "deletes_ahead": 0,
        }
    ]
    assert program("export", "notes/plan", "--format", "log").out == log.read_bytes()
    one = tmp_path / "plan.update"
    exported = program("export", "notes/plan", "-o", one)
    assert exported.code == 0
    assert exported.out == b""
    copied = program("import", "copy", "-", stdin=one.read_bytes())
    assert copied.code == 0, copied.err
    for name in ("notes/plan", "copy"):
        content = program("export", name, "--format", "json")
        assert "Grüße 👋" in content.out.decode()


def test_a_whole_document_goes_in_though_no_editor_may_send_so_much_at_once(run: Run) -> None:
    doc: Doc[Any] = Doc()
    doc["text"] = into = Text()
    for number in range(300):
        into.insert(0, str(number % 10))
    for place in range(100):
        del into[place]
    limits = {"YDOC_UPDATE_STRUCTS_MAX": "100", "YDOC_UPDATE_DELETE_RANGES_MAX": "30"}
    imported = run("import", "plan", "-", "--json", stdin=doc.get_update(), **limits)
    assert (imported.code, imported.err) == (0, "")
    assert json.loads(run("export", "plan", "--format", "json").out) == {"text": str(into)}


def test_an_import_that_is_repeated_stores_nothing_twice(run: Run, log: Path) -> None:
    run("import", "plan", log)
    again = run("import", "plan", log, "--json")
    assert again.code == 0
    (row,) = again.rows
    assert (row["accepted"], row["nothing_new"]) == (0, row["updates"])
    assert run("documents", "show", "plan", "--json").rows[0]["head"] == row["updates"]


def test_deletes_of_what_never_came_are_imported_up_to_a_cap_and_with_a_warning(program: Run) -> None:
    """An export holds such deletes where its document does; a range without end would erase all of a client's work."""
    imported = program("import", "plan", "-", "--json", stdin=bytes.fromhex("00 01 07 01 05 64"))
    assert (imported.code, imported.rows[0]["deletes_ahead"]) == (0, 100)
    assert "100 units deleted that never came" in imported.err
    assert program("documents", "show", "plan", "--json").rows[0]["pending"] is True
    refused = program("import", "plan", "-", stdin=bytes.fromhex("00 01 07 01 05 ffffffff03"))
    assert refused.code == 5
    assert "a delete of content that never came" in refused.err
    assert program("documents", "show", "plan", "--json").rows[0]["head"] == 1


@pytest.mark.parametrize("content", [b"", b"\x05abc", b"hello", b"\0\0\0", b"\x00\x00\x01\x01"])
def test_a_file_that_holds_no_updates_is_refused_and_nothing_stored(content: bytes, run: Run) -> None:
    refused = run("import", "plan", "-", stdin=content)
    assert refused.code == 5
    assert "Traceback" not in refused.err
    assert content or "holds no update" in refused.err
    assert run("documents", "list", "--json").rows == []


def test_nothing_of_a_log_with_a_broken_update_is_stored(run: Run, log: Path) -> None:
    refused = run("import", "plan", "-", stdin=log.read_bytes() + frame(b"\1\1\7"))
    assert refused.code == 5
    assert "update 8 of 8" in refused.err
    assert run("documents", "list", "--json").rows == []


def test_compaction_by_hand_changes_what_is_stored_and_not_what_is_read(run: Run, log: Path) -> None:
    run("import", "plan", log)
    before = run("export", "plan", "--format", "json").out
    compacted = run("compact", "plan", "--json")
    assert compacted.code == 0, compacted.err
    assert [(row["name"], row["result"]) for row in compacted.rows] == [("plan", "done")]
    (shown,) = run("documents", "show", "plan", "--json").rows
    assert shown["tail_rows"] == 0
    assert shown["snapshot_bytes"] > 0
    assert shown["history_bytes"] > 0
    assert (shown["pending"], shown["quarantined"], shown["near_limit"]) == (False, False, False)
    assert run("export", "plan", "--format", "json").out == before
    (listed,) = run("documents", "compactions", "plan", "--json").rows
    assert (listed["name"], listed["result"], listed["way"]) == ("plan", "done", "fold")
    again = run("compact", "--all", "--json")
    assert (again.code, again.rows) == (0, [])
    assert again.err == "no document has a tail: nothing to compact\n"
    run("import", "plan", "-", stdin=frame(typed("Grüße 👋!")[-1]))
    more = run("compact", "--all")
    assert more.out.startswith(b"plan: done, 1 row ("), more.out
    assert more.err == "1 document compacted of 1 with a tail\n"
    assert run("verify", "--all").code == 0


def test_a_person_reads_tables_and_messages_go_to_stderr(program: Run, log: Path) -> None:
    program("import", "plan", log)
    listed = program("documents", "list")
    heading, line = listed.out.decode().splitlines()
    assert heading.split()[:2] == ["name", "head"]
    assert line.startswith("plan  7 ")
    verified = program("verify", "plan")
    assert verified.out.decode().startswith("plan: ok")
    assert "1 document verified" in verified.err


def test_a_document_near_its_limit_is_warned_about(run: Run, log: Path) -> None:
    run("import", "plan", log)
    run("compact", "plan")
    size_bytes = run("documents", "show", "plan", "--json").rows[0]["size_bytes"]
    small = {"YDOC_DOCUMENT_BYTES_MAX": str(size_bytes + 1), "YDOC_UPDATE_BYTES_MAX": str(size_bytes)}
    shown = run("documents", "show", "plan", **small)
    assert shown.code == 0
    assert "YDOC_DOCUMENT_BYTES_MAX" in shown.err
    refused = run("import", "plan", "-", stdin=typed("Grüße 👋!")[-1], **small)
    assert refused.code == 5, refused.err


def test_verify_finds_a_missing_row_and_nothing_opens_the_document(run: Run, log: Path, database_url: str) -> None:
    run("import", "plan", log)

    async def lose_the_log() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM ydoc.updates")
        await connection.close()

    run_apart(lose_the_log())
    verified = run("verify", "plan", "--json")
    assert verified.code == 1
    (row,) = verified.rows
    assert not row["ok"]
    assert {finding["promise"] for finding in row["findings"]} == {"I3", "I6"}
    assert run("export", "plan").code == 1
    shown = run("documents", "show", "plan", "--json")
    assert (shown.code, shown.rows[0]["pending"]) == (1, None)
    assert "cannot be opened" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [("documents", "show"), ("export",), ("verify",), ("compact",), ("documents", "compactions")],
    ids=" ".join,
)
def test_a_document_that_does_not_exist_is_exit_code_4(arguments: tuple[str, ...], run: Run) -> None:
    missing = run(*arguments, "nothing")
    assert missing.code == 4
    assert "'nothing'" in missing.err
    assert missing.out == b""


def test_a_deleted_document_is_listed_when_asked_for_and_never_exported(run: Run, log: Path, database_url: str) -> None:
    run("import", "plan", log)

    async def delete() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "UPDATE ydoc.documents SET deleted_at = now() WHERE tenant = $1 AND name = 'plan'", DEFAULT_TENANT
        )
        await connection.close()

    run_apart(delete())
    assert run("documents", "list", "--json").rows == []
    assert [row["name"] for row in run("documents", "list", "--deleted", "--json").rows] == ["plan"]
    assert run("export", "plan").code == 4
    assert run("import", "plan", log).code == 4


def test_a_given_database_is_migrated_only_when_asked(empty_database_url: str) -> None:
    for arguments in (("documents", "list"), ("serve", "--port", "0")):
        refused = run_command(*arguments, "--database-url", empty_database_url)
        assert refused.code == 2
        assert "ydoc-store migrate" in refused.err
    migrated = run_command("migrate", "--json", "--database-url", empty_database_url)
    assert migrated.code == 0, migrated.err
    (row,) = migrated.rows
    assert len(row["applied"]) == row["current"] >= 2
    again = run_command("migrate", "--json", "--database-url", empty_database_url)
    assert again.rows == [{"applied": [], "current": row["current"]}]
    assert run_command("documents", "list", "--database-url", empty_database_url).code == 0


def test_a_database_that_is_not_there_is_exit_code_3_and_told_with_its_flag() -> None:
    unreachable = run_command("documents", "list", "--database-url", NOWHERE)
    assert unreachable.code == 3
    assert "Traceback" not in unreachable.err
    assert "cannot reach the database (--database-url, YDOC_DATABASE_URL): " in unreachable.err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "--database-url is empty"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:1/d", "remove the +asyncpg"),
        ("postgresql://u:hunter2@127.0.0.1:many/d", "its port must be a number"),
        ("postgresql://u:hunter2@127.0.0.1:99999/d", "its port must be a number"),
        ("postgresql://u:hun/ter2@127.0.0.1/d", "%2F"),
        ("mysql://127.0.0.1/d", "(--database-url, YDOC_DATABASE_URL)"),
    ],
)
def test_a_url_that_cannot_work_is_exit_code_2_and_says_what_to_mend(url: str, told: str, run_nowhere: Run) -> None:
    refused = run_nowhere("documents", "list", "--database-url", url)
    assert refused.code == 2, refused.err
    assert told in refused.err
    for leaked in ("Traceback", "literal", "hun"):
        assert leaked not in refused.err


@pytest.mark.parametrize(
    "command",
    [
        "ydoc_store.cli documents list",
        "ydoc_store.cli verify --all",
        "ydoc_store.cli compact --all",
        "ydoc_store.cli export plan",
        "compactor.cli once",
        "compactor.cli explain plan",
        "compactor.cli run",
    ],
)
def test_a_mistyped_data_folder_is_refused_and_not_made(command: str, tmp_path: Path) -> None:
    module, *arguments = command.split()
    missing = tmp_path / "dta"
    refused = subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments, "--data-dir", str(missing)],
        env=clean_environment(),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert f"no data folder at {missing}" in refused.stderr.decode()
    assert "`ydoc-store serve` makes it" in refused.stderr.decode()
    assert not missing.exists()


def test_a_file_is_no_data_folder(log: Path) -> None:
    refused = run_command("documents", "list", "--data-dir", log)
    assert refused.code == 2, refused.err
    assert "no data folder at" in refused.err


def test_a_misspelt_variable_stops_every_command_and_the_nearest_is_named() -> None:
    refused = run_command("settings", YDOC_DATABASE_URI="x")
    assert refused.code == 2
    assert "YDOC_DATABASE_URL" in refused.err


def test_settings_tell_value_source_unit_and_reason_and_no_secret() -> None:
    told = run_command("settings", "--json", "--database-url", "postgresql://u:hunter2@h/d", YDOC_POLL_INTERVAL_S="2")
    assert told.code == 0
    assert b"hunter2" not in told.out
    assert b"postgresql://u:********@h/d" in told.out
    rows = {row["name"]: row for row in told.rows}
    assert set(rows["port"]) == {"name", "variable", "value", "source", "unit", "default", "reason"}
    assert (rows["poll_interval_s"]["value"], rows["poll_interval_s"]["source"]) == (2.0, "environment")
    assert rows["database_url"]["source"] == "flag"


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("compact",), ("verify", "plan", "--all"), ("export", "a//b"), ("documents",), ("nonsense",), ()],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_a_command_that_makes_no_sense_is_exit_code_2(arguments: tuple[str, ...], run_nowhere: Run) -> None:
    refused = run_nowhere(*arguments)
    assert refused.code in (2, 3), refused.err
    assert "Traceback" not in refused.err
