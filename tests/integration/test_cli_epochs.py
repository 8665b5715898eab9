"""Deleting, repairing and purging as an operator does it: the commands, on a real Postgres."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from pycrdt import Doc, Text

from tests.commands import Run, runner
from tests.postgres import run_apart
from ydoc_store.yjs.lib0 import frame, frames
from ydoc_store.yjs.markers import without_markers
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update, walk


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on this test's own database."""
    return runner(database_url, monkeypatch)


def fetch(database_url: str, sql: str) -> list[tuple[Any, ...]]:
    async def asking() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(database_url)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return run_apart(asking())


def edits() -> list[bytes]:
    """Six updates: `good work` in five of them, the sixth erases it all for `bad`."""
    doc: Doc[Any] = Doc(client_id=7)
    doc["text"] = into = Text()
    updates = []
    for part in ("go", "od", " wo", "r", "k"):
        before = doc.get_state()
        into += part
        updates.append(doc.get_update(before))
    before = doc.get_state()
    with doc.transaction():
        into.clear()
        into += "bad"
    return [*updates, doc.get_update(before)]


@pytest.fixture
def plan(run: Run) -> Run:
    """The document `plan` holds `edits`."""
    imported = run("import", "plan", "-", stdin=b"".join(map(frame, edits())))
    assert imported.code == 0, imported.err
    return run


def text(run: Run, name: str = "plan") -> str:
    exported = run("export", name, "--format", "json")
    assert exported.code == 0, exported.err
    return str(json.loads(exported.out).get("text", ""))


def is_sound(run: Run) -> bool:
    return run("verify", "--all").code == 0


def test_a_deleted_document_stays_deleted_until_it_is_undeleted(plan: Run) -> None:
    """I12: whoever asks, the tombstone answers; an undelete brings back what was there."""
    deleted = plan("documents", "delete", "plan", "--json")
    assert deleted.code == 0, deleted.err
    assert (deleted.rows[0]["head"], deleted.rows[0]["changed"]) == (6, True)
    again = plan("documents", "delete", "plan", "--json")
    assert (again.code, again.rows[0]["changed"], again.rows[0]["deleted_at"]) == (
        0,
        False,
        deleted.rows[0]["deleted_at"],
    )
    imported = plan("import", "plan", "-", stdin=edits()[0])
    assert imported.code == 4
    assert "`ydoc-store documents undelete`" in imported.err
    assert "recreate" in imported.err
    assert plan("export", "plan").code == 4
    assert plan("repair", "plan", "--to-seq", "1").code == 5
    assert plan("documents", "undelete", "plan").code == 0
    assert text(plan) == "bad"
    assert plan("documents", "undelete", "plan").code == 5
    assert is_sound(plan)


@pytest.mark.parametrize("command", ["delete", "undelete", "recreate", "purge --yes", "epochs"])
def test_what_does_not_exist_is_exit_code_4(run: Run, command: str) -> None:
    word, *options = command.split()
    missing = run("documents", word, "nothing", *options)
    assert (missing.code, missing.out) == (4, b"")
    assert "'nothing'" in missing.err


def test_a_repair_rebuilds_the_document_as_it_was_and_keeps_the_old_epoch(plan: Run, database_url: str) -> None:
    """I10: history changes only with a new epoch, under a marker of its own."""
    repaired = plan("repair", "plan", "--to-seq", "5", "--json")
    assert repaired.code == 0, repaired.err
    (row,) = repaired.rows
    assert (row["epoch"], row["new_epoch"], row["to_seq"], row["left_behind"]) == (1, 2, 5, 1)
    assert (row["characters_dropped"], row["characters_restored"]) == (3, 9)
    assert row["way"] == "fold"
    assert text(plan) == "good work"
    epochs = plan("documents", "epochs", "plan", "--json").rows
    assert [(epoch["epoch"], epoch["head"], epoch["replaced_at"] is None) for epoch in epochs] == [
        (1, 6, False),
        (2, 1, True),
    ]
    assert len({marker for (marker,) in fetch(database_url, "SELECT marker FROM ydoc.documents")}) == 2
    assert plan("import", "plan", "-", stdin=edits()[5]).code == 0
    assert text(plan) == "bad"
    assert is_sound(plan)


