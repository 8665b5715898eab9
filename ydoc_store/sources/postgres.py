"""A query on somebody's Postgres, in one read-only transaction on a connection of its own.

The one module beside storage that imports asyncpg: the database is not ours, and nothing of ours is in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Unreadable, entry, together

CONNECT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 5
ROWS_AT_ONCE = 16
# Between two portions of rows it is idle for as long as our own database takes.
SNAPSHOT = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL idle_in_transaction_session_timeout = 0
"""


@asynccontextmanager
async def postgres_query(url: str, query: str) -> AsyncIterator[Opened]:
    """The rows of `query`, whose first two columns are a name and a bytea."""
    with _reading():
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    try:
        with _reading():
            await connection.execute(SNAPSHOT)
        yield _Rows(connection, query.strip().rstrip(";"))
    finally:
        await connection.close(timeout=CLOSE_TIMEOUT_S)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Whatever asyncpg or the socket raises inside leaves as SourceUnreadable, without the URL, which may hold a
    password."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise SourceUnreadable(f"the source cannot be read: {error or type(error).__name__}") from error
    except (ValueError, OverflowError) as error:
        raise SourceUnreadable("--source-url is no URL of a Postgres") from error


class _Rows:
    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], query: str):
        self._connection = connection
        self._query = query

    async def total(self) -> int:
        with _reading():
            return int(await self._connection.fetchval(f"SELECT count(*) FROM (\n{self._query}\n) AS q"))  # noqa: S608

    async def documents(self) -> AsyncIterator[Found | Unreadable]:
        with _reading():
            statement = await self._connection.prepare(self._query)
            if len(statement.get_attributes()) < 2:
                raise SourceUnreadable("the query gives fewer than two columns: a name and an update are needed")
            # The last name's rows wait for the next name: a document's rows may lie in two portions.
            waiting: list[Found | Unreadable] = []
            cursor = await statement.cursor()
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                *done, last = together([*waiting, *(entry(name, data) for name, data, *_ in rows)])
                waiting = [last]
                for item in done:
                    yield item
            for item in waiting:
                yield item
