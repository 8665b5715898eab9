"""`ydoc-store streams`: which there are, all that one holds in a file, and an end to one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.commands import Run, runner
from tests.postgres import run_apart
from tests.sites import running_site
from ydoc_store.storage import stream_lists
from ydoc_store.storage.pool import Database
from ydoc_store.storage.stream_lists import read_whole
from ydoc_store.storage.streams import StreamSettings, create_stream, find_stream
from ydoc_store.yjs.lib0 import frames

TEXT = {"Content-Type": "text/plain; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    # Pages of a few appends, so that each stream here is read in several.
    monkeypatch.setattr(stream_lists, "PAGE_ROWS_MAX", 3)
    return runner(database_url, monkeypatch)


@pytest.fixture
def writing(database_url: str) -> Callable[[Callable[[httpx.AsyncClient], Awaitable[None]]], None]:
    """Writes over HTTP, as whoever the streams belong to would."""

    def write(body: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async def on_a_site() -> None:
            async with running_site(database_url) as site, site.client() as client:
                await body(client)

        run_apart(on_a_site())

    return write


async def make(client: httpx.AsyncClient, name: str, *appended: bytes, **headers: str) -> None:
    kind = {"Content-Type": headers.pop("kind", TEXT["Content-Type"])}
    assert (await client.put(f"/v1/stream/{name}", headers=kind | headers)).status_code == 201
    for body in appended:
        assert (await client.post(f"/v1/stream/{name}", headers=kind, content=body)).status_code == 204


def on_database(database_url: str, sql: str) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return run_apart(ask())


async def some(client: httpx.AsyncClient) -> None:
    await make(client, "log/a", *(f"line {number}\n".encode() for number in range(10)))
    await make(client, "orders", b'{"id": 1}', b'[{"id": 2}, [3]]', kind="application/json")
    await make(client, "none", kind="application/json")
    await make(client, "raw", b"\0\xff\n", kind="application/octet-stream", **{"Stream-TTL": "3600"})
    await make(client, "gone", b"x")
    assert (await client.post("/v1/stream/log/a", headers={"Stream-Closed": "true"})).status_code == 204
    assert (await client.delete("/v1/stream/gone")).status_code == 204


def test_what_is_alive_is_listed_with_its_size_and_its_end(run: Run, writing: Any) -> None:
    writing(some)
    rows = {row["name"]: row for row in run("streams", "list", "--json").rows}
    assert list(rows) == ["log/a", "none", "orders", "raw"]
    assert (rows["log/a"]["head"], rows["log/a"]["size_bytes"]) == (10, 70)
    assert rows["log/a"]["closed_at"] is not None
    near = run("streams", "list", "--json", YDOC_STREAM_BYTES_MAX="80").rows
    assert [row["name"] for row in near if row["near_limit"]] == ["log/a"]
    assert not any(row["near_limit"] for row in rows.values())
    assert rows["orders"]["closed_at"] is None
    assert (rows["raw"]["content_type"], rows["raw"]["ttl_s"]) == ("application/octet-stream", 3600)
    assert run("streams", "list", "--json", "--tenant", "other").rows == []
    shown = run("streams", "list")
    assert shown.code == 0
    assert b"log/a" in shown.out
    assert b"70 B" in shown.out


def test_what_is_written_out_is_what_a_reader_is_given_or_each_append_by_itself(
    run: Run, writing: Any, tmp_path: Path
) -> None:
    writing(some)
    lines = b"".join(f"line {number}\n".encode() for number in range(10))
    exported = run("streams", "export", "log/a")
    assert (exported.code, exported.out) == (0, lines)
    assert "up to seq 10" in exported.err
    assert json.loads(run("streams", "export", "orders").out) == [{"id": 1}, {"id": 2}, [3]]
    assert json.loads(run("streams", "export", "none").out) == []
    assert list(frames(run("streams", "export", "log/a", "--format", "log").out)) == lines.splitlines(keepends=True)
    assert list(frames(run("streams", "export", "orders", "--format", "log").out)) == [b'{"id": 1}', b'{"id": 2}, [3]']
    assert run("streams", "export", "raw", "-o", tmp_path / "raw").code == 0
    assert (tmp_path / "raw").read_bytes() == b"\0\xff\n"
    for name in ("gone", "never"):
        assert run("streams", "export", name, "-o", tmp_path / name).code == 4
    assert run("streams", "export", "..", "-o", tmp_path / "x").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_stream_with_a_hole_is_told_and_leaves_no_file(
    run: Run, writing: Any, database_url: str, tmp_path: Path
) -> None:
    writing(some)
    on_database(
        database_url,
        "DELETE FROM ydoc.updates WHERE seq = 7 AND document_id IN (SELECT id FROM ydoc.documents WHERE head = 10)",
    )
    broken = run("streams", "export", "log/a", "-o", tmp_path / "file")
    assert broken.code == 1
    assert list(tmp_path.iterdir()) == []
    every = run("streams", "export", "--all", tmp_path / "all")
    assert every.code == 1
    assert "log/a: not exported" in every.err
    assert "3 streams exported" in every.err
    assert sorted(path.suffix for path in (tmp_path / "all").iterdir()) == [".jsonl", ".stream", ".stream", ".stream"]


@pytest.mark.parametrize("form", ["content", "log"])
def test_all_streams_go_to_a_new_directory_with_what_they_were_created_with(
    run: Run, writing: Any, tmp_path: Path, form: str
) -> None:
    writing(some)
    assert run("streams", "export", "--all", tmp_path, "--format", form).code == 0
    rows = [json.loads(line) for line in (tmp_path / "streams.jsonl").read_bytes().splitlines()]
    assert [row["name"] for row in rows] == ["log/a", "none", "orders", "raw"]
    for row in rows:
        content = (tmp_path / row["file"]).read_bytes()
        assert content == run("streams", "export", row["name"], "--format", form).out
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (rows[0]["closed"], rows[0]["seq"], rows[0]["content_type"]) == (True, 10, TEXT["Content-Type"])
    assert (rows[3]["ttl_s"], rows[3]["expires_at"], rows[3]["closed"]) == (3600, None, False)
    again = run("streams", "export", "--all", tmp_path, "--format", form)
    assert again.code == 5
    assert "nothing is overwritten" in again.err


def test_looking_at_a_stream_does_not_keep_it_alive(run: Run, writing: Any, database_url: str, tmp_path: Path) -> None:
    writing(some)
    used = "SELECT used_at FROM ydoc.streams WHERE ttl_s = 3600"
    on_database(database_url, "UPDATE ydoc.streams SET used_at = used_at - interval '30 minutes' WHERE ttl_s = 3600")
    before = on_database(database_url, used)
    assert len(run("streams", "list", "--json").rows) == 4
    assert run("streams", "export", "--all", tmp_path).code == 0
    assert on_database(database_url, used) == before


def test_a_stream_of_a_name_that_is_taken_now_can_be_taken_out_and_ended(run: Run, database_url: str) -> None:
    """Made by a release that did not refuse it: over HTTP the live list of documents stands before it."""

    async def made_before() -> None:
        database = await Database.open(database_url)
        settings = StreamSettings("text/plain")
        await create_stream(database, "default", "documents", settings, first=b"mine", actor=None, closed=False)
        await database.close()

    run_apart(made_before())
    assert run("streams", "export", "documents").out == b"mine"
    assert run("streams", "delete", "documents", YDOC_READ_ONLY="1").code == 2
    assert run("streams", "delete", "documents", "--json").rows == [{"name": "documents", "deleted": True}]
    assert run("streams", "delete", "documents").code == 4
    assert run("streams", "list", "--json").rows == []


async def test_what_is_appended_while_a_stream_is_written_out_is_not_half_of_it(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_lists, "PAGE_ROWS_MAX", 1)
    async with running_site(database_url) as site, site.client() as client:
        await make(client, "s", b"a", b"b", b"c")
        found = []
        async for appended in read_whole(database, await find_stream(database, "default", "s")):
            found.append(appended)
            assert (await client.post("/v1/stream/s", headers=TEXT, content=b"later")).status_code == 204
        assert found == [b"a", b"b", b"c"]


def test_verify_all_looks_at_streams_too(run: Run, writing: Any, database_url: str) -> None:
    writing(some)
    sound = run("verify", "--all", "--json")
    assert sound.code == 0
    assert "0 documents and 4 streams verified, 0 with something wrong" in sound.err
    assert [(row["kind"], row["name"], row["ok"]) for row in sound.rows] == [
        ("stream", name, True) for name in ("log/a", "orders", "none", "raw")
    ]
    on_database(database_url, "UPDATE ydoc.documents SET head = head + 1 WHERE name = 'orders'")
    broken = run("verify", "--all")
    assert broken.code == 1
    assert b"stream orders: WRONG" in broken.out
    assert b"I6: the log ends at 2 and the head is 3" in broken.out
    assert "1 with something wrong" in broken.err
