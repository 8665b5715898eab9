"""`ydoc-store documents list|show|set|compactions`: what is stored, as an operator looks at it.

But for `set` it reads only; what a document is made of is told by storage, and what waits in it by its content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import click

from ydoc_store.commands.options import (
    DONE,
    FOUND_SOMETHING_WRONG,
    DocumentName,
    found,
    json_option,
    tenant_option,
    with_database,
)
from ydoc_store.commands.output import emit_json, emit_row, emit_rows, size
from ydoc_store.commands.transfer import whole_update
from ydoc_store.errors import CorruptDocument, InvalidUpdate, YdocError
from ydoc_store.settings import Settings
from ydoc_store.storage.compactions import list_compactions
from ydoc_store.storage.documents import Document, find_document, list_documents
from ydoc_store.storage.keeping import set_keep_deleted
from ydoc_store.storage.loader import StoredDocument, load
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.document import decode_check

PAGE_DOCUMENTS = 1_000
LIST_COLUMNS = ("name", "head", "size_bytes", "tail_rows", "tail_bytes", "near_limit", "quarantined", "changed_at")
RUN_COLUMNS = (
    "started_at",
    "name",
    "result",
    "way",
    "rows_merged",
    "tail_bytes",
    "snapshot_bytes_before",
    "snapshot_bytes_after",
    "duration_s",
    "why",
)


@click.group("documents")
def documents_command() -> None:
    """List documents, look at one, or say whether it keeps what is deleted."""


@documents_command.command("list")
@click.option("--deleted", is_flag=True, help="Those with a tombstone too.")
@tenant_option
@json_option
@with_database
async def list_command(database: Database, settings: Settings, /, *, deleted: bool, tenant: str, as_json: bool) -> int:
    """Every document: its head, size, backlog and whether something is the matter with it."""
    if as_json:
        # a line as soon as it is known: there may be a million documents
        async for document in _documents(database, tenant, deleted=deleted):
            emit_json(_row(document, settings))
        return DONE
    rows = [_row(document, settings) async for document in _documents(database, tenant, deleted=deleted)]
    emit_rows(rows, as_json=False, columns=LIST_COLUMNS)
    return DONE


@documents_command.command("show")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def show_command(database: Database, settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """One document: snapshot, tail and history apart, what is pending in it, and its quarantine."""
    document: Document = await found(name, find_document(database, tenant, name))
    row = _row(document, settings)
    wrong: YdocError | None = None
    row["pending"] = None
    if document.deleted_at is None:
        try:
            row["pending"] = await _has_pending(database, tenant, name)
        except (CorruptDocument, InvalidUpdate) as error:
            wrong = error
    emit_row(row, as_json=as_json)
    if row["near_limit"]:
        limit = settings.document_bytes_max
        share = document.size_bytes / limit
        click.echo(
            f"warning: {share:.0%} of the {size(limit)} that a document may have (YDOC_DOCUMENT_BYTES_MAX); "
            "at 100% its editors are refused, readers are not",
            err=True,
        )
    if wrong is not None:
        click.echo(f"this document cannot be opened: {wrong} (`ydoc-store verify` tells everything)", err=True)
        return FOUND_SOMETHING_WRONG
    return DONE


async def _has_pending(database: Database, tenant: str, name: str) -> bool:
    stored = await load(database, tenant, name)
    return isinstance(stored, StoredDocument) and decode_check(whole_update(stored)).has_pending


@documents_command.command("set")
@click.argument("name", type=DocumentName())
@click.option(
    "keeps",
    "--keep-deleted/--collect-deleted",
    required=True,
    help="Keep deleted content for editors that run with `gc: false`, or drop it at the next compaction.",
)
@tenant_option
@json_option
@with_database
async def set_command(
    database: Database, _settings: Settings, /, *, name: str, keeps: bool, tenant: str, as_json: bool
) -> int:
    """Whether compactions keep what is deleted in a document, from the next one on."""
    await found(name, set_keep_deleted(database, tenant, name, keeps))
    if as_json:
        emit_json({"name": name, "keep_deleted": keeps})
    elif keeps:
        click.echo(f"{name}: deleted content is kept from now on; what a compaction has dropped does not come back")
    else:
        click.echo(f"{name}: deleted content goes at the next compaction, and with it the versions that need it")
    return DONE


@documents_command.command("compactions")
@click.argument("name", type=DocumentName(), required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@tenant_option
@json_option
@with_database
async def compactions_command(
    database: Database, _settings: Settings, /, *, name: str | None, limit: int, tenant: str, as_json: bool
) -> int:
    """What the compactor did last, with one document or with all, the newest first."""
    document_id = None
    if name is not None:
        document: Document = await found(name, find_document(database, tenant, name))
        document_id = document.id
    rows = []
    for listed in await list_compactions(database, document_id, limit):
        row: dict[str, Any] = {"id": listed.id, "name": listed.name, "started_at": listed.started_at}
        row |= asdict(listed.run)
        row["duration_s"] = row.pop("duration_ms") / 1_000
        rows.append(row)
    emit_rows(rows, as_json=as_json, columns=RUN_COLUMNS)
    return DONE


async def _documents(database: Database, tenant: str, *, deleted: bool) -> AsyncIterator[Document]:
    after_name: str | None = ""
    while after_name is not None:
        page = await list_documents(database, tenant, after_name=after_name, limit=PAGE_DOCUMENTS, deleted=deleted)
        for document in page:
            yield document
        after_name = page[-1].name if len(page) == PAGE_DOCUMENTS else None


def _row(document: Document, settings: Settings) -> dict[str, Any]:
    row = asdict(document)
    row["size_bytes"] = document.size_bytes
    row["near_limit"] = document.size_bytes >= settings.document_warn_bytes
    row["quarantined"] = document.quarantined_at is not None
    # A client id of our own making, of no use to a reader; a number that JavaScript would round besides.
    del row["marker"]
    return row
