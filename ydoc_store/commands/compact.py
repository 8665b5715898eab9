"""`ydoc-store compact`: merge the tail of one document, or of all, now.

How a compaction runs belongs to the compactor, which is handed in; here is which documents, and what is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Literal

import click

from ydoc_store.commands.options import (
    DONE,
    FOUND_SOMETHING_WRONG,
    DocumentName,
    found,
    json_option,
    require_writes,
    tenant_option,
    with_database,
)
from ydoc_store.commands.output import counted, emit_json, size
from ydoc_store.settings import Settings
from ydoc_store.storage.backlog import find_backlogs
from ydoc_store.storage.documents import find_document
from ydoc_store.storage.pool import Database

DOCUMENTS_A_LOOK = 1_000


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """One run: `result` is done, skipped (nothing to merge, or somebody else is at it), lost or failed.

    `more` tells that the tail was longer than one run takes.
    """

    document_id: int
    name: str
    result: Literal["done", "skipped", "lost", "failed"]
    reason: str | None
    more: bool = False
    way: str | None = None
    rows_merged: int = 0
    tail_bytes: int = 0
    snapshot_bytes_before: int = 0
    snapshot_bytes_after: int = 0
    duration_s: float = 0.0


CompactOne = Callable[[int, str], Awaitable[CompactionResult]]
Compacting = Callable[[Database, Settings], AbstractAsyncContextManager[CompactOne]]


def compact_command(compacting: Compacting) -> click.Command:
    """The command, over what the composition root knows of the compactor."""

    @click.command("compact")
    @click.argument("name", type=DocumentName(), required=False)
    @click.option("--all", "every", is_flag=True, help="Every document that has a tail, of every tenant.")
    @tenant_option
    @json_option
    @with_database
    async def command(
        database: Database, settings: Settings, /, *, name: str | None, every: bool, tenant: str, as_json: bool
    ) -> int:
        """Merge what has piled up behind a document's snapshot, whether it is due or not."""
        if (name is None) != every:
            raise click.UsageError("name one document, or say --all")
        require_writes(settings)
        looked_at = 0
        compacted, failed = set[int](), set[int]()
        async with compacting(database, settings) as compact_one:
            async for document_id, its_name in _wanted(database, tenant, name):
                looked_at += 1
                more = True
                while more:
                    result = await compact_one(document_id, its_name)
                    _tell(result, as_json=as_json)
                    if result.result in ("done", "failed"):
                        (compacted if result.result == "done" else failed).add(document_id)
                    more = result.more
        if every:
            told = f"{counted(len(compacted), 'document')} compacted of {looked_at:,} with a tail"
            click.echo(told if looked_at else "no document has a tail: nothing to compact", err=True)
        return FOUND_SOMETHING_WRONG if failed else DONE

    return command


async def _wanted(database: Database, tenant: str, name: str | None) -> AsyncIterator[tuple[int, str]]:
    if name is not None:
        document = await found(name, find_document(database, tenant, name))
        yield document.id, document.name
        return
    after_id: int | None = 0
    while after_id is not None:
        page = await find_backlogs(database, after_id, DOCUMENTS_A_LOOK)
        for backlog in page.backlogs:
            yield backlog.document_id, backlog.name
        after_id = page.next_after_id


def _tell(result: CompactionResult, *, as_json: bool) -> None:
    if as_json:
        emit_json(asdict(result))
        return
    told = f"{result.name}: {result.result}"
    if result.result == "done":
        told += (
            f", {counted(result.rows_merged, 'row')} ({size(result.tail_bytes)}) merged by {result.way} in "
            f"{result.duration_s:.2f} s; the snapshot has {size(result.snapshot_bytes_after)}"
        )
    if result.reason:
        told += f" ({result.reason})"
    click.echo(told)
