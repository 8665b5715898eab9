"""`ydoc-store streams list|export|delete`: the streams of `/v1/stream`, as an operator looks at them.

What is written out is what a reader is given, or the log that it is made of; a stream of any size goes through a page
at a time. Looking at a stream does not count as its use.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Literal

import click
import orjson

from ydoc_store.commands.options import (
    DONE,
    FOUND_SOMETHING_WRONG,
    DocumentName,
    json_option,
    require_writes,
    tenant_option,
    with_database,
)
from ydoc_store.commands.output import counted, emit_json, emit_rows
from ydoc_store.errors import CorruptDocument, NoSuchStream
from ydoc_store.settings import Settings
from ydoc_store.sources.directory import file_name, make_empty, whole_file
from ydoc_store.storage.pool import Database
from ydoc_store.storage.stream_lists import ListedStream, list_streams, read_whole
from ydoc_store.storage.streams import StoredStream, delete_stream, find_stream, media_type_of
from ydoc_store.yjs.lib0 import frame

PAGE_STREAMS = 1_000
INDEX = "streams.jsonl"
LIST_COLUMNS = (
    "name",
    "content_type",
    "head",
    "size_bytes",
    "near_limit",
    "closed_at",
    "ttl_s",
    "expires_at",
    "changed_at",
)
ExportFormat = Literal["content", "log"]


@click.group("streams")
def streams_command() -> None:
    """List the streams of /v1/stream, write them to files, or delete one."""


@streams_command.command("list")
@tenant_option
@json_option
@with_database
async def list_command(database: Database, settings: Settings, /, *, tenant: str, as_json: bool) -> int:
    """Every stream that is alive: its type, appends, bytes, and when it ends."""
    if as_json:
        async for stream in _streams(database, tenant):
            emit_json(_row(stream, settings))
        return DONE
    rows = [_row(stream, settings) async for stream in _streams(database, tenant)]
    emit_rows(rows, as_json=False, columns=LIST_COLUMNS)
    return DONE


@streams_command.command("export")
@click.argument("name", metavar="NAME | --all PATH")
@click.option("--all", "every", is_flag=True, help="Every stream, into the new directory PATH: a file each, an index.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["content", "log"]),
    default="content",
    show_default=True,
    help="What a reader is given, of JSON one array; or each append by itself, as lib0 frames.",
)
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
    form: ExportFormat,
    target: Path | None,
    tenant: str,
) -> int:
    """Write a stream to a file or to stdout, or all of them to a new directory."""
    if every:
        if target is not None:
            raise click.UsageError("--all writes to PATH")
        return await _export_all(database, tenant, form, Path(name))
    stream = await find_stream(database, tenant, DocumentName().convert(name, None, None))
    if target is not None:
        with whole_file(target) as file:
            await _export(database, stream, form, file)
    else:
        if sys.stdout.buffer.isatty() and (form == "log" or not _is_text(stream)):
            raise click.UsageError("these bytes are not for a terminal: name a file with -o")
        await _export(database, stream, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    click.echo(f"{name}: up to seq {stream.head}", err=True)
    return DONE


@streams_command.command("delete")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def delete_command(database: Database, settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """End a stream for everyone, for good: nothing brings its bytes back."""
    require_writes(settings)
    await delete_stream(database, tenant, name)
    if as_json:
        emit_json({"name": name, "deleted": True})
    else:
        click.echo(f"{name}: deleted; its bytes go with the compactor's next pass")
    return DONE


async def _export_all(database: Database, tenant: str, form: ExportFormat, folder: Path) -> int:
    """One that cannot be read is told and stops none of the others. The index is written last."""
    make_empty(folder)
    rows: list[bytes] = []
    wrong = 0
    async for listed in _streams(database, tenant):
        file = file_name(listed.name, ".log" if form == "log" else ".stream")
        try:
            stream = await find_stream(database, tenant, listed.name)
            with whole_file(folder / file) as opened:
                size, digest = await _export(database, stream, form, opened)
        except NoSuchStream:
            # Deleted or expired since the list was read.
            continue
        except CorruptDocument as error:
            wrong += 1
            click.echo(f"{listed.name}: not exported: {error}", err=True)
            continue
        row = {"name": listed.name, "file": file, "format": form, "bytes": size, "sha256": digest, "seq": stream.head}
        row |= {"content_type": stream.content_type, "ttl_s": stream.ttl_s, "expires_at": stream.expires_text}
        rows.append(orjson.dumps(row | {"closed": stream.closed}, option=orjson.OPT_APPEND_NEWLINE))
    with whole_file(folder / INDEX) as index:
        index.writelines(rows)
    not_exported = f", {wrong:,} could not be read" if wrong else ""
    click.echo(f"{counted(len(rows), 'stream')} exported to {folder}{not_exported}", err=True)
    return FOUND_SOMETHING_WRONG if wrong else DONE


async def _export(database: Database, stream: StoredStream, form: ExportFormat, file: BinaryIO) -> tuple[int, str]:
    """Write it; returns how many bytes that were, and their SHA-256."""
    size, digest = 0, hashlib.sha256()
    async for part in _parts(database, stream, form):
        file.write(part)
        size += len(part)
        digest.update(part)
    return size, digest.hexdigest()


async def _parts(database: Database, stream: StoredStream, form: ExportFormat) -> AsyncIterator[bytes]:
    appended = read_whole(database, stream)
    if form == "log":
        async for update in appended:
            yield frame(update)
    elif media_type_of(stream.content_type) != "application/json":
        async for update in appended:
            yield update
    else:
        separator = b"["
        async for update in appended:
            yield separator + update
            separator = b","
        yield b"[]\n" if separator == b"[" else b"]\n"


async def _streams(database: Database, tenant: str) -> AsyncIterator[ListedStream]:
    after_name: str | None = ""
    while after_name is not None:
        page = await list_streams(database, tenant, after_name, PAGE_STREAMS)
        for stream in page:
            yield stream
        after_name = page[-1].name if len(page) == PAGE_STREAMS else None


def _row(stream: ListedStream, settings: Settings) -> dict[str, object]:
    near_bytes = settings.stream_bytes_max * settings.document_warn_share
    return {**asdict(stream), "near_limit": stream.size_bytes >= near_bytes}


def _is_text(stream: StoredStream) -> bool:
    media_type = media_type_of(stream.content_type)
    return media_type == "application/json" or media_type.startswith("text/")
