"""`ydoc-store verify`: does what is stored hold together, and does it decode? What is checked lives in storage.

One document, or all documents and streams; a stream by itself is read whole by `streams export`.
"""

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
from ydoc_store.storage.stream_verification import VerifiedStream, every_stream, verify_stream
from ydoc_store.storage.verification import Verified, verify_document

PAGE_DOCUMENTS = 1_000


@click.command("verify")
@click.argument("name", type=DocumentName(), required=False)
@click.option(
    "--all", "every", is_flag=True, help="Every document of every tenant, deleted ones included, and every stream."
)
@tenant_option
@json_option
@with_database
async def verify_command(
    database: Database, _settings: Settings, /, *, name: str | None, every: bool, tenant: str, as_json: bool
) -> int:
    """Check the log, the snapshots and the history of a document, and that its content decodes."""
    if (name is None) != every:
        raise click.UsageError("name one document, or say --all")
    if name is None:
        found_all = await verify_all(database, Telling(as_json=as_json))
    else:
        document: Document = await found(name, find_document(database, tenant, name))
        verified = await verify_document(database, document.id)
        found_all = VerifiedAll()
        if verified is not None:
            Telling(as_json=as_json).document(document, verified)
            found_all = VerifiedAll(documents=1, wrong=int(bool(verified.findings)))
    looked_at = counted(found_all.documents, "document")
    if found_all.streams:
        looked_at += f" and {counted(found_all.streams, 'stream')}"
    click.echo(f"{looked_at} verified, {found_all.wrong:,} with something wrong", err=True)
    return FOUND_SOMETHING_WRONG if found_all.wrong else DONE


@dataclass(frozen=True, slots=True)
class VerifiedAll:
    """How many documents and streams were looked at, and with how many of them something is wrong."""

    documents: int = 0
    streams: int = 0
    wrong: int = 0


async def verify_all(database: Database, telling: Telling | None = None) -> VerifiedAll:
    """Verify every document and stream; all that was looked at is told, without `telling` what is wrong alone.

    Raises ServerFault.
    """
    documents = streams = wrong = 0
    tell = telling or Telling(as_json=False, wrong_only=True)
    async for document in _everything(database):
        verified = await verify_document(database, document.id)
        if verified is not None:
            documents += 1
            wrong += bool(verified.findings)
            tell.document(document, verified)
    async for stream_id, tenant, name in every_stream(database):
        stream = await verify_stream(database, stream_id)
        if stream is not None:
            streams += 1
            wrong += bool(stream.findings)
            tell.stream(tenant, name, stream)
    return VerifiedAll(documents, streams, wrong)


async def _everything(database: Database) -> AsyncIterator[Document]:
    for tenant in await list_tenants(database):
        after_name: str | None = ""
        while after_name is not None:
            page = await list_documents(database, tenant, after_name=after_name, limit=PAGE_DOCUMENTS, deleted=True)
            for document in page:
                yield document
            after_name = page[-1].name if len(page) == PAGE_DOCUMENTS else None


@dataclass(frozen=True, slots=True)
class Telling:
    """How what was looked at is told, on stdout."""

    as_json: bool
    wrong_only: bool = False

    def document(self, document: Document, verified: Verified) -> None:
        waiting = ", some of it waits for what has not come" if verified.pending else ""
        what = f"seq {verified.head:,}, tail {counted(verified.tail_rows, 'row')}"
        what += f", history {counted(verified.segments, 'segment')}{waiting}"
        self._tell(document.tenant, document.name, "document", verified, document.name, what)

    def stream(self, tenant: str, name: str, verified: VerifiedStream) -> None:
        what = f"seq {verified.head:,}, {counted(verified.rows, 'row')}"
        self._tell(tenant, name, "stream", verified, f"stream {name}", what)

    def _tell(
        self, tenant: str, name: str, kind: str, verified: Verified | VerifiedStream, called: str, what: str
    ) -> None:
        if self.wrong_only and not verified.findings:
            return
        if self.as_json:
            emit_json({"tenant": tenant, "name": name, "kind": kind, "ok": not verified.findings, **asdict(verified)})
            return
        click.echo(f"{called}: {'WRONG' if verified.findings else 'ok'} ({what})")
        for finding in verified.findings:
            click.echo(f"  {finding.promise}: {finding.text}")
