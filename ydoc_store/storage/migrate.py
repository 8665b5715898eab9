"""Numbered SQL, applied once each, forward only, and never over an edited file.

A ledger keeps every applied file's name and checksum. An advisory lock makes two `migrate` at once take turns.
Each file runs in a transaction of its own, together with its ledger row. The files say whether they go before or
after the deployment; a release can run on the next one's schema, so an unknown newer file is refused here only
when we are asked to migrate, not when we serve.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ydoc_store.errors import SchemaMismatch
from ydoc_store.storage.pool import mapping_errors

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Connection

# "ydocmigr" read as a number: any constant will do, as long as nobody else's is the same.
MIGRATION_LOCK = 0x79646F636D696772

CREATE_LEDGER = """
CREATE SCHEMA IF NOT EXISTS ydoc;
CREATE TABLE IF NOT EXISTS ydoc.migrations (
    number     integer CONSTRAINT migrations_pkey PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
READ_ENCODING = "SELECT current_setting('server_encoding')"
LEDGER_EXISTS = "SELECT to_regclass('ydoc.migrations') IS NOT NULL"
READ_LEDGER = "SELECT number, name, checksum FROM ydoc.migrations ORDER BY number"
WRITE_LEDGER = "INSERT INTO ydoc.migrations (number, name, checksum) VALUES ($1, $2, $3)"
TAKE_MIGRATION_LOCK = "SELECT pg_advisory_lock($1)"
RELEASE_MIGRATION_LOCK = "SELECT pg_advisory_unlock($1)"
# A migration may have to wait for a running statement, and may rewrite a table.
LIFT_TIMEOUTS = "SET statement_timeout = 0; SET lock_timeout = 0"
RESTORE_TIMEOUTS = "RESET statement_timeout; RESET lock_timeout"

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_WHEN = re.compile(r"-- when: +(before|after) the deployment\n")
# A pool's connections give up on their statements; a migration takes as long as it takes.
_PATIENCE_S = 7 * 24 * 3_600.0


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    when: Literal["before", "after"]
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` did: the names it applied now, in order (none when the schema was current)."""

    applied: tuple[str, ...]
    current: int


def migrations_folder() -> Path:
    """Beside this module in an installed wheel, at the top of the checkout otherwise."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """All migrations in order. Raises SchemaMismatch for a file that breaks the rules of this folder."""
    folder = folder or migrations_folder()
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise SchemaMismatch(f"{path.name}: a migration is named like 0001_what_it_does.sql")
        sql = path.read_text(encoding="utf-8")
        when = _WHEN.match(sql)
        if when is None:
            raise SchemaMismatch(f"{path.name}: its first line must say `-- when: before the deployment` or after")
        side: Literal["before", "after"] = "before" if when[1] == "before" else "after"
        found.append(Migration(int(match[1]), path.stem, side, sql))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaMismatch(f"{folder.name}/: the numbers must run from 1 without a hole or a repetition")
    return found


async def migrate(connection: Connection, folder: Path | None = None) -> Migrated:
    """Bring the schema up to this release; safe to call from several places at once, and again.

    Raises SchemaMismatch, having changed nothing, when an applied file was edited since or is unknown to this
    release, or the database cannot hold every document's name.
    """
    migrations = read_migrations(folder)
    with mapping_errors("migrating the schema"):
        await _check_encoding(connection)
        await connection.execute(LIFT_TIMEOUTS)
        await connection.execute(TAKE_MIGRATION_LOCK, MIGRATION_LOCK, timeout=_PATIENCE_S)
        try:
            await connection.execute(CREATE_LEDGER)
            known = _judge(await connection.fetch(READ_LEDGER), migrations, refuse_unknown=True)
            for migration in migrations[known:]:
                async with connection.transaction():
                    await connection.execute(migration.sql, timeout=_PATIENCE_S)
                    await connection.execute(WRITE_LEDGER, migration.number, migration.name, migration.checksum)
        finally:
            # On a connection that is gone there is nothing to release, and the error that tells why is on its way.
            if not connection.is_closed():
                await connection.execute(RELEASE_MIGRATION_LOCK, MIGRATION_LOCK)
                await connection.execute(RESTORE_TIMEOUTS)
    return Migrated(tuple(migration.name for migration in migrations[known:]), len(migrations))


async def pending_migrations(connection: Connection, folder: Path | None = None) -> list[Migration]:
    """The migrations that this database still lacks; none when it is current or newer (the next release's).

    Raises SchemaMismatch when an applied file was edited since, or the database's encoding is not UTF8.
    """
    migrations = read_migrations(folder)
    with mapping_errors("reading the schema's ledger"):
        await _check_encoding(connection)
        if not await connection.fetchval(LEDGER_EXISTS):
            return migrations
        ledger = await connection.fetch(READ_LEDGER)
    return migrations[_judge(ledger, migrations, refuse_unknown=False) :]


async def _check_encoding(connection: Connection) -> None:
    encoding = await connection.fetchval(READ_ENCODING)
    if encoding != "UTF8":
        raise SchemaMismatch(
            f"the database's encoding is {encoding}, which cannot hold every document's name: "
            "use one that was created with ENCODING 'UTF8'"
        )


def _judge(ledger: list, migrations: list[Migration], *, refuse_unknown: bool) -> int:  # type: ignore[type-arg] # asyncpg's records
    """How many of `migrations` are applied; refuses a ledger that contradicts the files."""
    by_number = {migration.number: migration for migration in migrations}
    applied = 0
    for number, name, checksum in ledger:
        migration = by_number.get(number)
        if number != applied + 1 and migration is not None:
            raise SchemaMismatch(
                f"the ledger holds migration {number} ({name}) and lacks {applied + 1}: "
                "it was edited, or belongs to something else"
            )
        if migration is None:
            if refuse_unknown:
                raise SchemaMismatch(
                    f"the database holds migration {number} ({name}), which this release does not know: "
                    "it was migrated by a newer release; migrate with that one"
                )
            continue
        if (migration.name, migration.checksum) != (name, checksum):
            raise SchemaMismatch(
                f"migration {number} ({name}) is not the file that was applied: it was edited since. "
                "Restore the file; a correction is a new migration"
            )
        applied = number
    return applied
