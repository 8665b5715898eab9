"""`ydoc-compactor`: the compactor as a process of its own, one sweep by hand, or why a document is (not) due.

Reads and prints; what is due and what a compaction does is decided by the modules below. Results go to stdout,
messages to stderr. Exit codes are those of `ydoc-store`: 0 done, 1 something failed, 2 usage or setting,
3 unreachable or time-out, 4 no such document.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from compactor.compaction import judged
from compactor.policy import Due, due
from compactor.schedule import Compactor, terms_of
from ydoc_store import __version__
from ydoc_store.commands.ending import run_to_exit_code
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
from ydoc_store.commands.output import counted, emit_row, emit_rows
from ydoc_store.logs import logger
from ydoc_store.settings import Settings
from ydoc_store.storage.backlog import read_backlog
from ydoc_store.storage.compactions import list_compactions
from ydoc_store.storage.documents import Document, find_document
from ydoc_store.storage.pool import Database

log = logger(__name__)

RUNS_SHOWN = 5
RUN_COLUMNS = ("started_at", "result", "way", "why", "rows_merged", "tail_bytes", "duration_ms", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ydoc-compactor")
def commands() -> None:
    """Merges the log of updates into snapshots, beside or instead of the compactor inside `ydoc-store serve`."""


@commands.command("run")
@with_database
async def run_command(database: Database, settings: Settings, /) -> int:
    """Sweep every YDOC_SWEEP_INTERVAL_S until SIGTERM or SIGINT; the work under way is then rolled back."""
    require_writes(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        # Windows has no signal handlers on its loop: there Ctrl-C ends the process as usual.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(name, stopping.set)
    async with Compactor(database, settings):
        log.info("sweeping", interval_s=settings.sweep_interval_s)
        await stopping.wait()
    return DONE


@commands.command("once")
@json_option
@with_database
async def once_command(database: Database, settings: Settings, /, *, as_json: bool) -> int:
    """One sweep over everything that is due, and then the end."""
    require_writes(settings)
    compactor = Compactor(database, settings)
    failed = 0
    try:
        at_end = False
        while not at_end:
            report = await compactor.run_once()
            emit_row(asdict(report), as_json=as_json)
            failed += report.failed
            at_end = report.at_end
    finally:
        await compactor.stop()
    return FOUND_SOMETHING_WRONG if failed else DONE


@commands.command("explain")
@click.argument("name", type=DocumentName())
@tenant_option
@json_option
@with_database
async def explain_command(database: Database, settings: Settings, /, *, name: str, tenant: str, as_json: bool) -> int:
    """Whether a document is due and why, what it takes, and what its last compactions came to."""
    document: Document = await found(name, find_document(database, tenant, name))
    explained = await explain(database, settings, document)
    runs = explained.pop("runs")
    if as_json:
        emit_row({**explained, "runs": runs}, as_json=True)
        return DONE
    emit_row(explained, as_json=False)
    if runs:
        click.echo()
        emit_rows(runs, as_json=False, columns=RUN_COLUMNS)
    return DONE


async def explain(database: Database, settings: Settings, document: Document) -> dict[str, Any]:
    """The policy's verdict on a document with all that it went by, and the last runs, as plain values."""
    async with database.acquire() as connection:
        backlog = await read_backlog(connection, document.id)
    if backlog is None:
        wanted, reason = False, "the document is deleted" if document.deleted_at else "the tail is empty"
    else:
        verdict = due(judged(backlog), terms_of(settings).policy)
        wanted, reason = isinstance(verdict, Due), verdict.reason
    quarantined = document.quarantined_at is not None
    runs = await list_compactions(database, document.id, RUNS_SHOWN)
    return {
        "name": document.name,
        "document_id": document.id,
        "due": wanted and not quarantined,
        "reason": f"quarantined after {counted(document.failures, 'failure')}" if quarantined else reason,
        "tail_rows": document.tail_rows,
        "tail_bytes": document.tail_bytes,
        "tail_age_s": 0.0 if backlog is None else backlog.age_s,
        "snapshot_through_seq": document.snapshot_through_seq,
        "snapshot_way": document.snapshot_way,
        "snapshot_bytes": document.snapshot_bytes,
        "snapshot_stored_bytes": document.snapshot_stored_bytes,
        "history_bytes": document.history_bytes,
        "failures": document.failures,
        "failure_reason": document.failure_reason,
        "quarantined_at": document.quarantined_at,
        "runs": [{"started_at": listed.started_at, **asdict(listed.run)} for listed in runs],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the script. Always ends in SystemExit with one of the exit codes above."""
    sys.exit(run_to_exit_code(commands, "ydoc-compactor", arguments))
