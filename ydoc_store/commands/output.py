"""How results are shown: one JSON object a line for programs, aligned columns for people.

JSON keeps every field under its own name and in its own unit; people get sizes and ages that can be read. Nothing
here knows what a row means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
import orjson

Row = Mapping[str, Any]


def emit_json(row: Row) -> None:
    """One object, one line, on stdout."""
    click.echo(orjson.dumps(row, default=_plain).decode())


def emit_rows(rows: Iterable[Row], *, as_json: bool, columns: Sequence[str]) -> None:
    """Every row; as JSON with all its fields, for people with `columns` and a heading."""
    if as_json:
        for row in rows:
            emit_json(row)
        return
    lines = [[column.replace("_", " ") for column in columns]]
    lines += [[readable(column, row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def emit_row(row: Row, *, as_json: bool) -> None:
    """One thing with all its fields, one a line for people."""
    if as_json:
        emit_json(row)
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        click.echo(f"{name.replace('_', ' ').ljust(width)}  {readable(name, value)}".rstrip())


# Numbers that name something, and are copied into a command as they stand.
_NUMBERED: Final = ("port", "id", "oid", "identifier", "seq")


def readable(name: str, value: object) -> str:
    """A value for a person; the name's ending tells its unit."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() | float() if "bytes" in name.split("_"):
            return size(value)
        case float() if name.endswith("_s"):
            return f"{value:.3g} s" if value < 60 else str(timedelta(seconds=round(value)))
        case float():
            return f"{value:g}"
        case int() if name.split("_")[-1] in _NUMBERED:
            return str(value)
        case int():
            return f"{value:,}"
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case list() | tuple():
            return ", ".join(str(item) for item in value) or "-"
        case _:
            return str(value)


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of 1 or more."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count == int(count) else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB" if count != int(count) else f"{count:.0f} GiB"


def counted(count: int, thing: str) -> str:
    """A number of things in words, for a thing whose plural ends in s: `1 row`, `1,000 rows`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    return str(value)
