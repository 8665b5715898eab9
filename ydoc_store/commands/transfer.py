"""`ydoc-store export` and `import`: a document's content out to a file, and updates from a file into the log.

What comes in goes through a room like an editor's updates, so that the same limits, the same guards and the same
commits hold for it; see `importing`. The epoch's marker never leaves with an export: the file can be imported
anywhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO, Literal

import click
import orjson

from ydoc_store.commands.importing import ImportReport, import_updates, read_updates
from ydoc_store.commands.options import (
    DONE,
    DocumentName,
    found,
    json_option,
    require_writes,
    with_database,
    with_database_or_a_new_one,
)
from ydoc_store.commands.output import counted, emit_json, size
from ydoc_store.errors import DocumentDeleted, NoSuchDocument
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.relay.service import update_limits
from ydoc_store.settings import Settings
from ydoc_store.storage.documents import Document, find_document
from ydoc_store.storage.history import read_at
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
@click.option("--at-seq", type=click.IntRange(min=0), metavar="N", help="As it was there; `history` tells the seqs.")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="Else stdout.")
@with_database
async def export_command(
    database: Database,
    _settings: Settings,
    /,
    *,
    name: str,
    form: ExportFormat,
    at_seq: int | None,
    target: Path | None,
) -> int:
    """Write a document to a file or to stdout."""
    if at_seq is not None:
        document: Document = await found(name, find_document(database, DEFAULT_TENANT, name))
        if at_seq > document.head:
            raise click.UsageError(f"{name} ends at seq {document.head}")
        updates, seq = (await read_at(database, document.id, at_seq)).updates(), at_seq
    else:
        stored = await load(database, DEFAULT_TENANT, name)
        if isinstance(stored, Absent):
            raise NoSuchDocument(f"no document is named {name!r}")
        updates, seq = updates_of(stored), stored.head
    _hand_over(exported(updates, form), form, target)
    click.echo(f"{name}: up to seq {seq}", err=True)
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


def exported(updates: list[bytes], form: ExportFormat) -> bytes:
    """What these updates come to, in one of the three forms."""
    if form == "log":
        return b"".join(map(frame, updates))
    update = without_markers(join(updates))
    if form == "update":
        return update
    shown = to_json(update)
    try:
        return orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # It gives up at 254 levels, and types may nest that deep with values inside.
        return json.dumps(shown, indent=2, ensure_ascii=False).encode() + b"\n"


def whole_update(stored: StoredDocument) -> bytes:
    """Snapshot and tail as one update, without the epoch's marker."""
    return without_markers(join(updates_of(stored)))


def updates_of(stored: StoredDocument) -> list[bytes]:
    """The snapshot and the updates behind it, without the epoch's marker."""
    parts = [update for row in stored.tail for update in frames(row.frames)]
    snapshot = stored.snapshot.bytes if stored.snapshot is not None else None
    return parts if snapshot is None else [snapshot, *parts]


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
    require_writes(settings)
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
    if report.deletes_ahead:
        click.echo(
            f"warning: {counted(report.deletes_ahead, 'unit')} deleted that never came to this document: what their "
            "editors write there later will be gone (`ydoc-store documents show` tells whether anything waits)",
            err=True,
        )
    return DONE


def _tell(name: str, report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        emit_json({"name": name, **report._asdict()})
        return
    click.echo(
        f"{name}: {report.accepted:,} of {counted(report.updates, 'update')} accepted ({size(report.bytes)} read), "
        f"{report.nothing_new:,} held nothing new; it is at seq {report.head:,}"
    )
