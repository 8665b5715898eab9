"""Moving here from other servers' stores, each made by the real peer, and the way back."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import plyvel
import pymysql
import pytest
from pycrdt import Doc, Text
from pycrdt.store import FileYStore, SQLiteYStore

from tests.commands import Ran, Run, runner
from tests.interop.stores import S3_CREDENTIALS, at_work, mariadb, mariadb_is_there, s3, states
from tests.interop.yjs_judge import shared_judge
from tests.postgres import run_apart
from tests.service import STORE, clean_environment, free_port

# Names that are told apart by everything but their look, and with what a path or a key of another store may mind.
WORDS = {"plan": "first words", "team/Straße": "zweite Worte 👋", "PLAN": "and others", "a%2Fb=c d": "third"}


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(database_url, monkeypatch)


def by_name(ran: Ran) -> dict[str, dict[str, Any]]:
    assert ran.code in (0, 1), ran.err
    return {row["source_name"]: row for row in ran.rows}


def results(ran: Ran) -> dict[str, str]:
    return {name: row["result"] for name, row in by_name(ran).items()}


def exported(run: Run, name: str, *options: str) -> bytes:
    ran = run("export", *options, "--", name)
    assert ran.code == 0, ran.err
    return ran.out


def assert_same(run: Run, wanted: Mapping[str, bytes], *options: str) -> None:
    """Yjs is the judge: content unit by unit, state vector, deletes, and what is pending."""
    for name, state in wanted.items():
        assert shared_judge().difference([state], [exported(run, name, *options)]) is None, name


def assert_moves(run: Run, wanted: Mapping[str, bytes], *source: str, **variables: str) -> None:
    """A dry run stores nothing, an import everything, a second one nothing; each document is verified."""
    look = run("import", *source, "--dry-run", "--json", **variables)
    assert (look.code, results(look)) == (0, dict.fromkeys(wanted, "would import")), look.err
    assert run("documents", "list", "--json").rows == []
    moved = run("import", *source, "--json", **variables)
    assert (moved.code, results(moved)) == (0, dict.fromkeys(wanted, "imported")), moved.err
    assert {row["verified"] for row in moved.rows} == {"equal"}
    assert_same(run, wanted)
    again = run("import", *source, "--json", **variables)
    assert (again.code, results(again)) == (0, dict.fromkeys(wanted, "unchanged"))
    heads = {name: row["head"] for name, row in by_name(again).items()}
    assert heads == {name: row["head"] for name, row in by_name(moved).items()}
    assert run("verify", "--all").code == 0


def assert_appends_only_news(run: Run, edited: Mapping[str, bytes], *source: str, **variables: str) -> None:
    """After the switch: of what was edited there since, and nothing else, and less than all of it."""
    before = {row["name"]: row["head"] for row in run("documents", "list", "--json").rows}
    moved = by_name(run("import", *source, "--json", **variables))
    for name, head in before.items():
        row = moved[name]
        assert row["result"] == ("imported" if name in edited else "unchanged"), row
        assert (row["head"] > head) == (name in edited)
        if name in edited:
            assert row["verified"] == "equal"
            assert 0 < row["new_bytes"] < row["bytes"] * 0.8
    assert_same(run, edited)


# The sources


def test_hocuspocus_with_its_sqlite_extension(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "db.sqlite"
    source = ("--from", "hocuspocus-sqlite", file)
    assert_moves(run, states(at_work("hocuspocusSqlite", path=str(file), documents=WORDS)), *map(str, source))
    edited = states(at_work("hocuspocusSqlite", path=str(file), documents={"plan": "last edits"}))
    assert_appends_only_news(run, edited, *map(str, source))


def test_hocuspocus_with_its_s3_extension(run: Run) -> None:
    """extension-s3 is extension-database on the AWS SDK with keys of its own; so is this bucket's writer."""
    with s3("documents") as endpoint:
        place = {"endpoint": endpoint, "bucket": "documents", "prefix": "hocuspocus-documents/"}
        wanted = states(at_work("hocuspocusS3", **place, documents=WORDS))
        at_work("hocuspocusS3", **{**place, "prefix": "elsewhere/"}, documents={"other": "words"})
        source = ("--from", "hocuspocus-s3", "documents", "--endpoint", endpoint)
        assert_moves(run, wanted, *source, **S3_CREDENTIALS)
        edited = states(at_work("hocuspocusS3", **place, documents={"plan": "last edits"}))
        assert_appends_only_news(run, edited, *source, **S3_CREDENTIALS)
        elsewhere = run(
            "import", "--from", "hocuspocus-s3", "s3://documents/elsewhere/", "--endpoint", endpoint, "--json"
        )
        assert results(elsewhere) == {"other": "imported"}
        nowhere = run("import", "--from", "hocuspocus-s3", "nothing", "--endpoint", endpoint, **S3_CREDENTIALS)
        assert nowhere.code == 3
        assert "the bucket nothing cannot be listed" in nowhere.err


