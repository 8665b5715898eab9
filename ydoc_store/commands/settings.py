"""`ydoc-store settings`: what this process would run with, where each value came from, and why the default.

Of a database's URL everything is shown but its password.
"""

from __future__ import annotations

import click

from ydoc_store.commands.options import DONE, database_options, json_option, with_settings
from ydoc_store.commands.output import emit_json, size
from ydoc_store.setting_rows import SettingRow, describe
from ydoc_store.settings import Settings


@click.command("settings")
@json_option
@database_options
@with_settings
def settings_command(settings: Settings, /, *, as_json: bool) -> int:
    """Every setting: value, source, unit, default and the default's reason."""
    rows = describe(settings)
    if as_json:
        for row in rows:
            emit_json(row._asdict())
        return DONE
    width = max(len(row.variable) for row in rows)
    for row in rows:
        told = _shown(row.value, row)
        if row.source != "default":
            told += f"   ({row.source}; default {_shown(row.default, row)})"
        click.echo(f"{row.variable.ljust(width)}  {told}")
        click.echo(f"{'':{width}}  {row.reason}")
    return DONE


def _shown(value: object, row: SettingRow) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if row.unit == "bytes" and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        value = f"{value:g}"
    return f"{value} {row.unit}" if row.unit in ("s", "ms", "days") else str(value)
