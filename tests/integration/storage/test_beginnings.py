from __future__ import annotations

import asyncio

from tests.nodes import stored_rows
from ydoc_store.storage.beginnings import create_empty, create_with_content
from ydoc_store.storage.epochs import delete_document
from ydoc_store.storage.loader import Absent, load
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import frame

UPDATE = b"\x01\x01\x01\x00\x04\x01\x04text\x02hi\x00"


async def test_of_many_that_arrive_at_once_one_creates_it(database_url: str) -> None:
    databases = [await Database.open(database_url, pool_size=5) for _ in range(2)]
    try:
        created = await asyncio.gather(
            *(create_with_content(databases[n % 2], "default", "notes", UPDATE, None) for n in range(50))
        )
        assert sum(created) == 1
        assert await stored_rows(databases[0], "notes") == [(1, 1)]
        stored = await load(databases[0], "default", "notes")
        assert not isinstance(stored, Absent)
        assert (stored.head, stored.accepted_rows, stored.accepted_bytes) == (1, 1, len(UPDATE))
        assert [row.frames for row in stored.tail] == [frame(UPDATE)]
    finally:
        for database in databases:
            await database.close()


async def test_a_tenant_has_names_of_its_own(database_url: str) -> None:
    database = await Database.open(database_url, pool_size=1)
    try:
        assert await create_with_content(database, "one", "notes", UPDATE, "app")
        assert await create_with_content(database, "two", "notes", UPDATE, "app")
    finally:
        await database.close()


async def test_of_many_that_make_it_empty_one_does_and_it_is_a_document_like_any_other(database_url: str) -> None:
    database = await Database.open(database_url, pool_size=5)
    try:
        made = await asyncio.gather(*(create_empty(database, "default", "notes", keep_deleted=True) for _ in range(20)))
        assert sum(made) == 1
        stored = await load(database, "default", "notes")
        assert not isinstance(stored, Absent)
        assert (stored.epoch, stored.head, stored.tail, stored.snapshot, stored.size_bytes) == (1, 0, [], None, 0)
        await delete_document(database, "default", "notes")
        assert not await create_empty(database, "default", "notes")
        assert not await create_with_content(database, "default", "notes", UPDATE, None)
    finally:
        await database.close()