def test_y_leveldb(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "leveldb"
    wanted = states(at_work("yLeveldb", path=str(folder), documents=WORDS))
    assert_moves(run, wanted, "--from", "y-leveldb", str(folder))
    edited = states(at_work("yLeveldb", path=str(folder), documents={"team/Straße": "zuletzt"}))
    assert_appends_only_news(run, edited, "--from", "y-leveldb", str(folder))


def test_a_y_websocket_server_that_persists(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "leveldb"
    documents = {"plan": "first words", "team/notes": "second"}
    wanted = states(at_work("yWebsocket", path=str(folder), port=free_port(), documents=documents))
    assert_moves(run, wanted, "--from", "y-websocket", str(folder))
    edited = states(at_work("yWebsocket", path=str(folder), port=free_port(), documents={"plan": "last edits"}))
    assert_appends_only_news(run, edited, "--from", "y-websocket", str(folder))


def typed(words: Sequence[str]) -> list[bytes]:
    doc = Doc[Any]()
    doc["text"] = text = Text()
    updates = []
    for word in words:
        before = doc.get_state()
        text += word
        updates.append(doc.get_update(before))
    return updates


async def write_pycrdt(store: Any, updates: Sequence[bytes]) -> None:
    async with store:
        for update in updates:
            await store.write(update)


def test_pycrdt_store_in_sqlite(run: Run, tmp_path: Path) -> None:
    class Store(SQLiteYStore):
        db_path = str(tmp_path / "ystore.db")
        checkpoint_interval = 5

    plan, other = typed([f"word{number} " for number in range(12)]), typed(["Grüße"])
    anyio.run(write_pycrdt, Store("plan.md"), plan[:11])
    anyio.run(write_pycrdt, Store("folder/other"), other)
    with closing(sqlite3.connect(Store.db_path)) as connection:
        assert connection.execute("SELECT count(*) FROM ycheckpoints").fetchone() == (1,)
    wanted = {"plan.md": shared_judge().encode(plan[:11]), "folder/other": other[0]}
    assert_moves(run, wanted, "--from", "pycrdt-store", Store.db_path)
    anyio.run(write_pycrdt, Store("plan.md"), plan[11:])
    assert_appends_only_news(run, {"plan.md": shared_judge().encode(plan)}, "--from", "pycrdt-store", Store.db_path)


def test_pycrdt_store_in_files(run: Run, tmp_path: Path) -> None:
    plan, other = typed(["a ", "b ", "c"]), typed(["Grüße"])
    anyio.run(write_pycrdt, FileYStore(str(tmp_path / "store/plan.md")), plan)
    anyio.run(write_pycrdt, FileYStore(str(tmp_path / "store/folder/other")), other)
    wanted = {"plan.md": shared_judge().encode(plan), "folder/other": other[0]}
    assert_moves(run, wanted, "--from", "pycrdt-store", str(tmp_path / "store"))
    (tmp_path / "store/notes.txt").write_text("no store of anybody's")
    ran = run("import", "--from", "pycrdt-store", tmp_path / "store", "--json")
    assert (ran.code, results(ran)) == (1, {"plan.md": "unchanged", "folder/other": "unchanged", "notes.txt": "failed"})


@pytest.fixture(scope="module")
def stored() -> dict[str, bytes]:
    """What Hocuspocus's database extension gives an application to store."""
    answer = at_work("hocuspocusDatabase", documents=WORDS)
    return {name: base64.b64decode(state) for name, state in answer["stored"].items()}


QUERY = "SELECT name, data FROM documents"


def test_a_table_of_the_applications_in_postgres(
    run: Run, empty_database_url: str, stored: dict[str, bytes], tmp_path: Path
) -> None:
    async def fill() -> None:
        connection = await asyncpg.connect(empty_database_url)
        await connection.execute("CREATE TABLE documents (name text PRIMARY KEY, data bytea)")
        await connection.executemany("INSERT INTO documents VALUES ($1, $2)", stored.items())
        await connection.close()

    run_apart(fill())
    url_file = tmp_path / "url"
    url_file.write_text(empty_database_url + "\n")
    assert_moves(run, stored, "--from", "sql", "--source-url-file", str(url_file), "--query", QUERY + ";")
    refused = run("import", "--from", "sql", "--source-url", empty_database_url, "--query", "DELETE FROM documents")
    assert refused.code == 3, refused.err
    one = run("import", "--from", "sql", "--source-url", empty_database_url, "--query", "SELECT name FROM documents")
    assert (one.code, "fewer than two columns" in one.err) == (3, True), one.err
    text = "SELECT name, encode(data, 'base64') FROM documents"
    encoded = run("import", "--from", "sql", "--source-url", empty_database_url, "--query", text, "--json")
    assert set(results(encoded).values()) == {"failed"}
    assert "decode it in the query" in encoded.rows[0]["reason"]


@pytest.fixture
def mysql_url() -> Iterator[str]:
    if not mariadb_is_there():
        pytest.skip("absent: MariaDB (on Debian, `apt-get install mariadb-server`)")
    with mariadb() as url:
        yield url


def test_a_table_of_the_applications_in_mysql(run: Run, mysql_url: str, stored: dict[str, bytes]) -> None:
    socket = mysql_url.partition("unix_socket=")[2]
    with pymysql.connect(unix_socket=socket, user="root", database="store", charset="utf8mb4") as connection:
        cursor = connection.cursor()
        cursor.execute(
            "CREATE TABLE documents (name varchar(255) COLLATE utf8mb4_bin PRIMARY KEY, data longblob) CHARSET utf8mb4"
        )
        cursor.executemany("INSERT INTO documents VALUES (%s, %s)", list(stored.items()))
        connection.commit()
    assert_moves(run, stored, "--from", "sql", "--source-url", mysql_url, "--query", QUERY)
    refused = run("import", "--from", "sql", "--source-url", mysql_url, "--query", "SELECT name FROM documents")
    assert (refused.code, "fewer than two columns" in refused.err) == (3, True), refused.err
    wrong = run("import", "--from", "sql", "--source-url", mysql_url.replace("root@", "u:hunter2@"), "--query", QUERY)
    assert (wrong.code, "hunter2" in wrong.err) == (3, False), wrong.err


def test_a_table_of_the_applications_in_sqlite_with_a_row_an_update(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "application.db"
    plan, other = typed(["a ", "b ", "c"]), typed(["Grüße"])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE updates (document text, bytes blob)")
        rows = [*(("plan", update) for update in plan), ("other", other[0])]
        connection.executemany("INSERT INTO updates VALUES (?, ?)", rows)
        connection.commit()
    query = "SELECT document, bytes FROM updates ORDER BY document"
    wanted = {"plan": shared_judge().encode(plan), "other": other[0]}
    assert_moves(run, wanted, "--from", "sql", "--source-url", f"sqlite:///{file}", "--query", query)


def test_a_leveldb_that_a_server_has_open_is_left_alone(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "leveldb"
    at_work("yLeveldb", path=str(folder), documents={"plan": "words"})
    with closing(plyvel.DB(str(folder))):
        # LevelDB's lock is one of processes, so another one asks.
        command = [*STORE, "import", "--from", "y-websocket", str(folder), "--database-url", database_url]
        ended = subprocess.run(command, env=clean_environment({}), capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "a server has it open: stop that one first" in ended.stderr


# The way back


def test_hocuspocus_serves_what_goes_back_to_it_and_takes_edits_on_it(run: Run, tmp_path: Path) -> None:
    wanted = states(at_work("hocuspocusSqlite", path=str(tmp_path / "before.sqlite"), documents=WORDS))
    run("import", "--from", "hocuspocus-sqlite", tmp_path / "before.sqlite")
    assert run("compact", "--all").code == 0
    after = tmp_path / "after.sqlite"
    ran = run("export", "--all", "--to", "hocuspocus-sqlite", after)
    assert ran.code == 0, ran.err
    served = states(at_work("readHocuspocusSqlite", path=str(after), names=list(WORDS)))
    for name, state in wanted.items():
        assert shared_judge().difference([state], [served[name]]) is None, name
    edited = states(at_work("hocuspocusSqlite", path=str(after), documents={"plan": "typed there again"}))
    moved = run("import", "--from", "hocuspocus-sqlite", after, "--json")
    assert results(moved) == {**dict.fromkeys(WORDS, "unchanged"), "plan": "imported"}
    assert_same(run, edited)
    refused = run("export", "--all", "--to", "hocuspocus-sqlite", after)
    assert (refused.code, "nothing is overwritten" in refused.err) == (5, True)
