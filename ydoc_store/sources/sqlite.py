"""Any SQLite file, by a query of two columns; opened read-only, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Unreadable, entry, stepwise, together

ROWS_AT_ONCE = 16


@asynccontextmanager
async def sqlite_query(path: Path, query: str) -> AsyncIterator[Opened]:
    """The rows of `query`, whose first two columns are a name and an update."""
    with closing(open_read_only(path)) as connection:
        yield _Rows(connection, path, query.strip().rstrip(";"))


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, in a transaction. Raises SourceUnreadable where no file is."""
    if not path.is_file():
        raise SourceUnreadable(f"no file at {path}")
    # Used by one thread at a time, though not by one alone.
    url = f"file:{quote(str(path.resolve()))}?mode=ro"
    with reading(path):
        connection = sqlite3.connect(url, uri=True, isolation_level=None, check_same_thread=False)
        # One name that is no UTF-8 is told, and keeps no other from being read.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        connection.execute("BEGIN")
    return connection


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever SQLite raises inside leaves as SourceUnreadable."""
    try:
        yield
    except sqlite3.Error as error:
        raise SourceUnreadable(f"{path} cannot be read: {error}") from error


class _Rows:
    def __init__(self, connection: sqlite3.Connection, path: Path, query: str):
        self._connection = connection
        self._path = path
        self._query = query

    async def total(self) -> int:
        with reading(self._path):
            row = self._connection.execute(f"SELECT count(*) FROM (\n{self._query}\n) AS q").fetchone()  # noqa: S608
        return int(row[0])

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        return stepwise(together(self._entries()))

    def _entries(self) -> Iterator[Found | Unreadable]:
        with reading(self._path):
            cursor = self._connection.execute(self._query)
            if len(cursor.description or ()) < 2:
                raise SourceUnreadable("the query gives fewer than two columns: a name and an update are needed")
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                for name, data, *_ in rows:
                    yield entry(name, data)