def test_a_repair_that_went_too_far_back_is_taken_back_from_the_epoch_before(plan: Run) -> None:
    plan("repair", "plan", "--to-seq", "0")
    assert text(plan) == ""
    told = plan("repair", "plan", "--epoch", "1", "--to-seq", "5")
    assert told.code == 0, told.err
    assert text(plan) == "good work"
    assert [row["epoch"] for row in plan("documents", "epochs", "plan", "--json").rows] == [1, 2, 3]
    assert is_sound(plan)


def test_a_dry_run_tells_what_would_change_and_changes_nothing(plan: Run, database_url: str) -> None:
    before = fetch(database_url, "SELECT id, epoch, head, replaced_at FROM ydoc.documents")
    told = plan("repair", "plan", "--to-seq", "5", "--dry-run", "--json")
    assert told.code == 0, told.err
    (row,) = told.rows
    assert row["dry_run"]
    assert (row["earliest_seq"], row["head"], row["updates"]) == (0, 6, 5)
    assert (row["characters_dropped"], row["characters_restored"]) == (3, 9)
    assert 0 < row["size_bytes"] <= row["size_bytes_at_head"] * 2
    assert fetch(database_url, "SELECT id, epoch, head, replaced_at FROM ydoc.documents") == before
    assert "characters restored" in plan("repair", "plan", "--to-seq", "5", "--dry-run").out.decode()


def test_a_repair_reads_what_the_compactor_has_merged(plan: Run) -> None:
    """I9: any seq inside the window, whatever has been merged since."""
    assert plan("compact", "plan").code == 0
    assert plan("repair", "plan", "--to-seq", "3").code == 0
    assert text(plan) == "good wo"
    assert plan("compact", "plan").code == 0
    assert is_sound(plan)


def test_what_history_does_not_reach_is_told_and_nothing_is_changed(plan: Run) -> None:
    assert plan("compact", "plan", YDOC_HISTORY_DAYS="0").code == 0
    gone = plan("repair", "plan", "--to-seq", "3")
    assert gone.code == 1
    assert "history begins at seq 6" in gone.err
    beyond = plan("repair", "plan", "--to-seq", "7")
    assert beyond.code == 5
    assert "ends at seq 6" in beyond.err
    assert plan("repair", "plan", "--to-seq", "6", "--epoch", "4").code == 5
    assert text(plan) == "bad"


@pytest.mark.parametrize(
    "damage", ["DELETE FROM ydoc.updates WHERE seq = 6", "UPDATE ydoc.updates SET frames = '\\x0163' WHERE seq = 6"]
)
def test_a_damaged_log_is_repaired_to_where_it_is_whole(run: Run, database_url: str, damage: str) -> None:
    run("import", "plan", "-", stdin=b"".join(map(frame, edits()[:5])))
    run("import", "plan", "-", stdin=frame(edits()[5]))
    fetch(database_url, damage + " RETURNING seq")
    assert run("export", "plan").code != 0
    told = run("repair", "plan", "--to-seq", "5", "--json")
    assert told.code == 0, told.err
    assert told.rows[0]["size_bytes_at_head"] is None
    assert text(run) == "good work"
    assert run("verify", "plan").code == 0


def test_what_an_editor_saved_of_another_epoch_can_be_imported(plan: Run, database_url: str) -> None:
    """What no client may bring, an operator may: the content of a saved copy, without the marker that it carries."""
    doc: Doc[Any] = Doc(client_id=8)
    doc.apply_update(marker_update(RESERVED_CLIENT_ID_MIN + 9))
    doc["notes"] = Text("saved")
    imported = plan("import", "plan", "-", stdin=doc.get_update())
    assert imported.code == 0, imported.err
    assert json.loads(plan("export", "plan", "--format", "json").out) == {"text": "bad", "notes": "saved"}
    assert walk(plan("export", "plan").out).reserved_clients() == set()


