"""A query on somebody's MySQL or MariaDB, in one read-only transaction, row by row as the server sends them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Unreadable, entry, missing, stepwise, together

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import SSCursor

CONNECT_TIMEOUT_S = 10
ROWS_AT_ONCE = 16
# Rows wait in the server for as long as our own database takes; it would hang up after a minute.
PATIENCE = "SET SESSION net_write_timeout = 3600"
SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


@asynccontextmanager
async def mysql_query(url: str, query: str) -> AsyncIterator[Opened]:
    """The rows of `query`, whose first two columns are a name and a BLOB.

    `url` may name a socket (`?unix_socket=/path`) or a certificate authority (`?ssl_ca=/path`).
    """
    try:
        import pymysql
        from pymysql.cursors import SSCursor
    except ImportError as error:
        missing("PyMySQL", "mysql", error)
    with _reading():
        connection = pymysql.connect(**_options(url), cursorclass=SSCursor)
    with closing(connection):
        with _reading(), connection.cursor() as cursor:
            cursor.execute(PATIENCE)
            cursor.execute(SNAPSHOT)
        yield _Rows(connection, query.strip().rstrip(";"))


def _options(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError as error:
        raise SourceUnreadable("--source-url is no URL of a MySQL") from error
    given = parse_qs(parts.query)
    unknown = set(given) - {"unix_socket", "ssl_ca"}
    if unknown:
        raise SourceUnreadable(f"--source-url may have unix_socket and ssl_ca behind its ?, not {sorted(unknown)[0]}")
    options: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.lstrip("/")) or None,
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_TIMEOUT_S,
    }
    if "unix_socket" in given:
        options["unix_socket"] = given["unix_socket"][0]
    if "ssl_ca" in given:
        options["ssl"] = ssl.create_default_context(cafile=given["ssl_ca"][0])
    return options


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever PyMySQL or the socket raises inside leaves as SourceUnreadable."""
    import pymysql

    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        # Its errors are a number and words.
        words = error.args[-1] if error.args else type(error).__name__
        raise SourceUnreadable(f"the source cannot be read: {words}") from error


class _Rows:
    def __init__(self, connection: Connection[SSCursor], query: str):
        self._connection = connection
        self._query = query

    async def total(self) -> int:
        with _reading(), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM (\n{self._query}\n) AS q")  # noqa: S608
            row = cursor.fetchone()
        return int(row[0]) if row else 0

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        return stepwise(together(self._entries()))

    def _entries(self) -> Iterator[Found | Unreadable]:
        with _reading(), self._connection.cursor() as cursor:
            cursor.execute(self._query)
            if len(cursor.description or ()) < 2:
                raise SourceUnreadable("the query gives fewer than two columns: a name and an update are needed")
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                for name, data, *_ in rows:
                    yield entry(name, data)
