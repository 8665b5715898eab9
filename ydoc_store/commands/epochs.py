"""`ydoc-store documents delete|undelete|recreate|purge|epochs`: what becomes of a document as a whole.

Each is one transaction of storage, which says what holds afterwards; here is what is asked and what is told.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from ydoc_store.commands.options import DONE, DocumentName, json_option, tenant_option, with_database
from ydoc_store.commands.output import counted, emit_json, emit_rows
from ydoc_store.errors import NoSuchDocument
from ydoc_store.settings import Settings
from ydoc_store.storage.epochs import (
    delete_document,
    list_epochs,
    purge_document,
    recreate_document,
    undelete_document,
)
from ydoc_store.storage.pool import Database

EPOCH_COLUMNS = ("epoch", "head", "stored_bytes", "created_at", "deleted_at", "replaced_at", "purged_at")


@click.command("delete")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def delete_command(database: Database, _settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """Close a document for everyone, for good; its content stays for `undelete` until it is purged."""
    tombstone = await delete_document(database, tenant, name)
    if as_json:
        emit_json({"name": name, **asdict(tombstone)})
    elif tombstone.changed:
        click.echo(f"{name}: deleted at seq {tombstone.head:,}; its editors are closed with 4404")
    elif tombstone.deleted_at is not None:
        click.echo(f"{name}: was deleted already, at {tombstone.deleted_at.isoformat(sep=' ', timespec='seconds')}")
    return DONE


@click.command("undelete")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def undelete_command(database: Database, _settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """Take a deletion back: the document goes on where it was."""
    epoch = await undelete_document(database, tenant, name)
    if as_json:
        emit_json({"name": name, **asdict(epoch)})
    else:
        click.echo(f"{name}: is back, at seq {epoch.head:,} of epoch {epoch.epoch}")
    return DONE


@click.command("recreate")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def recreate_command(database: Database, _settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """Begin a deleted document anew, empty: who still holds the old content is refused, never merged."""
    new = await recreate_document(database, tenant, name)
    if as_json:
        emit_json({"name": name, **asdict(new)})
    else:
        click.echo(f"{name}: begins anew as epoch {new.epoch}; epoch {new.replaced_epoch} is kept until it is purged")
    return DONE


@click.command("purge")
@click.argument("name", type=DocumentName())
@click.option("--replaced", "replaced_only", is_flag=True, help="Only the epochs that a newer one has replaced.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@tenant_option
@json_option
@with_database
async def purge_command(
    database: Database, _settings: Settings, /, *, name: str, replaced_only: bool, yes: bool, tenant: str, as_json: bool
) -> int:
    """Delete content and history of a deleted document for good; the tombstone alone is left."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("a purge cannot be taken back: say --yes")
        what = "its replaced epochs" if replaced_only else "its content and history"
        click.confirm(f"{name}: delete {what} for good?", abort=True, err=True)
    purged = await purge_document(database, tenant, name, replaced_only=replaced_only)
    if as_json:
        emit_json({"name": name, **asdict(purged)})
    else:
        click.echo(
            f"{name}: purged {counted(purged.epochs, 'epoch')}, {counted(purged.updates, 'row')} of the log, "
            f"{counted(purged.snapshots, 'snapshot')} and {counted(purged.segments, 'history segment')}"
        )
    return DONE


@click.command("epochs")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def epochs_command(database: Database, _settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """Every history that a document has had: the current one last, those before it until they are purged."""
    epochs = await list_epochs(database, tenant, name)
    if not epochs:
        raise NoSuchDocument(f"no document is named {name!r}")
    emit_rows(({"name": name, **asdict(epoch)} for epoch in epochs), as_json=as_json, columns=EPOCH_COLUMNS)
    return DONE


EPOCH_COMMANDS = (delete_command, undelete_command, recreate_command, purge_command, epochs_command)
"""What joins the group `documents`."""