def test_a_new_epoch_carries_no_marker_of_the_old_one(plan: Run, database_url: str) -> None:
    """I10: a client that sent all it had sent the marker too; in the new epoch it would have everybody refused."""
    ((marker, document_id),) = fetch(database_url, "SELECT marker, id FROM ydoc.documents")
    doc: Doc[Any] = Doc(client_id=8)
    doc.apply_update(marker_update(marker))
    doc["notes"] = Text("more")
    update = doc.get_update()
    fetch(
        database_url,
        f"WITH d AS (UPDATE ydoc.documents SET head = 7, accepted_rows = accepted_rows + 1,"
        f" accepted_bytes = accepted_bytes + {len(update)} RETURNING id)"
        f" INSERT INTO ydoc.updates (document_id, seq, count, frames)"
        f" SELECT d.id, 7, 1, '\\x{frame(update).hex()}' FROM d RETURNING seq",
    )
    assert is_sound(plan)
    assert walk(plan("export", "plan").out).reserved_clients() == set()
    assert plan("repair", "plan", "--to-seq", "7").code == 0
    ((content,),) = fetch(database_url, f"SELECT frames FROM ydoc.updates WHERE document_id <> {document_id}")
    assert walk(next(frames(content))).reserved_clients() == set()
    assert json.loads(plan("export", "plan", "--format", "json").out) == {"text": "bad", "notes": "more"}
    assert is_sound(plan)


def test_markers_are_taken_out_of_content_and_nothing_else_is() -> None:
    doc: Doc[Any] = Doc(client_id=7)
    doc["text"] = Text("kept")
    plain = doc.get_update()
    assert without_markers(plain) is plain
    doc.apply_update(marker_update(RESERVED_CLIENT_ID_MIN + 3))
    assert walk(doc.get_update()).reserved_clients() == {RESERVED_CLIENT_ID_MIN + 3}
    assert without_markers(doc.get_update()) == plain


def test_a_purge_leaves_the_tombstone_alone(plan: Run, database_url: str) -> None:
    """I12: and the name stays deleted, until it is begun anew as another epoch."""
    plan("compact", "plan")
    plan("repair", "plan", "--to-seq", "5")
    plan("import", "plan", "-", stdin=edits()[5])
    refused = plan("documents", "purge", "plan", "--yes")
    assert refused.code == 5
    assert "not deleted" in refused.err
    plan("documents", "delete", "plan")
    unasked = plan("documents", "purge", "plan")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    purged = plan("documents", "purge", "plan", "--yes", "--json")
    assert purged.code == 0, purged.err
    assert purged.rows[0]["epochs"] == 2
    for table in ("updates", "snapshots", "segments", "compactions", "quarantines"):
        assert fetch(database_url, f"SELECT count(*) FROM ydoc.{table}") == [(0,)], table
    assert [row["purged_at"] is not None for row in plan("documents", "list", "--deleted", "--json").rows] == [True]
    again = plan("documents", "purge", "plan", "--yes", "--json")
    assert (again.code, again.rows[0]["epochs"]) == (0, 0)
    undeleted = plan("documents", "undelete", "plan")
    assert undeleted.code == 5
    assert "purged" in undeleted.err
    assert plan("import", "plan", "-", stdin=edits()[0]).code == 4
    assert is_sound(plan)
    recreated = plan("documents", "recreate", "plan", "--json")
    assert (recreated.code, recreated.rows[0]["epoch"]) == (0, 3)
    assert text(plan) == ""
    assert plan("import", "plan", "-", stdin=edits()[0]).code == 0
    assert text(plan) == "go"
    assert plan("repair", "plan", "--epoch", "1", "--to-seq", "1").code == 5
    assert is_sound(plan)


def test_replaced_epochs_are_purged_alone(plan: Run) -> None:
    plan("repair", "plan", "--to-seq", "5")
    purged = plan("documents", "purge", "plan", "--replaced", "--yes", "--json")
    assert (purged.code, purged.rows[0]["epochs"], purged.rows[0]["updates"]) == (0, 1, 1)
    assert text(plan) == "good work"
    old, current = plan("documents", "epochs", "plan", "--json").rows
    assert (old["stored_bytes"], old["purged_at"] is None) == (0, False)
    assert current["stored_bytes"] > 0
    assert is_sound(plan)


def test_only_a_deleted_document_is_begun_anew(plan: Run) -> None:
    refused = plan("documents", "recreate", "plan")
    assert refused.code == 5
    plan("documents", "delete", "plan")
    recreated = plan("documents", "recreate", "plan")
    assert recreated.code == 0, recreated.err
    assert text(plan) == ""
    assert plan("repair", "plan", "--epoch", "1", "--to-seq", "5").code == 0
    assert text(plan) == "good work"


def test_an_operator_tells_that_the_database_was_restored(run: Run) -> None:
    """I11: where nothing else could tell."""
    before = run("incarnation", "show", "--json").rows
    bumped = run("incarnation", "bump", "--json").rows
    assert bumped[0]["bump"] != before[0]["bump"]
    assert run("incarnation", "show", "--json").rows == bumped
