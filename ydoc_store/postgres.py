"""Which Postgres: the one that the settings name, or one of our own in the data folder.

Ours is started where it does not run, and migrated; where a service runs on that folder already, its socket is
used and nothing is started or stopped. A given database is never migrated without being asked: the error names
the command. What the database holds is not known here.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ydoc_store.embedded.configuration import address
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.embedded.postgres import EmbeddedPostgres
from ydoc_store.errors import EmbeddedPostgresFailed, SchemaMismatch, SettingInvalid
from ydoc_store.settings import Settings
from ydoc_store.storage.migrate import migrate, pending_migrations
from ydoc_store.storage.pool import Database


@dataclass(frozen=True, slots=True)
class Postgres:
    """A Postgres that can be connected to. `is_ours` when this process started it."""

    url: str
    is_ours: bool
    where: str
    how_to_delete: str


@asynccontextmanager
async def postgres(settings: Settings, *, share: bool, creating: bool) -> AsyncIterator[Postgres]:
    """The Postgres to use, until the block ends.

    `share` allows to use our own Postgres while another process runs it; a service wants it for itself. Unless
    `creating`, a data folder without a cluster is refused: a mistyped one would look like no documents at all.
    Raises EmbeddedPostgresFailed, SettingInvalid.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        how_to_delete = "DROP SCHEMA ydoc CASCADE there deletes all documents"
        yield Postgres(url, is_ours=False, where=where_of(url), how_to_delete=how_to_delete)
        return
    folder = settings.data_dir
    how_to_delete = f"to delete all documents, stop the service and remove {folder}"
    running = running_address(folder) if share else None
    if running is not None:
        yield Postgres(running, is_ours=False, where=f"{folder} (in use)", how_to_delete=how_to_delete)
        return
    if not creating:
        require_cluster(folder)
    async with EmbeddedPostgres(folder) as embedded:
        where = f"{folder} (a Postgres of our own)"
        yield Postgres(embedded.url, is_ours=True, where=where, how_to_delete=how_to_delete)


@asynccontextmanager
async def open_database(
    settings: Settings, *, migrating: bool = False, creating: bool = False
) -> AsyncIterator[Database]:
    """A database whose schema this release can work on, for a command. Our own is migrated when we started it.

    `migrating` leaves the schema as it is, for the command that is about to change it; `creating` allows to make
    our own Postgres where there is none. Raises SchemaMismatch, StorageUnavailable, SettingInvalid,
    EmbeddedPostgresFailed.
    """
    async with postgres(settings, share=True, creating=creating) as found:
        database = await connect(found.url, settings)
        try:
            if not migrating:
                await prepare(database, may_migrate=found.is_ours and not settings.read_only)
            yield database
        finally:
            await database.close()


async def connect(url: str, settings: Settings) -> Database:
    """A pool as the settings describe it. Raises StorageUnavailable, SettingInvalid."""
    whose = "our own database" if settings.database_url is None else "the database (--database-url, YDOC_DATABASE_URL)"
    return await Database.open(
        url,
        whose=whose,
        pool_size=settings.pool_size,
        statement_timeout_s=settings.statement_timeout_s,
        lock_timeout_s=settings.lock_timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        read_only=settings.read_only,
        wait_timeout_s=settings.pool_wait_timeout_s,
    )


async def prepare(database: Database, *, may_migrate: bool) -> None:
    """Raises SchemaMismatch when the schema is behind this release, unless it `may_migrate` it, as one of our own.

    The next release's schema is fine for both: that is how a release is rolled back.
    """
    async with database.acquire() as connection:
        pending = await pending_migrations(connection)
        if pending and may_migrate:
            await migrate(connection)
            return
    needed = [migration.name for migration in pending if migration.when == "before"]
    if needed:
        raise SchemaMismatch(
            f"the database lacks migrations of this release ({len(needed)}, from {needed[0]} on): "
            "run `ydoc-store migrate` with the same --database-url or --data-dir first"
        )


def require_cluster(data_dir: Path) -> None:
    """Raises SettingInvalid where nobody has made a Postgres of ours yet."""
    folder = DataFolder(data_dir.resolve())
    if not folder.cluster.exists() and folder.major() is None:
        raise SettingInvalid(f"no data folder at {data_dir} (--data-dir, YDOC_DATA_DIR): `ydoc-store serve` makes it")


def running_address(data_dir: Path) -> str | None:
    """The URL of our own Postgres if a service runs it now; None when nobody holds the folder.

    Raises EmbeddedPostgresFailed where somebody holds it and this account may not look.
    """
    folder = DataFolder(data_dir.resolve())
    try:
        with folder.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        # Held: the kernel says so, which is worth more than any file that the holder left.
        found = re.search(
            r"^unix_socket_directories = '([^']+)'$",
            (folder.configuration / "postgresql.conf").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        return address(Path(found[1])) if found else None
    except PermissionError as error:
        raise EmbeddedPostgresFailed(f"{folder.root} is closed to this account: {error.strerror}") from error


def where_of(url: str) -> str:
    """A database's URL without what may be secret in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "its socket", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "schema ydoc of the given database"
    return f"schema ydoc of database {parts.path.lstrip('/') or '(default)'} at {host}{port}"
