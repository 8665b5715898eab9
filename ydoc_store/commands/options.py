"""What the commands share: their flags, how settings come from them, and how an asynchronous body is run.

Each flag is a setting's name and beats its YDOC_… variable. Nothing here prints a result.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

import click

from ydoc_store import logs
from ydoc_store.errors import InvalidName, NoSuchDocument, SettingInvalid
from ydoc_store.names import DEFAULT_TENANT, parse_name
from ydoc_store.postgres import open_database
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database

P = ParamSpec("P")
DatabaseCommand = Callable[Concatenate[Database, Settings, P], Coroutine[Any, Any, int]]

DONE = 0
FOUND_SOMETHING_WRONG = 1


class DocumentName(click.ParamType[str]):
    """A document's name, held to the same rule as in a URL but not percent-decoded."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_name(str(value))
        except InvalidName as error:
            self.fail(str(error), param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")

tenant_option = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose documents.")


def database_options(command: Callable[..., int]) -> Callable[..., int]:
    """Adds --database-url and --data-dir."""
    command = click.option(
        "--data-dir", metavar="PATH", help="Where our own Postgres keeps its files. [YDOC_DATA_DIR]"
    )(command)
    return click.option(
        "--database-url",
        metavar="URL",
        help="A Postgres of yours instead (15 to 18). [YDOC_DATABASE_URL]",
    )(command)


def with_settings(command: Callable[Concatenate[Settings, P], int]) -> Callable[..., int]:
    """Runs `command(settings, …)`, taking the flags that are settings out of its arguments."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        flags = {name: kwargs.pop(name) for name in list(kwargs) if name in Settings.model_fields}
        # a flag that was not given must not hide its variable
        settings = Settings.load({name: value for name, value in flags.items() if value is not False})
        logs.configure(settings.log_format, settings.log_level)
        return command(settings, *args, **kwargs)

    return run


def with_database(command: DatabaseCommand[P]) -> Callable[..., int]:
    """Runs `await command(database, settings, …)` on the Postgres that the settings name, or on our own.

    The schema is one that this release works on; otherwise the error names the command that mends it.
    """
    return _on_database(command, migrating=False, creating=False)


def with_database_or_a_new_one(command: DatabaseCommand[P]) -> Callable[..., int]:
    """As `with_database`, for a command that may be the first on a data folder; the others refuse an empty one."""
    return _on_database(command, migrating=False, creating=True)


def with_database_as_it_is(command: DatabaseCommand[P]) -> Callable[..., int]:
    """As `with_database`, whatever the schema is: for the command that changes it."""
    return _on_database(command, migrating=True, creating=True)


def _on_database(command: DatabaseCommand[P], *, migrating: bool, creating: bool) -> Callable[..., int]:
    async def body(settings: Settings, *args: Any, **kwargs: Any) -> int:
        async with open_database(settings, migrating=migrating, creating=creating) as database:
            return await command(database, settings, *args, **kwargs)

    @database_options
    @with_settings
    @functools.wraps(command)
    def run(settings: Settings, *args: Any, **kwargs: Any) -> int:
        return asyncio.run(body(settings, *args, **kwargs))

    return run


def require_writes(settings: Settings) -> None:
    """For a command that writes. Raises SettingInvalid where nothing may be written."""
    if settings.read_only:
        raise SettingInvalid("this command writes, and YDOC_READ_ONLY is set: unset it for this command")


async def found(name: str, reading: Awaitable[Any]) -> Any:
    """The result of `reading`. Raises NoSuchDocument, naming the document, where it is None."""
    result = await reading
    if result is None:
        raise NoSuchDocument(f"no document is named {name!r}")
    return result
