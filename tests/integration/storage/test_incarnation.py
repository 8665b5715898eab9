"""What tells one database from another: the same for as long as it is the same, and an operator's word."""

from __future__ import annotations

import dataclasses
import secrets

import asyncpg
import pytest

from ydoc_store.storage.incarnation import bump_incarnation, read_incarnation, show_incarnation
from ydoc_store.storage.pool import Database


async def test_it_is_the_same_until_it_is_bumped(database: Database) -> None:
    """I11: and a bump is random, because a counter of a restored backup may come to what nodes remember."""
    first = await show_incarnation(database)
    assert await show_incarnation(database) == first
    bumped = await bump_incarnation(database)
    assert bumped != first
    assert await show_incarnation(database) == bumped
    assert dataclasses.replace(bumped, bump=first.bump, bumped_at=first.bumped_at) == first


async def test_tables_that_were_dropped_and_made_again_are_another_one(
    database: Database, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """I11: as `pg_restore --clean` does it."""
    first = await show_incarnation(database)
    await connection.execute("ALTER TABLE ydoc.documents RENAME TO old")
    await connection.execute("CREATE TABLE ydoc.documents (LIKE ydoc.old INCLUDING ALL)")
    assert await show_incarnation(database) != first


async def test_a_role_without_privileges_of_the_server_can_read_it(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    role = f"relay_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role}")
    try:
        await connection.execute(f"GRANT USAGE ON SCHEMA ydoc TO {role}; GRANT SELECT ON ydoc.incarnation TO {role}")
        await connection.execute(f"SET ROLE {role}")
        assert (await read_incarnation(connection)).timeline == 1
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_there_is_one_row_and_no_other(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO ydoc.incarnation DEFAULT VALUES")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("INSERT INTO ydoc.incarnation (only_row) VALUES (false)")


async def test_only_what_is_past_is_purged(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="documents_purged_is_past"):
        await connection.execute(
            "INSERT INTO ydoc.documents (tenant, name, marker, purged_at) VALUES ('t', 'n', 9007199237963776, now())"
        )
