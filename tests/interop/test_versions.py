"""Versions of editors that run with `gc: false`: they need deleted content, which a document must be told to keep."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.lib0 import frame


class Commands:
    """The commands on this test's own database, as JSON."""

    def __init__(self, database_url: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("YDOC_")}
        self.environment = kept | {"YDOC_DATABASE_URL": database_url}

    def run(self, *arguments: str, stdin: bytes = b"", **variables: str) -> bytes:
        command = [sys.executable, "-m", "ydoc_store", *arguments]
        ran = subprocess.run(
            command,
            env=self.environment | variables,
            cwd=Path(__file__).parents[2],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout

    def one(self, *arguments: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.run(*arguments, "--json"))
        return row

    def restored(self, name: str, version: str) -> str:
        """What the version shows of the document as it is stored."""
        update = base64.b64encode(self.run("export", name, "--format", "update")).decode()
        text: str = shared_judge().ask(op="restore", updates=[update], version=version)["text"]
        return text


@pytest.fixture
def commands(database_url: str) -> Commands:
    return Commands(database_url)


def draft() -> tuple[list[bytes], str]:
    answer = shared_judge().ask(op="draft")
    return [base64.b64decode(update) for update in answer["updates"]], answer["version"]


def log_of(updates: list[bytes]) -> bytes:
    return b"".join(map(frame, updates))


def test_a_version_restores_after_a_compaction_of_a_document_that_keeps_deleted_content(commands: Commands) -> None:
    updates, version = draft()
    commands.run("import", "kept", "-", stdin=log_of(updates[:3]))
    assert commands.one("documents", "set", "kept", "--keep-deleted") == {"name": "kept", "keep_deleted": True}
    commands.run("import", "kept", "-", stdin=log_of(updates[3:]))
    commands.run("compact", "kept")
    shown = commands.one("documents", "show", "kept")
    assert (shown["keep_deleted"], shown["snapshot_way"], shown["tail_rows"]) == (True, "join", 0)
    assert commands.restored("kept", version) == "first draft"


def test_with_the_setting_a_new_document_keeps_deleted_content_from_its_first_update(commands: Commands) -> None:
    updates, version = draft()
    commands.run("import", "new", "-", stdin=log_of(updates), YDOC_KEEP_DELETED="true")
    commands.run("compact", "new")
    assert commands.one("documents", "show", "new")["snapshot_way"] == "join"
    assert commands.restored("new", version) == "first draft"


def test_a_document_that_collects_deleted_content_has_the_text_of_today_alone(commands: Commands) -> None:
    updates, version = draft()
    commands.run("import", "plain", "-", stdin=log_of(updates), YDOC_KEEP_DELETED="true")
    assert commands.one("documents", "set", "plain", "--collect-deleted")["keep_deleted"] is False
    commands.run("compact", "plain")
    assert commands.one("documents", "show", "plain")["snapshot_way"] == "fold"
    assert commands.restored("plain", version) == "draft"
    assert json.loads(commands.run("export", "plain", "--format", "json"))["text"] == "second draft"
