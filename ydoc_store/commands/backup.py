"""`ydoc-store backup PATH` and `restore PATH --data-dir NEW`: our own Postgres, whole and checked.

How a cluster is copied lives in `embedded.backup`. Here is what makes a restored one fit for use: its schema is
brought up to this release, its incarnation is a new one, so that every client syncs anew, and every document and
stream is verified. A given database is backed up with Postgres's own means, which README describes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

import click

from ydoc_store.commands.options import DONE, FOUND_SOMETHING_WRONG, database_options, json_option, with_settings
from ydoc_store.commands.output import counted, emit_json, size
from ydoc_store.commands.verify import verify_all
from ydoc_store.embedded.backup import back_up, read_backup, restoring
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.errors import SettingInvalid
from ydoc_store.postgres import open_database, postgres
from ydoc_store.settings import Settings
from ydoc_store.storage.incarnation import bump_incarnation


@click.command("backup")
@click.argument("target", metavar="PATH", type=click.Path(path_type=Path))
@json_option
@database_options
@with_settings
def backup_command(settings: Settings, /, *, target: Path, as_json: bool) -> int:
    """Copy our own Postgres to a new folder, whether it serves meanwhile or not."""
    _require_our_own(settings)
    return asyncio.run(_back_up(settings, target.absolute(), as_json=as_json))


async def _back_up(settings: Settings, target: Path, *, as_json: bool) -> int:
    started_s = time.monotonic()
    async with postgres(settings, share=True, creating=False) as found:
        made = await back_up(found.url, DataFolder(settings.data_dir.resolve()), target)
    if as_json:
        emit_json({"path": str(target), **asdict(made)})
        return DONE
    took_s = time.monotonic() - started_s
    click.echo(f"{counted(made.files, 'file')} ({size(made.bytes)}) backed up to {target} in {took_s:.1f} s")
    click.echo(f"`ydoc-store restore {target} --data-dir NEW` makes a data folder of it", err=True)
    return DONE


@click.command("restore")
@click.argument("source", metavar="PATH", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@database_options
@with_settings
def restore_command(settings: Settings, /, *, source: Path, as_json: bool) -> int:
    """Make a new data folder of a backup, and verify every document in it."""
    _require_our_own(settings)
    return asyncio.run(_restore(settings, source, as_json=as_json))


async def _restore(settings: Settings, source: Path, *, as_json: bool) -> int:
    folder = DataFolder(settings.data_dir.resolve())
    made = read_backup(source)
    async with restoring(source, folder) as inner:
        inside = settings.model_copy(update={"data_dir": inner, "read_only": False})
        async with open_database(inside) as database:
            await bump_incarnation(database)
            verified = await verify_all(database)
    if as_json:
        emit_json({"data_dir": str(folder.root), "made_at": made.made_at, **asdict(verified)})
    else:
        found = f"{verified.wrong:,} with something wrong" if verified.wrong else "all verified"
        held = f"{counted(verified.documents, 'document')} and {counted(verified.streams, 'stream')}"
        click.echo(f"{folder.root}: {held} as of {made.made_at}, {found}")
        click.echo(f"`ydoc-store serve --data-dir {folder.root}` serves them", err=True)
    return FOUND_SOMETHING_WRONG if verified.wrong else DONE


def _require_our_own(settings: Settings) -> None:
    if settings.database_url is not None:
        raise SettingInvalid(
            "this is for our own Postgres (--data-dir), and a database is given (--database-url, YDOC_DATABASE_URL): "
            "back it up with `pg_dump --format=custom --schema=ydoc`, or with WAL archiving; README tells how"
        )
