"""`ydoc-store export`: one document's content out to a file, or all of them to a directory or another store.

The epoch's marker never leaves with an export: what was written can be imported anywhere; `imports` is the way back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import click
import orjson

from ydoc_store.commands.options import (
    DONE,
    FOUND_SOMETHING_WRONG,
    DocumentName,
    found,
    tenant_option,
    with_database,
)
from ydoc_store.commands.output import counted
from ydoc_store.errors import CorruptDocument, DocumentDeleted, InvalidUpdate, NoSuchDocument
from ydoc_store.settings import Settings
from ydoc_store.sources import directory, hocuspocus_sqlite
from ydoc_store.storage.documents import Document, find_document, list_documents
from ydoc_store.storage.history import read_at
from ydoc_store.storage.loader import Absent, StoredDocument, load
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import frame, frames
from ydoc_store.yjs.markers import without_markers

ExportFormat = Literal["update", "log", "json"]
PAGE_DOCUMENTS = 1_000


@click.command("export")
@click.argument("name", metavar="NAME | --all PATH")
@click.option("--all", "every", is_flag=True, help="Every document, into the new directory or file PATH.")
@click.option(
    "--to",
    "store",
    type=click.Choice(["directory", "hocuspocus-sqlite"]),
    default="directory",
    show_default=True,
    help="With --all: a file a document and an index, or a file that @hocuspocus/extension-sqlite serves from.",
)
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
@tenant_option
@with_database
async def export_command(
    database: Database,
    _settings: Settings,
    /,
    *,
    name: str,
    every: bool,
    store: Literal["directory", "hocuspocus-sqlite"],
    form: ExportFormat,
    at_seq: int | None,
    target: Path | None,
    tenant: str,
) -> int:
    """Write a document to a file or to stdout, or all of them to a new directory or database."""
    if every:
        if form != "update" or at_seq is not None or target is not None:
            raise click.UsageError("--all writes updates as they are now, to PATH")
        return await _export_all(database, tenant, store, Path(name))
    name = DocumentName().convert(name, None, None)
    if at_seq is not None:
        document: Document = await found(name, find_document(database, tenant, name))
        if at_seq > document.head:
            raise click.UsageError(f"{name} ends at seq {document.head}")
        updates, seq = (await read_at(database, document.id, at_seq)).updates(), at_seq
    else:
        stored = await load(database, tenant, name)
        if isinstance(stored, Absent):
            raise NoSuchDocument(f"no document is named {name!r}")
        updates, seq = updates_of(stored), stored.head
    _hand_over(exported(updates, form), form, target)
    click.echo(f"{name}: up to seq {seq}", err=True)
    return DONE


async def _export_all(database: Database, tenant: str, store: str, path: Path) -> int:
    """Each document's whole content; one that cannot be read is told and stops none of the others."""
    written = wrong = 0
    module = hocuspocus_sqlite if store == "hocuspocus-sqlite" else directory
    with module.writing(path) as writer:
        after_name: str | None = ""
        while after_name is not None:
            page = await list_documents(database, tenant, after_name=after_name, limit=PAGE_DOCUMENTS)
            for document in page:
                try:
                    stored = await load(database, tenant, document.name)
                    if isinstance(stored, StoredDocument):
                        writer.write(document.name, whole_update(stored), seq=stored.head)
                        written += 1
                except DocumentDeleted:
                    continue
                except (CorruptDocument, InvalidUpdate) as error:
                    wrong += 1
                    click.echo(f"{document.name}: not exported: {error}", err=True)
            after_name = page[-1].name if len(page) == PAGE_DOCUMENTS else None
    not_exported = f", {wrong:,} could not be read" if wrong else ""
    click.echo(f"{counted(written, 'document')} exported to {path}{not_exported}", err=True)
    return FOUND_SOMETHING_WRONG if wrong else DONE


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
