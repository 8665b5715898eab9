"""`ydoc-store history NAME`: which update came when, from whom, and how much it wrote and deleted.

For whoever looks for the moment at which something vanished; `export --at-seq` shows a document as it was there.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from ydoc_store.commands.options import DONE, DocumentName, found, json_option, tenant_option, with_database
from ydoc_store.commands.output import emit_rows
from ydoc_store.settings import Settings
from ydoc_store.storage.documents import Document, find_document
from ydoc_store.storage.history import read_history
from ydoc_store.storage.pool import Database

COLUMNS = ("seq", "count", "accepted_at", "actor", "bytes", "written", "deleted")


@click.command("history")
@click.argument("name", type=DocumentName())
@click.option("--until-seq", type=click.IntRange(min=1), metavar="N", help="Begin there instead of at the newest.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Rows at most.")
@tenant_option
@json_option
@with_database
async def history_command(
    database: Database,
    _settings: Settings,
    /,
    *,
    name: str,
    until_seq: int | None,
    limit: int,
    tenant: str,
    as_json: bool,
) -> int:
    """What was accepted, the newest first: each row is the `count` updates up to `seq`."""
    document: Document = await found(name, find_document(database, tenant, name))
    until_seq = document.head if until_seq is None else until_seq
    changes = await read_history(database, document.id, until_seq=until_seq, limit=limit)
    emit_rows(map(asdict, changes), as_json=as_json, columns=COLUMNS)
    return DONE
