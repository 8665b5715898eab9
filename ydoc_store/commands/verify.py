"""`ydoc-store verify`: does what is stored hold together, and does it decode? What is checked lives in storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

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
from ydoc_store.commands.output import counted, emit_json
from ydoc_store.settings import Settings
from ydoc_store.storage.documents import Document, find_document, list_documents, list_tenants
from ydoc_store.storage.pool import Database
from ydoc_store.storage.verification import Verified, verify_document

PAGE_DOCUMENTS = 1_000


@click.command("verify")
@click.argument("name", type=DocumentName(), required=False)
@click.option("--all", "every", is_flag=True, help="Every document of every tenant, deleted ones included.")
@tenant_option
@json_option
@with_database
async def verify_command(
    database: Database, _settings: Settings, /, *, name: str | None, every: bool, tenant: str, as_json: bool
) -> int:
    """Check the log, the snapshots and the history of a document, and that its content decodes."""
    if (name is None) != every:
        raise click.UsageError("name one document, or say --all")
    looked_at = wrong = 0
    async for document in _wanted(database, tenant, name):
        verified = await verify_document(database, document.id)
        if verified is None:
            continue
        looked_at += 1
        wrong += bool(verified.findings)
        _tell(document, verified, as_json=as_json)
    click.echo(f"{counted(looked_at, 'document')} verified, {wrong:,} with something wrong", err=True)
    return FOUND_SOMETHING_WRONG if wrong else DONE


@dataclass(frozen=True, slots=True)
class VerifiedAll:
    """How many documents were looked at, and with how many something is wrong."""

    documents: int
    wrong: int


async def verify_all(database: Database) -> VerifiedAll:
    """Verify every document; what is wrong goes to stdout. Raises ServerFault."""
    looked_at = wrong = 0
    async for document in _everything(database):
        verified = await verify_document(database, document.id)
        looked_at += verified is not None
        if verified is not None and verified.findings:
            wrong += 1
            _tell(document, verified, as_json=False)
    return VerifiedAll(looked_at, wrong)


async def _wanted(database: Database, tenant: str, name: str | None) -> AsyncIterator[Document]:
    if name is not None:
        yield await found(name, find_document(database, tenant, name))
        return
    async for document in _everything(database):
        yield document


async def _everything(database: Database) -> AsyncIterator[Document]:
    for tenant in await list_tenants(database):
        after_name: str | None = ""
        while after_name is not None:
            page = await list_documents(database, tenant, after_name=after_name, limit=PAGE_DOCUMENTS, deleted=True)
            for document in page:
                yield document
            after_name = page[-1].name if len(page) == PAGE_DOCUMENTS else None


def _tell(document: Document, verified: Verified, *, as_json: bool) -> None:
    if as_json:
        emit_json({"tenant": document.tenant, "name": document.name, "ok": not verified.findings, **asdict(verified)})
        return
    waiting = ", some of it waits for what has not come" if verified.pending else ""
    what = f"seq {verified.head:,}, tail {counted(verified.tail_rows, 'row')}"
    what += f", history {counted(verified.segments, 'segment')}"
    click.echo(f"{document.name}: {'WRONG' if verified.findings else 'ok'} ({what}{waiting})")
    for finding in verified.findings:
        click.echo(f"  {finding.promise}: {finding.text}")
