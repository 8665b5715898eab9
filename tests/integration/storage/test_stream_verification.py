"""What verification finds in a stream: nothing in a sound one, and each kind of damage under the promise it breaks."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import pytest

from ydoc_store.errors import ServerFault
from ydoc_store.storage import stream_verification
from ydoc_store.storage.pool import Database
from ydoc_store.storage.stream_verification import VerifiedStream, every_stream, verify_stream
from ydoc_store.storage.streams import StreamSettings, create_stream, delete_stream
from ydoc_store.yjs.lib0 import join_frames

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

APPENDED = [[b'{"id": 1}'], [b"2", b"3, [4]"], [b'"5"'], [b"6", b"7"]]


async def made(database: Database, connection: Connection, name: str = "s", kind: str = "application/json") -> int:
    """A stream of four rows, in the order of APPENDED: seqs 1, 2-3, 4, and 5-6."""
    stream, _ = await create_stream(database, "t", name, StreamSettings(kind), first=b"", actor=None, closed=False)
    seq = 0
    for updates in APPENDED:
        seq += len(updates)
        await connection.execute(
            "INSERT INTO ydoc.updates (document_id, seq, count, frames) VALUES ($1, $2, $3, $4)",
            stream.id,
            seq,
            len(updates),
            join_frames(updates),
        )
    size = sum(len(update) for updates in APPENDED for update in updates)
    await connection.execute(
        "UPDATE ydoc.documents SET head = $2, accepted_rows = 4, accepted_bytes = $3 WHERE id = $1",
        stream.id,
        seq,
        size,
    )
    return stream.id


@pytest.mark.parametrize("rows_a_read", [1, 3, 2_000])
async def test_a_sound_stream_has_no_findings(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, rows_a_read: int
) -> None:
    monkeypatch.setattr(stream_verification, "ROWS_A_READ", rows_a_read)
    stream_id = await made(database, connection)
    size = sum(len(update) for updates in APPENDED for update in updates)
    assert await verify_stream(database, stream_id) == VerifiedStream(stream_id, head=6, rows=4, bytes=size)
    assert await verify_stream(database, stream_id + 1) is None


@pytest.mark.parametrize(
    ("damage", "promises"),
    [
        ("DELETE FROM ydoc.updates WHERE seq = 1", {"I3", "I6"}),
        ("DELETE FROM ydoc.updates WHERE seq = 3", {"I3", "I6"}),
        ("DELETE FROM ydoc.updates WHERE seq = 6", {"I6"}),
        ("DELETE FROM ydoc.updates", {"I6"}),
        ("UPDATE ydoc.documents SET head = 7", {"I6"}),
        ("UPDATE ydoc.documents SET accepted_rows = 3", {"I6"}),
        ("UPDATE ydoc.documents SET accepted_bytes = accepted_bytes + 1", {"I6"}),
        ("UPDATE ydoc.updates SET count = 1 WHERE seq = 3", {"I3"}),
        ("UPDATE ydoc.updates SET frames = substring(frames FROM 1 FOR 3) WHERE seq = 1", {"I6", "I14"}),
        ("UPDATE ydoc.updates SET frames = '\\x017b' WHERE seq = 4", {"I6", "I14"}),
    ],
)
async def test_damage_is_told_under_the_promise_that_it_breaks(
    database: Database, connection: Connection, damage: str, promises: set[str]
) -> None:
    stream_id = await made(database, connection)
    await connection.execute(damage)
    verified = await verify_stream(database, stream_id)
    assert verified is not None
    assert {finding.promise for finding in verified.findings} == promises


async def test_bytes_are_bytes_whatever_they_hold_and_only_json_is_read(
    database: Database, connection: Connection
) -> None:
    stream_id = await made(database, connection, kind="text/plain")
    await connection.execute("UPDATE ydoc.updates SET frames = '\\x037b00ff' WHERE seq = 4")
    verified = await verify_stream(database, stream_id)
    assert verified is not None
    assert verified.findings == []


async def test_all_that_are_alive_are_looked_at_whoever_they_belong_to(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_verification, "STREAMS_A_READ", 2)
    for name in "abcde":
        await made(database, connection, name)
    deleted = await delete_stream(database, "t", "c")
    await connection.execute("UPDATE ydoc.documents SET tenant = 'other' WHERE name = 'b'")
    found = [(tenant, name) async for _id, tenant, name in every_stream(database)]
    assert found == [("t", "a"), ("other", "b"), ("t", "d"), ("t", "e")]
    # Its rows may be half gone already.
    assert await verify_stream(database, deleted) is None


async def test_what_postgres_refuses_while_streams_are_listed_is_told_as_ours(
    database: Database, connection: Connection
) -> None:
    await connection.execute("ALTER TABLE ydoc.streams RENAME TO elsewhere")
    with pytest.raises(ServerFault):
        async for _ in every_stream(database):
            pass
