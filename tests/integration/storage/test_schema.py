"""The tables defend the promises themselves: each constraint, each index, each statement of this release."""

from __future__ import annotations

import importlib
import pkgutil
import re
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.log_rows import append, create_document
from ydoc_store import storage
from ydoc_store.storage.migrate import migrations_folder

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

# What Postgres does not prepare: scripts, and commands that are no statements of a plan.
NOT_PREPARED = {
    "migrate.CREATE_LEDGER",
    "migrate.LIFT_TIMEOUTS",
    "migrate.RESTORE_TIMEOUTS",
    "compactions.ALLOW_IDLE",
    "append_batch.BEGIN_CREATING",
    "append_batch.COMMIT_CREATED",
    "append_batch.ROLL_BACK_CREATED",
}
_SQL = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|SET|RESET|BEGIN|COMMIT|ROLLBACK|VALUES)\b")

MARKER = 2**53 - 2**24
DOCUMENT = {"tenant": "t", "name": "n", "marker": MARKER}
UPDATE = {"document_id": 1, "seq": 1, "count": 1, "frames": b"\x01u"}
SNAPSHOT = {
    "document_id": 1,
    "through_seq": 2,
    "bytes": b"s",
    "state_vector": b"",
    "delete_set": b"",
    "merged_rows": 1,
    "merged_bytes": 1,
    "way": "fold",
}
PRODUCER = {"document_id": 1, "producer_id": "p", "epoch": 0, "seq": 0}
STREAM = {"document_id": 1, "content_type": "text/plain"}
LATER = datetime(2100, 1, 1, tzinfo=UTC)
SEGMENT = {"document_id": 1, "after_seq": 0, "through_seq": 2, "row_count": 1, "raw_bytes": 1, "bytes": b"s"}


def statements() -> dict[str, str]:
    """Every SQL constant of this package, by module and name."""
    found = {}
    for info in pkgutil.iter_modules(storage.__path__):
        module = importlib.import_module(f"{storage.__name__}.{info.name}")
        for name, value in vars(module).items():
            if re.fullmatch(r"[A-Z][A-Z_]*", name) and isinstance(value, str) and _SQL.match(value):
                found[f"{info.name}.{name}"] = value
    return found


STATEMENTS = statements()
CHECKS = re.compile(r"CONSTRAINT (\w+) CHECK")


def test_the_statements_were_found() -> None:
    assert STATEMENTS.keys() >= NOT_PREPARED
    assert len(STATEMENTS) > 30


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - NOT_PREPARED))
async def test_postgres_prepares_every_statement(connection: Connection, name: str) -> None:
    await connection.prepare(STATEMENTS[name])


async def insert(connection: Connection, table: str, values: dict[str, object]) -> None:
    columns = ", ".join(values)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await connection.execute(f"INSERT INTO ydoc.{table} ({columns}) VALUES ({places})", *values.values())


@pytest.mark.parametrize(
    ("table", "good", "bad", "constraint"),
    [
        ("documents", DOCUMENT, {"tenant": ""}, "documents_tenant_not_empty"),
        ("documents", DOCUMENT, {"name": ""}, "documents_name_1_to_512_bytes"),
        ("documents", DOCUMENT, {"name": "é" * 257}, "documents_name_1_to_512_bytes"),
        ("documents", DOCUMENT, {"epoch": 0}, "documents_epoch_from_1"),
        ("documents", DOCUMENT, {"marker": MARKER - 1}, "documents_marker_reserved"),
        ("documents", DOCUMENT, {"marker": 2**53}, "documents_marker_reserved"),
        ("documents", DOCUMENT, {"head": 1, "accepted_rows": 2}, "documents_rows_within_head"),
        ("documents", DOCUMENT, {"head": -1}, "documents_rows_within_head"),
        ("documents", DOCUMENT, {"accepted_rows": -1}, "documents_rows_within_head"),
        ("documents", DOCUMENT, {"accepted_bytes": -1}, "documents_bytes_not_negative"),
        ("documents", DOCUMENT, {"kind": "folder"}, "documents_kind_known"),
        ("documents", DOCUMENT, {"closed_at": LATER}, "documents_only_a_stream_closes"),
        ("documents", DOCUMENT, {"stream_seq": "1"}, "documents_only_a_stream_closes"),
        ("updates", UPDATE, {"count": 0}, "updates_count_positive"),
        ("updates", UPDATE, {"seq": 1, "count": 2, "frames": b"abcd"}, "updates_seq_not_below_count"),
        ("updates", UPDATE, {"seq": 3, "count": 3}, "updates_frames_not_shorter_than_count"),
        ("snapshots", SNAPSHOT, {"through_seq": 0, "merged_rows": 0}, "snapshots_through_from_1"),
        ("snapshots", SNAPSHOT, {"way": "squash"}, "snapshots_way_known"),
        ("snapshots", SNAPSHOT, {"merged_rows": 3}, "snapshots_rows_within_through"),
        ("snapshots", SNAPSHOT, {"merged_rows": 0}, "snapshots_rows_within_through"),
        ("segments", SEGMENT, {"after_seq": -1}, "segments_not_empty"),
        ("segments", SEGMENT, {"after_seq": 2}, "segments_not_empty"),
        ("segments", SEGMENT, {"row_count": 3}, "segments_rows_within_range"),
        ("segments", SEGMENT, {"row_count": 0}, "segments_rows_within_range"),
        ("producers", PRODUCER, {"producer_id": ""}, "producers_id_1_to_256_bytes"),
        ("producers", PRODUCER, {"producer_id": "é" * 129}, "producers_id_1_to_256_bytes"),
        ("producers", PRODUCER, {"epoch": -1}, "producers_place_not_negative"),
        ("producers", PRODUCER, {"seq": -1}, "producers_place_not_negative"),
        ("streams", STREAM, {"ttl_s": -1}, "streams_ttl_not_negative"),
        (
            "streams",
            STREAM,
            {"ttl_s": 1, "expires_at": LATER, "expires_text": "2100-01-01T00:00:00Z"},
            "streams_one_way_to_expire",
        ),
        ("streams", STREAM, {"expires_at": LATER}, "streams_expiry_has_its_text"),
    ],
)
async def test_a_row_that_cannot_be_right_is_refused(
    connection: Connection, table: str, good: dict[str, object], bad: dict[str, object], constraint: str
) -> None:
    await create_document(connection)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(connection, table, good | bad)
    names = {refused.value.constraint_name}
    # Where a value breaks two rules, Postgres names either.
    assert constraint in names or (constraint == "snapshots_through_from_1" and names)
    await insert(connection, table, good)


