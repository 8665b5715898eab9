"""What `@hocuspocus/extension-sqlite` keeps: one table, a row a document with its whole state. Read, and written.

Written for the way back: a new file that the extension serves from.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ydoc_store.errors import SourceUnreadable, WrongState
from ydoc_store.sources.source import Source
from ydoc_store.sources.sqlite import sqlite_query

# Without an order, which would have every byte read to count the rows
DOCUMENTS = "SELECT name, data FROM documents"
# As the extension creates it
CREATE = """
CREATE TABLE "documents" (
  "name" varchar(255) NOT NULL,
  "data" blob NOT NULL,
  UNIQUE(name)
)
"""
INSERT = "INSERT INTO documents (name, data) VALUES (?, ?)"


def hocuspocus_sqlite(path: Path) -> Source:
    """The documents of such a file."""
    return sqlite_query(path, DOCUMENTS)


class Writer:
    """Documents on their way into a new file."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def write(self, name: str, update: bytes, **_told: object) -> None:
        """One document's whole content; the table has no room for more."""
        self._connection.execute(INSERT, (name, update))


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A new file, which appears under its name once all is in it. Raises WrongState where there is one already."""
    if path.exists():
        raise WrongState(f"{path} exists already: nothing is overwritten")
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.execute(CREATE)
            connection.execute("BEGIN")
            yield Writer(connection)
            connection.execute("COMMIT")
        partial.rename(path)
    except sqlite3.Error as error:
        raise SourceUnreadable(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
