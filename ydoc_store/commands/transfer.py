"""`ydoc-store export` and `import`: a document's content out to a file, and updates from a file into the log.

What comes in goes through a room like an editor's updates, so that the same limits, the same guards and the same
commits hold for it; see `importing`. The epoch's marker never leaves with an export: the file can be imported
anywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO, Literal

import click
import orjson

from ydoc_store.commands.importing import ImportReport, import_updates, read_updates
from ydoc_store.commands.options import DONE, DocumentName, json_option, with_database, with_database_or_a_new_one
from ydoc_store.commands.output import counted, emit_json, size
from ydoc_store.errors import DocumentDeleted, NoSuchDocument
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.relay.service import update_limits
from ydoc_store.settings import Settings
from ydoc_store.storage.loader import Absent, StoredDocument, load
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import frame, frames
from ydoc_store.yjs.markers import without_markers

ExportFormat = Literal["update", "log", "json"]


@click.command("export")
@click.argument("name", type=DocumentName())
@click.option(
    "--format",
    "form",
    type=click.Choice(["update", "log", "json"]),
    default="update",
    show_default=True,
    help="One Yjs update; the snapshot and the updates after it as lib0 frames; or the content for people.",
)
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="Else stdout.")
@with_database
async def export_command(
    database: Database, _settings: Settings, /, *, name: str, form: ExportFormat, target: Path | None
) -> int:
    """Write a document to a file or to stdout."""
    stored = await load(database, DEFAULT_TENANT, name)
    if isinstance(stored, Absent):
        raise NoSuchDocument(f"no document is named {name!r}")
    _hand_over(exported(stored, form), form, target)
    click.echo(f"{name}: up to seq {stored.head}", err=True)
    return DONE


def _hand_over(content: bytes, form: ExportFormat, target: Path | None) -> None:
    if target is not None:
        target.write_bytes(content)
        return
    stdout = sys.stdout.buffer
    if form != "json" and stdout.isatty():
        raise click.UsageError("these bytes are not for a terminal: name a file with -o, or use --format json")
    stdout.write(content)
    stdout.flush()


def exported(stored: StoredDocument, form: ExportFormat) -> bytes:
    """The document's whole content in one of the three forms."""
    if form == "log":
        rows = [row.frames for row in stored.tail]
        snapshot = stored.snapshot.bytes if stored.snapshot is not None else None
        return b"".join(rows if snapshot is None else [frame(snapshot), *rows])
    update = whole_update(stored)
    if form == "update":
        return update
    return orjson.dumps(to_json(update), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def whole_update(stored: StoredDocument) -> bytes:
    """Snapshot and tail as one update, without the epoch's marker."""
    parts = [update for row in stored.tail for update in frames(row.frames)]
    snapshot = stored.snapshot.bytes if stored.snapshot is not None else None
    return without_markers(join(parts if snapshot is None else [snapshot, *parts]))


@click.command("import")
@click.argument("name", type=DocumentName())
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "update", "log"]),
    default="auto",
    show_default=True,
    help="One Yjs update, or a log of updates as lib0 frames.",
)
@json_option
@with_database_or_a_new_one
async def import_command(
    database: Database,
    settings: Settings,
    /,
    *,
    name: str,
    source: BinaryIO,
    form: Literal["auto", "update", "log"],
    as_json: bool,
) -> int:
    """Append the updates of FILE (- for stdin) to a document, which begins with them where it does not exist.

    What the document holds already is not stored again, so an import that broke off can be repeated.
    """
    updates = read_updates(source.read(), form, update_limits(settings))
    total_bytes = sum(map(len, updates))
    # stdout belongs to the result, and a bar to a terminal
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total_bytes, label=name, file=sys.stderr, hidden=hidden) as bar:
        try:
            report = await import_updates(database, settings, name, updates, bar.update)
        except DocumentDeleted:
            raise DocumentDeleted(
                f"{name!r} was deleted: `ydoc-store documents undelete` brings it back, "
                "`ydoc-store documents recreate` begins it anew"
            ) from None
    _tell(name, report, as_json=as_json)
    return DONE


def _tell(name: str, report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        emit_json({"name": name, **report._asdict()})
        return
    click.echo(
        f"{name}: {report.accepted:,} of {counted(report.updates, 'update')} accepted ({size(report.bytes)} read), "
        f"{report.nothing_new:,} held nothing new; it is at seq {report.head:,}"
    )