async def test_every_check_of_these_migrations_is_proven_above() -> None:
    files = ("0001_documents_and_log.sql", "0005_guards_and_streams.sql")
    named = {name for file in files for name in CHECKS.findall((migrations_folder() / file).read_text())}
    cases = next(
        mark.args[1] for mark in test_a_row_that_cannot_be_right_is_refused.pytestmark if mark.name == "parametrize"
    )
    assert named == {case[3] for case in cases}


async def test_a_seq_is_used_once(connection: Connection) -> None:
    document_id = await create_document(connection)
    await append(connection, document_id, [b"a"])
    with pytest.raises(asyncpg.UniqueViolationError, match="updates_pkey"):
        await insert(connection, "updates", UPDATE | {"document_id": document_id})


async def test_a_name_has_one_current_epoch_and_each_epoch_once(connection: Connection) -> None:
    await insert(connection, "documents", DOCUMENT)
    with pytest.raises(asyncpg.UniqueViolationError, match="documents_current"):
        await insert(connection, "documents", DOCUMENT | {"epoch": 2})
    await connection.execute("UPDATE ydoc.documents SET replaced_at = now()")
    with pytest.raises(asyncpg.UniqueViolationError, match="documents_one_row_an_epoch"):
        await insert(connection, "documents", DOCUMENT)
    await insert(connection, "documents", DOCUMENT | {"epoch": 2})
    await insert(connection, "documents", DOCUMENT | {"tenant": "other"})
    await insert(connection, "documents", DOCUMENT | {"name": "N"})
    # A stream of the same name is another thing.
    await insert(connection, "documents", DOCUMENT | {"kind": "stream"})
    with pytest.raises(asyncpg.UniqueViolationError, match="documents_current"):
        await insert(connection, "documents", DOCUMENT | {"kind": "stream", "epoch": 2})


async def test_a_documents_id_is_given_by_the_database_alone(connection: Connection) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await insert(connection, "documents", DOCUMENT | {"id": 7})


async def test_a_document_has_one_current_snapshot_and_it_is_of_a_document(connection: Connection) -> None:
    document_id = await create_document(connection)
    snapshot = SNAPSHOT | {"document_id": document_id}
    await insert(connection, "snapshots", snapshot)
    with pytest.raises(asyncpg.UniqueViolationError, match="snapshots_one_current"):
        await insert(connection, "snapshots", snapshot | {"through_seq": 3})
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await insert(connection, "snapshots", snapshot | {"document_id": document_id + 1})
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await insert(connection, "segments", SEGMENT | {"document_id": document_id + 1})
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await connection.execute("DELETE FROM ydoc.documents")


# How the large columns are stored


STORED = """
SELECT relname || '.' || attname, attcompression::text, attstorage::text
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'ydoc'::regnamespace
"""


async def has_lz4(connection: Connection) -> bool:
    methods = await connection.fetchval("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    return "lz4" in methods


async def test_dense_bytes_are_compressed_quickly_or_not_at_all(connection: Connection) -> None:
    stored = {name: (compression, storage) for name, compression, storage in await connection.fetch(STORED)}
    expected = ("l", "x") if await has_lz4(connection) else ("", "e")
    assert stored["snapshots.bytes"] == stored["updates.frames"] == expected
    assert stored["segments.bytes"] == ("", "e")


async def test_a_server_without_lz4_stores_them_uncompressed(connection: Connection) -> None:
    sql = (migrations_folder() / "0001_documents_and_log.sql").read_text()
    block = sql[sql.index("DO $$") : sql.index("$$;") + 3]
    await connection.execute("ALTER TABLE ydoc.snapshots ALTER COLUMN bytes SET COMPRESSION default")
    await connection.execute("ALTER TABLE ydoc.updates ALTER COLUMN frames SET COMPRESSION default")
    if await has_lz4(connection):
        # Refused for the second column: nothing of the first may stay.
        await connection.execute("CREATE SEQUENCE asked")
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('asked') = 2 THEN RAISE feature_not_supported; END IF; END $$"
        )
        await connection.execute(
            "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse()"
        )
    await connection.execute(block)
    stored = {name: (compression, storage) for name, compression, storage in await connection.fetch(STORED)}
    assert stored["snapshots.bytes"] == stored["updates.frames"] == ("", "e")


async def test_heads_have_room_on_their_page(connection: Connection) -> None:
    options = await connection.fetchval("SELECT reloptions FROM pg_class WHERE oid = 'ydoc.documents'::regclass")
    assert "fillfactor=50" in options
    # No index holds what an append changes.
    indexed = await connection.fetchval(
        "SELECT array_agg(DISTINCT attname::text) FROM pg_index JOIN pg_attribute ON attrelid = indrelid"
        " AND attnum = ANY (indkey) WHERE indrelid = 'ydoc.documents'::regclass"
    )
    assert not {"head", "accepted_rows", "accepted_bytes", "changed_at"} & set(indexed)
