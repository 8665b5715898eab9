"""What the feed is told of: everything that happens to a document, once, in the transaction that does it."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Worker
from tests.integration.storage.test_schema import STATEMENTS, STORED
from tests.log_rows import Writer
from ydoc_store import storage
from ydoc_store.errors import YdocError
from ydoc_store.storage.beginnings import create_empty, create_with_content
from ydoc_store.storage.commits import list_tenants_noted
from ydoc_store.storage.epochs import (
    Content,
    delete_document,
    purge_document,
    recreate_document,
    replace_content,
    undelete_document,
)
from ydoc_store.storage.feed import Change, read_changes
from ydoc_store.storage.pool import Database

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only


async def changes(database: Database) -> list[Change]:
    return (await read_changes(database, "t", None)).changes


async def test_a_document_that_begins_with_content_was_created_and_appended_to(database: Database) -> None:
    assert await create_with_content(database, "t", "a", b"u", "ann")
    assert not await create_with_content(database, "t", "a", b"u", "ben")
    found = await changes(database)
    assert [(change.what, change.seq, change.count, change.actor) for change in found] == [
        ("created", None, None, "ann"),
        ("append", 1, 1, "ann"),
    ]


async def test_a_document_that_begins_empty_was_created(database: Database) -> None:
    assert await create_empty(database, "t", "a", actor="ann")
    assert not await create_empty(database, "t", "a")
    found = await changes(database)
    assert [(change.what, change.name, change.actor) for change in found] == [("created", "a", "ann")]


async def test_all_that_becomes_of_a_document_is_told_with_its_epoch(database: Database) -> None:
    update = Writer().type("text")
    await create_with_content(database, "t", "a", update, None)
    await delete_document(database, "t", "a", actor="ann")
    await delete_document(database, "t", "a")
    await undelete_document(database, "t", "a", actor="ben")
    await replace_content(database, "t", "a", Content(update, "merge"), epoch=1)
    await delete_document(database, "t", "a")
    await recreate_document(database, "t", "a", actor="cyd")
    with pytest.raises(YdocError):
        await recreate_document(database, "t", "a")
    await purge_document(database, "t", "a", replaced_only=True)
    found = await changes(database)
    assert [(change.what, change.epoch, change.seq, change.count) for change in found] == [
        ("created", 1, None, None),
        ("append", 1, 1, 1),
        ("deleted", 1, 1, 0),
        ("undeleted", 1, 1, 0),
        ("replaced", 2, 1, 1),
        ("deleted", 2, 1, 0),
        ("recreated", 3, 0, 0),
        ("purged", 1, 0, 0),
        ("purged", 2, 0, 0),
    ]
    assert {change.name for change in found} == {"a"}
    assert [change.actor for change in found] == [None, None, "ann", "ben", None, None, "cyd", None, None]


async def test_a_compaction_is_told_with_what_it_merged(database: Database) -> None:
    writer = Writer()
    await create_with_content(database, "t", "a", writer.type("text"), None)
    document_id = (await changes(database))[0].document_id
    async with Worker(timeout_s=60) as worker:
        assert isinstance(await compact(database, worker, document_id, Terms(), forced=True), Compacted)
        # Nothing was merged, and nothing is told.
        await compact(database, worker, document_id, Terms(), forced=True)
    found = await changes(database)
    assert [(change.what, change.seq, change.count) for change in found][2:] == [("compacted", 1, 1)]


# Each statement that changes what documents are, and where the feed is told.
TOLD = {
    "append_batch.APPEND_BATCH": "by itself",
    "beginnings.CREATE_EMPTY": "by itself",
    "beginnings.CREATE_WITH_CONTENT": "by itself",
    "creating.CREATE_DOCUMENTS": "by itself",
    "epochs.INSERT_EPOCH": "by note",
    "epochs.MARK_PURGED": "by note",
    "epochs.REPLACE": "by note, for the epoch that replaces it",
    "epochs.SET_TOMBSTONE": "by note",
    "epochs.TAKE_TOMBSTONE": "by note",
    "renaming.SET_NAME": "by note_renamed",
}
NOT_TOLD = {
    "keeping.SET_KEEP_DELETED": "an operator's setting",
}
_CHANGES_HEADS = re.compile(r"\b(INSERT INTO|UPDATE) ydoc\.documents\b")


def test_every_statement_that_changes_documents_tells_the_feed_or_is_known_not_to() -> None:
    found = {name for name, statement in STATEMENTS.items() if _CHANGES_HEADS.search(statement)}
    of_streams = {
        name for name in found if "'stream'" in STATEMENTS[name] or name.startswith(("streams.", "producers."))
    }
    assert found - of_streams - TOLD.keys() - NOT_TOLD.keys() == set()
    for name, how in TOLD.items():
        if name in found:
            assert ("INSERT INTO ydoc.commits" in STATEMENTS[name]) == (how == "by itself")
        module = name.partition(".")[0]
        if how.startswith("by note") and name in found:
            source = (Path(storage.__path__[0]) / f"{module}.py").read_text()
            assert re.search(rf"await {'note_renamed' if 'renamed' in how else 'note'}\(", source), (
                f"{name} tells nobody"
            )


async def test_what_is_rolled_back_was_never_told(database: Database, connection: Connection) -> None:
    await create_with_content(database, "t", "a", b"u", None)
    await connection.execute("ALTER TABLE ydoc.commits ADD CONSTRAINT no_deletions CHECK (what <> 'deleted')")
    with pytest.raises(YdocError):
        await delete_document(database, "t", "a")
    assert await connection.fetchval("SELECT deleted_at IS NULL FROM ydoc.documents")


async def test_the_tenants_of_the_feed_are_found(database: Database, connection: Connection) -> None:
    assert await list_tenants_noted(connection) == []
    for tenant in ("b", "a", "c"):
        for name in ("x", "y"):
            await create_with_content(database, tenant, name, b"u", None)
    assert await list_tenants_noted(connection) == ["a", "b", "c"]


async def test_the_arrays_of_a_large_commit_are_stored_as_the_log_is(connection: Connection) -> None:
    stored = {name: how for name, *how in await connection.fetch(STORED)}
    for column in ("document_ids", "seqs", "counts", "actors"):
        assert stored[f"commits.{column}"] == stored["updates.frames"]


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("what, document_ids) VALUES ('t', 'vanished', '{1}'", "commits_what_known"),
        ("what, document_ids) VALUES ('t', 'created', '{}'", "commits_of_documents"),
        ("what, document_ids) VALUES ('t', 'append', '{1}'", "commits_append_has_seqs"),
        ("what, document_ids) VALUES ('t', 'renamed', '{1}'", "commits_renamed_from"),
        ("what, document_ids, name_before) VALUES ('t', 'created', '{1}', 'x'", "commits_renamed_from"),
    ],
)
async def test_a_row_that_cannot_be_right_is_refused(connection: Connection, columns: str, constraint: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await connection.execute(f"INSERT INTO ydoc.commits (tenant, {columns})")
    assert refused.value.constraint_name == constraint
