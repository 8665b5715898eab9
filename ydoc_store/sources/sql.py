"""Which database a URL means, for a query that gives names and updates."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.mysql import mysql_query
from ydoc_store.sources.postgres import postgres_query
from ydoc_store.sources.source import Source
from ydoc_store.sources.sqlite import sqlite_query


def sql(url: str, query: str) -> Source:
    """The rows of `query` there. Raises SourceUnreadable for a URL of none of the three."""
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy's URLs name a driver, too.
    match scheme.partition("+")[0] if separator else "":
        case "postgresql" | "postgres":
            return postgres_query(f"postgresql://{rest}", query)
        case "mysql" | "mariadb":
            return mysql_query(url, query)
        case "sqlite":
            return sqlite_query(_path(unquote(rest)), query)
        case _:
            raise SourceUnreadable("--source-url begins with postgresql://, mysql:// or sqlite:///")


def _path(rest: str) -> Path:
    """`sqlite:////a/b` is absolute and `sqlite:///b` relative, as elsewhere; the latter is also taken for /b."""
    relative = Path(rest.removeprefix("/"))
    return relative if relative.exists() else Path("/" + rest.lstrip("/"))
