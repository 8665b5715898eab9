"""`ydoc-store migrate`: bring a database's schema up to this release. What a migration is lives in storage."""

from __future__ import annotations

import click

from ydoc_store.commands.options import DONE, json_option, require_writes, with_database_as_it_is
from ydoc_store.commands.output import emit_json
from ydoc_store.settings import Settings
from ydoc_store.storage.migrate import migrate
from ydoc_store.storage.pool import Database


@click.command("migrate")
@json_option
@with_database_as_it_is
async def migrate_command(database: Database, settings: Settings, /, *, as_json: bool) -> int:
    """Bring the database's schema up to this release."""
    require_writes(settings)
    async with database.acquire() as connection:
        migrated = await migrate(connection)
    if as_json:
        emit_json({"applied": list(migrated.applied), "current": migrated.current})
    else:
        for name in migrated.applied:
            click.echo(f"applied {name}")
        click.echo(f"the schema is at {migrated.current}{'' if migrated.applied else ' already'}")
    return DONE
