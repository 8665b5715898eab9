"""`ydoc-store incarnation show|bump`: which database the nodes think this is, and telling them that it is another."""

from __future__ import annotations

from dataclasses import asdict

import click

from ydoc_store.commands.options import DONE, json_option, with_database
from ydoc_store.commands.output import emit_row
from ydoc_store.settings import Settings
from ydoc_store.storage.incarnation import bump_incarnation, show_incarnation
from ydoc_store.storage.pool import Database


@click.group("incarnation")
def incarnation_command() -> None:
    """Whether this is still the database that the nodes know."""


@incarnation_command.command("show")
@json_option
@with_database
async def show_command(database: Database, _settings: Settings, /, *, as_json: bool) -> int:
    """What nodes compare: where one of these changes, every room is loaded anew."""
    emit_row(asdict(await show_incarnation(database)), as_json=as_json)
    return DONE


@incarnation_command.command("bump")
@json_option
@with_database
async def bump_command(database: Database, _settings: Settings, /, *, as_json: bool) -> int:
    """After loading a dump back into tables that were not dropped: every client syncs again."""
    emit_row(asdict(await bump_incarnation(database)), as_json=as_json)
    return DONE
