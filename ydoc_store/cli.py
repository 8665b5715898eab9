"""The composition root: `ydoc-store`'s commands, put together with the compactor, which few others may import.

What a command does, and how it ends, lives in `ydoc_store.commands`. Here is only what has to know both sides.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import click

from compactor.compaction import Compacted, Skipped, compact
from compactor.fold import fold_document
from compactor.schedule import terms_of, worker_of
from ydoc_store import __version__
from ydoc_store.commands.backup import backup_command, restore_command
from ydoc_store.commands.compact import CompactionResult, CompactOne, compact_command
from ydoc_store.commands.documents import documents_command
from ydoc_store.commands.ending import run_to_exit_code
from ydoc_store.commands.epochs import EPOCH_COMMANDS
from ydoc_store.commands.history import history_command
from ydoc_store.commands.identities import (
    revocations_command,
    revoke_command,
    secret_command,
    token_command,
)
from ydoc_store.commands.imports import import_command
from ydoc_store.commands.incarnation import incarnation_command
from ydoc_store.commands.migrate import migrate_command
from ydoc_store.commands.repair import repair_command
from ydoc_store.commands.roles import grant_sql_command
from ydoc_store.commands.serve import serve_command
from ydoc_store.commands.settings import settings_command
from ydoc_store.commands.streams import streams_command
from ydoc_store.commands.transfer import export_command
from ydoc_store.commands.verify import verify_command
from ydoc_store.compacting import COMPACTOR
from ydoc_store.settings import Settings
from ydoc_store.storage.epochs import Content
from ydoc_store.storage.pool import Database


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ydoc-store")
def commands() -> None:
    """Keeps Yjs documents for collaborative editors in Postgres."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the script. Always ends in SystemExit with the command's exit code."""
    sys.exit(run_to_exit_code(commands, "ydoc-store", arguments))


@asynccontextmanager
async def _compacting(database: Database, settings: Settings) -> AsyncIterator[CompactOne]:
    terms, worker = terms_of(settings), worker_of(settings)

    async def compact_one(document_id: int, name: str) -> CompactionResult:
        outcome = await compact(database, worker, document_id, terms, forced=True)
        if isinstance(outcome, Skipped):
            return CompactionResult(document_id, name, "skipped", outcome.reason)
        run = outcome.run
        return CompactionResult(
            document_id,
            name,
            run.result,
            run.error,
            more=isinstance(outcome, Compacted) and outcome.more,
            way=run.way,
            rows_merged=run.rows_merged,
            tail_bytes=run.tail_bytes,
            snapshot_bytes_before=run.snapshot_bytes_before,
            snapshot_bytes_after=run.snapshot_bytes_after,
            duration_s=run.duration_ms / 1_000,
        )

    try:
        yield compact_one
    finally:
        await worker.close()


def _rebuild(updates: Sequence[bytes], keep_deleted: bool) -> Content:
    folded = fold_document(None, updates, keep_deleted)
    return Content(folded.snapshot, folded.way)


for _command in EPOCH_COMMANDS:
    documents_command.add_command(_command)

for _command in (
    serve_command(COMPACTOR),
    migrate_command,
    compact_command(_compacting),
    documents_command,
    streams_command,
    verify_command,
    history_command,
    export_command,
    import_command,
    backup_command,
    restore_command,
    repair_command(_rebuild),
    incarnation_command,
    settings_command,
    secret_command,
    token_command,
    revoke_command,
    revocations_command,
    grant_sql_command,
):
    commands.add_command(_command)
