"""Tombstones and epochs on the locked head row: whoever else holds it is waited for, and what it did is seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.log_rows import Writer, append, create_document
from tests.waiting import until
from ydoc_store.errors import StorageBusy, WrongState
from ydoc_store.storage.epochs import (
    Content,
    delete_document,
    list_epochs,
    purge_document,
    recreate_document,
    replace_content,
)
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only
CONTENT = Content(Writer().type("good"), "fold")


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, lock_timeout_s=0.2)
    yield opened
    await opened.close()


async def is_waited_for(connection: Connection) -> bool:
    waiting: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    return waiting


async def test_a_deletion_comes_behind_the_append_that_holds_the_head(
    database: Database, connection: Connection
) -> None:
    """I12: it waits for the row, and tells the head that the append left."""
    document_id = await create_document(connection)
    async with connection.transaction():
        await append(connection, document_id, Writer().type_each("abc"))
        deleting = asyncio.create_task(delete_document(database, "t", "doc"))
        await until(lambda: is_waited_for(connection))
    assert (await deleting).head == 3


async def test_a_head_that_is_held_for_long_is_told_and_nothing_is_changed(
    impatient: Database, connection: Connection
) -> None:
    document_id = await create_document(connection)
    async with connection.transaction():
        await append(connection, document_id, [b"a"])
        for act in (
            delete_document(impatient, "t", "doc"),
            replace_content(impatient, "t", "doc", CONTENT, epoch=1),
            purge_document(impatient, "t", "doc", replaced_only=True),
        ):
            with pytest.raises(StorageBusy):
                await act
    assert [(epoch.epoch, epoch.deleted_at) for epoch in await list_epochs(impatient, "t", "doc")] == [(1, None)]


async def test_who_waits_while_the_epoch_is_replaced_acts_on_the_one_that_took_over(
    database: Database, connection: Connection
) -> None:
    """I10, I12: a tombstone on the replaced row would delete nothing."""
    first = await create_document(connection)
    async with connection.transaction():
        await connection.execute("UPDATE ydoc.documents SET replaced_at = now() WHERE id = $1", first)
        await connection.execute(
            "INSERT INTO ydoc.documents (tenant, name, epoch, marker) VALUES ('t', 'doc', 2, 9007199237963777)"
        )
        deleting = asyncio.create_task(delete_document(database, "t", "doc"))
        await until(lambda: is_waited_for(connection))
    assert (await deleting).epoch == 2


async def test_a_repair_of_what_somebody_else_has_repaired_meanwhile_is_refused(database: Database) -> None:
    async with database.acquire() as connection:
        await create_document(connection)  # type: ignore[arg-type] # a pooled one will do
    await replace_content(database, "t", "doc", CONTENT, epoch=1)
    with pytest.raises(WrongState, match="at epoch 2"):
        await replace_content(database, "t", "doc", CONTENT, epoch=1)


async def test_every_epoch_has_a_marker_and_an_id_of_its_own(database: Database, connection: Connection) -> None:
    """I10."""
    await create_document(connection)
    for number in range(1, 6):
        await delete_document(database, "t", "doc")
        assert (await recreate_document(database, "t", "doc")).epoch == number + 1
    rows = await connection.fetch("SELECT id, marker FROM ydoc.documents")
    assert len({row["id"] for row in rows}) == len({row["marker"] for row in rows}) == 6
