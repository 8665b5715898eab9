"""`ydoc-store import`: updates from a file into one document, or all documents of another store.

What comes in goes through a room like an editor's updates, so that the same limits, the same guards and the same
commits hold for it; see `importing` and, for other stores, `moving`.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import click

from ydoc_store.commands.importing import ImportReport, append, appending, read_updates
from ydoc_store.commands.moving import Moved, Wanted, move
from ydoc_store.commands.options import (
    DONE,
    FOUND_SOMETHING_WRONG,
    DocumentName,
    json_option,
    require_writes,
    tenant_option,
    with_database_or_a_new_one,
)
from ydoc_store.commands.output import counted, emit_json, size
from ydoc_store.errors import DocumentDeleted, ServerFault, SourceUnreadable
from ydoc_store.relay.service import update_limits
from ydoc_store.settings import Settings
from ydoc_store.sources.directory import directory
from ydoc_store.sources.hocuspocus_s3 import hocuspocus_s3
from ydoc_store.sources.hocuspocus_sqlite import hocuspocus_sqlite
from ydoc_store.sources.leveldb import leveldb
from ydoc_store.sources.pycrdt_store import pycrdt_store
from ydoc_store.sources.source import Source
from ydoc_store.sources.sql import sql
from ydoc_store.storage.pool import Database

KINDS = ("sql", "hocuspocus-sqlite", "hocuspocus-s3", "y-leveldb", "y-websocket", "pycrdt-store", "directory")


@click.command("import")
@click.argument("arguments", nargs=-1, metavar="NAME FILE | --from STORE [PATH]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "update", "log"]),
    default="auto",
    show_default=True,
    help="Of FILE: one Yjs update, or a log of updates as lib0 frames.",
)
@click.option("--from", "store", type=click.Choice(KINDS), help="Every document of another store, which lies at PATH.")
@click.option("--source-url", metavar="URL", help="For sql: postgresql://…, mysql://… or sqlite:///PATH.")
@click.option(
    "--source-url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with that URL in it, so that no list of processes shows its password.",
)
@click.option("--query", metavar="SQL", help="For sql: 'SELECT name, data FROM …', a row a document or an update.")
@click.option("--endpoint", metavar="URL", help="For hocuspocus-s3 (PATH is BUCKET/PREFIX): not Amazon's.")
@click.option("--rename", "renames", type=(str, str), multiple=True, metavar="OLD NEW", help="Another name here.")
@click.option("--merge", "merges", is_flag=True, help="Also into documents here that share no edit with the source's.")
@click.option("--dry-run", is_flag=True, help="Tell what would come, and store nothing.")
@tenant_option
@json_option
@with_database_or_a_new_one
async def import_command(
    database: Database,
    settings: Settings,
    /,
    *,
    arguments: tuple[str, ...],
    form: Literal["auto", "update", "log"],
    store: str | None,
    tenant: str,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> int:
    """Append updates to a document, which begins with them where it does not exist: those of FILE (- for stdin), or
    with --from those of every document of another store.

    What is here already is not stored again, so an import that broke off, or one of a store that is still written
    to, can be repeated.
    """
    if not dry_run:
        require_writes(settings)
    if store is not None:
        source = _source(store, arguments, options)
        async with AsyncExitStack() as stack:
            service = None if dry_run else await stack.enter_async_context(appending(database, settings))
            renames = dict(options["renames"])
            wanted = Wanted(database, settings, service, tenant, renames, merges=options["merges"])
            return await _import_all(source, wanted, as_json=as_json)
    if len(arguments) != 2 or dry_run or any(options.values()):
        raise click.UsageError("name a document and a FILE, or another store with --from")
    name, file = DocumentName().convert(arguments[0], None, None), arguments[1]
    try:
        with click.open_file(file, "rb") as opened:
            data = opened.read()
    except OSError as error:
        raise click.BadParameter(f"{file!r}: {error.strerror}", param_hint="FILE") from error
    updates = read_updates(data, form, update_limits(settings))
    return await _import_file(database, settings, tenant, name, updates, as_json=as_json)


def _source(store: str, arguments: tuple[str, ...], options: dict[str, Any]) -> Source:
    """What is to be read. Raises UsageError, SourceUnreadable."""
    url, url_file, query = options["source_url"], options["source_url_file"], options["query"]
    if store == "sql":
        if arguments or query is None or (url is None) == (url_file is None):
            raise click.UsageError("--from sql takes --source-url (or --source-url-file) and --query, and no PATH")
        return sql(url if url is not None else url_file.read_text(encoding="utf-8").strip(), query)
    if len(arguments) != 1 or url or url_file or query:
        raise click.UsageError(f"--from {store} takes one PATH: where that store is")
    place = arguments[0]
    if store == "hocuspocus-s3":
        return hocuspocus_s3(place, options["endpoint"])
    if options["endpoint"]:
        raise click.UsageError("--endpoint is for --from hocuspocus-s3")
    readers = {
        "hocuspocus-sqlite": hocuspocus_sqlite,
        "y-leveldb": leveldb,
        "y-websocket": leveldb,
        "pycrdt-store": pycrdt_store,
        "directory": directory,
    }
    return readers[store](Path(place))


async def _import_all(source: Source, wanted: Wanted, *, as_json: bool) -> int:
    """A line for each document that came, or did not; to a terminal with a bar, for those that did not."""
    shows_bar = sys.stderr.isatty()
    counts: Counter[str] = Counter()
    failed: list[Moved] = []
    new_bytes = 0
    async with source as opened:
        total = await opened.total()
        with click.progressbar(length=total, label="documents", file=sys.stderr, hidden=not shows_bar) as bar:
            try:
                async for moved in move(opened, wanted):
                    counts[moved.result] += 1
                    new_bytes += moved.new_bytes
                    if as_json:
                        emit_json(_row(moved))
                    elif not shows_bar:
                        click.echo(_line(moved))
                    elif not moved.is_well:
                        failed.append(moved)
                    bar.update(moved.entries)
            except (ServerFault, SourceUnreadable) as error:
                done = counted(counts.total(), "document")
                raise type(error)(f"{error} ({done} done with; the same command goes on from there)") from error
    for moved in failed:
        click.echo(_line(moved))
    told = ", ".join(f"{count:,} {result}" for result, count in sorted(counts.items()))
    click.echo(f"{counted(counts.total(), 'document')}: {told or 'none there'} ({size(new_bytes)} new)", err=True)
    return FOUND_SOMETHING_WRONG if counts["failed"] or counts["skipped"] else DONE


def _row(moved: Moved) -> dict[str, Any]:
    return {name: getattr(moved, name) for name in Moved.__slots__ if name != "entries"}


def _line(moved: Moved) -> str:
    source_name, name = (name if name.isprintable() else repr(name) for name in (moved.source_name, moved.name))
    line = f"{name if name == source_name else f'{source_name} as {name}'}: {moved.result}"
    if moved.new_bytes:
        line += f", {size(moved.new_bytes)} of {size(moved.bytes)}"
        line += " are new" if moved.exists else ""
    if moved.verified is not None:
        line += f", seq {moved.head:,}, verified" + (
            ", with more that was written here" if moved.verified == "held" else ""
        )
    if moved.deletes_ahead:
        line += f"; {_deletes_ahead(moved.deletes_ahead)}"
    return line + (f": {moved.reason}" if moved.reason else "")


def _deletes_ahead(units: int) -> str:
    return (
        f"warning: {counted(units, 'unit')} deleted that never came to this document: what their "
        "editors write there later will be gone (`ydoc-store documents show` tells whether anything waits)"
    )


async def _import_file(
    database: Database, settings: Settings, tenant: str, name: str, updates: list[bytes], *, as_json: bool
) -> int:
    total_bytes = sum(map(len, updates))
    # stdout belongs to the result, and a bar to a terminal
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total_bytes, label=name, file=sys.stderr, hidden=hidden) as bar:
        try:
            async with appending(database, settings) as service:
                report = await append(service, tenant, name, updates, bar.update)
        except DocumentDeleted:
            raise DocumentDeleted(
                f"{name!r} was deleted: `ydoc-store documents undelete` brings it back, "
                "`ydoc-store documents recreate` begins it anew"
            ) from None
    _tell(name, report, as_json=as_json)
    if report.deletes_ahead:
        click.echo(_deletes_ahead(report.deletes_ahead), err=True)
    return DONE


def _tell(name: str, report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        emit_json({"name": name, **report._asdict()})
        return
    click.echo(
        f"{name}: {report.accepted:,} of {counted(report.updates, 'update')} accepted ({size(report.bytes)} read), "
        f"{report.nothing_new:,} held nothing new; it is at seq {report.head:,}"
    )
