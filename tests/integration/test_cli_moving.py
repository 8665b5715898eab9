"""Moving here: what does not come and why, what is here already, imports that are killed, and the way back.

The source is a table in SQLite, as the simplest of them; `interop/test_moving.py` has the others, from the real peers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pycrdt import Doc, Text

from tests.commands import Run, runner
from tests.interop.test_moving import QUERY, WORDS, assert_same, by_name, exported, results
from tests.interop.yjs_judge import shared_judge
from tests.postgres import run_apart
from tests.service import STORE, clean_environment

PAGE_BYTES = 4096  # of SQLite


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(database_url, monkeypatch)


# What does not come, and what is here already


def typed_by(client: int, words: str) -> bytes:
    doc = Doc[Any](client_id=client)
    doc["text"] = Text(words)
    return doc.get_update()


def sqlite_file(path: Path, documents: Mapping[str, bytes]) -> tuple[str, ...]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS documents (name text PRIMARY KEY, data blob)")
        connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?)", documents.items())
        connection.commit()
    return ("--from", "hocuspocus-sqlite", str(path))


def test_what_cannot_come_is_told_with_its_reason_and_stops_nothing_else(run: Run, tmp_path: Path) -> None:
    good = typed_by(1, "good")
    nested = bytes.fromhex("0101070001010174") + b"\1" + b"\x75\1" * 100 + b"\0"
    documents = {
        "a": b"no update",
        "b": good[:-1],
        "c": nested,
        "d": b"",
        "e": b"\0\0",
        "f//g": typed_by(2, "renamed"),
        "h/": typed_by(3, "unnameable"),
        "z": good,
    }
    source = sqlite_file(tmp_path / "db", documents)
    ran = run("import", *source, "--rename", "f//g", "f/g", "--json")
    rows = by_name(ran)
    assert ran.code == 1
    assert results(ran) == {
        "a": "failed",
        "b": "failed",
        "c": "failed",
        "d": "empty",
        "e": "empty",
        "f//g": "imported",
        "h/": "skipped",
        "z": "imported",
    }
    for name in "abc":
        assert "not a Yjs v1 update" in rows[name]["reason"]
    assert rows["h/"]["reason"] == "a document name has no empty, '.' or '..' segment: --rename gives it another one"
    assert {row["name"] for row in run("documents", "list", "--json").rows} == {"f/g", "z"}
    assert "8 documents: 2 empty, 3 failed, 2 imported, 1 skipped" in ran.err
    people = run("import", *source)
    assert people.code == 1
    assert "a: failed: not a Yjs v1 update" in people.out.decode()
    assert "z: unchanged, seq 1, verified\n" in people.out.decode()


def test_a_deleted_document_stays_deleted_and_says_what_to_do(run: Run, tmp_path: Path) -> None:
    """I12: an import brings nothing back that was deleted here."""
    source = sqlite_file(tmp_path / "db", {"plan": typed_by(1, "words"), "other": typed_by(2, "words")})
    run("import", *source)
    assert run("documents", "delete", "plan").code == 0
    ran = run("import", *source, "--json")
    assert (ran.code, results(ran)) == (1, {"plan": "failed", "other": "unchanged"})
    assert "undelete" in by_name(ran)["plan"]["reason"]


def test_another_document_of_the_same_name_is_not_mixed_into(run: Run, tmp_path: Path) -> None:
    """Two texts that were typed apart would stand in one document, one behind the other, for good."""
    assert run("import", "plan", "-", stdin=typed_by(1, "typed here ")).code == 0
    theirs = typed_by(2, "typed there ")
    source = sqlite_file(tmp_path / "db", {"plan": theirs})
    for options in ((), ("--dry-run",)):
        refused = run("import", *source, "--json", *options)
        assert (refused.code, results(refused)) == (1, {"plan": "failed"})
        assert "shares no edit with it" in refused.rows[0]["reason"]
    renamed = run("import", *source, "--json", "--rename", "plan", "plan (moved)")
    assert (renamed.code, renamed.rows[0]["verified"]) == (0, "equal")
    merged = run("import", *source, "--json", "--merge")
    assert (merged.code, merged.rows[0]["verified"], merged.rows[0]["exists"]) == (0, "held", True)
    said = json.loads(exported(run, "plan", "--format", "json"))["text"]
    assert sorted(said.split()) == ["here", "there", "typed", "typed"]


def test_what_was_written_here_since_stays_and_is_told_apart(run: Run, tmp_path: Path) -> None:
    """The import after the switch: their last edits come, ours stay, and what they deleted is deleted."""
    theirs = Doc[Any](client_id=1)
    theirs["text"] = text = Text("both have this")
    source = sqlite_file(tmp_path / "db", {"plan": theirs.get_update()})
    run("import", *source)
    ours = Doc[Any](client_id=2)
    ours["text"] = ours_text = Text()
    ours.apply_update(exported(run, "plan"))
    ours_text += ", and this was typed here"
    assert run("import", "plan", "-", stdin=ours.get_update()).code == 0
    del text[0:5]
    sqlite_file(tmp_path / "db", {"plan": theirs.get_update()})
    moved = run("import", *source, "--json")
    (row,) = moved.rows
    assert (moved.code, row["result"], row["verified"], row["head"]) == (0, "imported", "held", 3)
    assert row["new_bytes"] < 10
    assert json.loads(exported(run, "plan", "--format", "json")) == {"text": "have this, and this was typed here"}
    assert run("compact", "plan").code == 0
    again = run("import", *source, "--json")
    assert (again.code, again.rows[0]["result"], again.rows[0]["head"]) == (0, "unchanged", 3)


def test_documents_come_to_the_tenant_that_is_named_and_to_no_other(run: Run, tmp_path: Path) -> None:
    """I19."""
    source = sqlite_file(tmp_path / "db", {"plan": typed_by(1, "words")})
    assert run("import", *source, "--tenant", "acme").code == 0
    assert run("documents", "list", "--json").rows == []
    assert run("export", "plan").code == 4
    assert shared_judge().difference([typed_by(1, "words")], [exported(run, "plan", "--tenant", "acme")]) is None


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--from", "sql"), 2, "--source-url"),
        (("--from", "sql", "--source-url", "oracle://u:hunter2@h/d", "--query", QUERY), 3, "postgresql://"),
        (("--from", "sql", "--source-url", "postgresql://u:hunter2@h:many/d", "--query", QUERY), 3, "no URL"),
        (("--from", "sql", "--source-url", "mysql://u:hunter2@h:many/d", "--query", QUERY), 3, "no URL"),
        (("--from", "sql", "--source-url", "mysql://u:hunter2@127.0.0.1:1/d", "--query", QUERY), 3, "cannot be read"),
        (("--from", "sql", "--source-url", "postgresql://u:hunter2@127.0.0.1:1/d", "--query", QUERY), 3, "cannot be"),
        (("--from", "hocuspocus-sqlite", "/nothing/there"), 3, "no file at /nothing/there"),
        (("--from", "y-leveldb", "/nothing/there"), 3, "no LevelDB at /nothing/there"),
        (("--from", "directory", "/nothing/there"), 3, "index.jsonl"),
        (("--from", "hocuspocus-sqlite"), 2, "takes one PATH"),
        (("--from", "y-leveldb", "/tmp", "--endpoint", "http://h"), 2, "hocuspocus-s3"),
        (("plan",), 2, "name a document and a FILE"),
        (("plan", "-", "--dry-run"), 2, "name a document and a FILE"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_without_its_password(
    run: Run, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ran = run("import", *arguments)
    assert ran.code == code, ran.err
    assert told in ran.err
    assert "hunter2" not in ran.err
    assert "Traceback" not in ran.err


def test_no_sqlite_file_and_a_query_that_is_none_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 50)
    ran = run("import", "--from", "hocuspocus-sqlite", tmp_path / "text")
    assert (ran.code, "cannot be read" in ran.err) == (3, True)
    source = sqlite_file(tmp_path / "db", {})
    wrong = run("import", "--from", "sql", "--source-url", f"sqlite:///{tmp_path}/db", "--query", "SELECT nonsense")
    assert (wrong.code, "no such column" in wrong.err) == (3, True)
    none = run("import", *source)
    assert (none.code, none.out, none.err) == (0, b"", "0 documents: none there (0 B new)\n")


def test_a_store_whose_library_is_missing_is_told_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library, extra, arguments in (
        ("pymysql", "mysql", ("sql", "--source-url", "mysql://h/d", "--query", QUERY)),
        ("plyvel", "leveldb", ("y-leveldb", str(tmp_path))),
        ("boto3", "s3", ("hocuspocus-s3", "bucket")),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.setitem(sys.modules, f"{library}_next", None)
        ran = run("import", "--from", *arguments)
        assert (ran.code, f"pip install 'ydoc-store[{extra}]'" in ran.err) == (2, True), ran.err


def test_a_name_that_no_terminal_should_see_and_one_that_is_no_text_are_told(run: Run, tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "db", {"\x1b[31mred": typed_by(1, "words"), "plan": typed_by(2, "words")})
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("INSERT INTO documents VALUES (CAST(x'61ff' AS TEXT), x'0000')")
        connection.execute("INSERT INTO documents VALUES (NULL, x'0000')")
        connection.commit()
    ran = run("import", *source)
    assert ran.code == 1
    assert "\x1b" not in ran.out.decode()
    assert "plan: imported" in ran.out.decode()
    assert "its name is not UTF-8" in ran.out.decode()
    assert "it has no name" in ran.out.decode()
    assert run("import", *source, "--json").code == 1


def test_a_source_that_breaks_off_leaves_what_came_and_says_that_it_goes_on(run: Run, tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "db", {f"{at:03}": typed_by(at + 1, "words " * 2_000) for at in range(60)})
    # The last page that holds nothing but a part of a document's text, behind the number of the page where it goes on.
    content = (tmp_path / "db").read_bytes()
    pages = [at for at in range(0, len(content), PAGE_BYTES) if content[at + 4 : at + 64].count(b"words") > 8]
    pages = [at for at in pages if any(content[at : at + 4])]
    (tmp_path / "db").write_bytes(content[: pages[-1]] + b"\xff" * 4 + content[pages[-1] + 4 :])
    ran = run("import", *source, "--json")
    assert ran.code == 3, ran.err
    done = len(ran.out.splitlines())
    assert 0 < done < 60, ran.err
    assert f"({done} documents done with; the same command goes on from there)" in ran.err
    assert len(run("documents", "list", "--json").rows) == done


# Killed, and watched


def test_an_import_that_was_killed_goes_on_where_it_was(run: Run, database_url: str, tmp_path: Path) -> None:
    """I1, I8: what it said is stored is stored, nothing twice, and the rest comes with the next one."""
    documents = {f"plan-{number:03}": typed_by(number + 1, f"words {number} " * 50) for number in range(150)}
    source = sqlite_file(tmp_path / "db", documents)
    command = [*STORE, "import", *source, "--json", "--database-url", database_url]
    with subprocess.Popen(command, env=clean_environment({}), stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        said = [json.loads(killed.stdout.readline()) for _ in range(20)]
        killed.kill()
        said += [json.loads(line) for line in killed.stdout if line.endswith(b"\n")]
    assert len(said) < 150, "it was done before it could be killed"
    moved = run("import", *source, "--json")
    assert moved.code == 0, moved.err
    rows = by_name(moved)
    assert len(rows) == 150
    for row in said:
        assert rows[row["name"]]["result"] == "unchanged"
    assert {row["head"] for row in moved.rows} == {1}
    assert {row["verified"] for row in moved.rows} == {"equal"}


def test_a_person_watches_a_bar_and_reads_what_failed(database_url: str, tmp_path: Path) -> None:
    source = sqlite_file(tmp_path / "db", {"bad": b"no update", "plan": typed_by(1, "words")})
    leader, follower = os.openpty()
    command = [*STORE, "import", *source, "--database-url", database_url]
    with subprocess.Popen(command, env=clean_environment({}), stdout=subprocess.PIPE, stderr=follower) as watched:
        os.close(follower)
        shown = b""
        # A terminal whose program has ended gives an error in place of an end.
        with contextlib.suppress(OSError):
            while read := os.read(leader, 4096):
                shown += read
        assert watched.stdout is not None
        lines = watched.stdout.read().decode().splitlines()
    os.close(leader)
    assert watched.returncode == 1
    assert re.search(rb"documents .*100%", shown), shown
    assert [line.partition(":")[0] for line in lines] == ["bad"]


# The way back


def test_all_documents_go_to_a_directory_and_come_back_the_same(run: Run, tmp_path: Path) -> None:
    names = [*WORDS, "x" * 512, "Ünï/🙂", "…/index.jsonl", "plan "]
    wanted = {name: typed_by(number + 1, f"words of {number}") for number, name in enumerate(names)}
    run("import", *sqlite_file(tmp_path / "db", wanted))
    away = tmp_path / "away"
    ran = run("export", "--all", away)
    assert (ran.code, f"{len(names)} documents exported to {away}" in ran.err) == (0, True), ran.err
    files = sorted(path.name for path in away.iterdir())
    assert len({name.lower() for name in files}) == len(names) + 1
    assert all(re.fullmatch(r"[a-z0-9-]{1,77}\.(yjs|jsonl)", name) for name in files), files
    again = run("export", "--all", away)
    assert (again.code, "nothing is overwritten" in again.err) == (5, True)
    assert_same(run, wanted)
    back = run("import", "--from", "directory", away, "--tenant", "back", "--json")
    assert (back.code, results(back)) == (0, dict.fromkeys(wanted, "imported"))
    assert_same(run, wanted, "--tenant", "back")
    plan = next(path for path in away.iterdir() if path.name.startswith("x"))
    plan.write_bytes(plan.read_bytes() + b"\0")
    broken = run("import", "--from", "directory", away, "--tenant", "broken", "--json")
    assert broken.code == 1
    assert "its checksum differs" in by_name(broken)["x" * 512]["reason"]


def test_a_document_that_cannot_be_read_keeps_none_of_the_others_here(
    run: Run, tmp_path: Path, database_url: str
) -> None:
    run("import", *sqlite_file(tmp_path / "db", {"a": typed_by(1, "words"), "b": typed_by(2, "words")}))

    async def lose_the_log() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "DELETE FROM ydoc.updates AS u USING ydoc.documents AS d WHERE d.id = u.document_id AND d.name = 'a'"
        )
        await connection.close()

    run_apart(lose_the_log())
    ran = run("export", "--all", tmp_path / "away")
    assert (ran.code, "a: not exported" in ran.err, "1 document exported" in ran.err) == (1, True, True), ran.err
    back = run("import", "--from", "directory", tmp_path / "away", "--tenant", "back", "--json")
    assert results(back) == {"b": "imported"}
