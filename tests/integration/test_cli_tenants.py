"""I19, for operators: a command works on the tenant that it names and on no other; what says `--all` looks at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service import COMPACTOR, STORE, Ended, run

UPDATE = {
    "acme": b"\x01\x01\x01\x00\x04\x01\x04text\x07of acme\x00",
    "default": b"\x01\x01\x02\x00\x04\x01\x04text\x0aof default\x00",
}


@pytest.fixture
async def command(database_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Runs a command on a database that holds `notes` of two tenants."""

    async def of_this_test(*arguments: str, program: tuple[str, ...] = STORE) -> Ended:
        return await run(*program, *arguments, environment={"YDOC_DATABASE_URL": database_url})

    for tenant, update in UPDATE.items():
        file = tmp_path / tenant
        file.write_bytes(update)
        ended = await of_this_test("import", "notes", str(file), "--tenant", tenant)
        assert ended.exit_code == 0, ended.messages
    return of_this_test


async def test_a_command_works_on_the_tenant_that_it_names(command: Callable[..., Any]) -> None:
    exported = await command("export", "notes", "--format", "json", "--tenant", "acme")
    assert json.loads(exported.output) == {"text": "of acme"}
    for words in (
        ("documents", "show", "notes"),
        ("documents", "list"),
        ("documents", "set", "notes", "--keep-deleted"),
        ("documents", "epochs", "notes"),
        ("history", "notes"),
        ("verify", "notes"),
        ("compact", "notes"),
        ("documents", "compactions", "notes"),
        ("repair", "notes", "--to-seq", "1"),
        ("documents", "delete", "notes"),
        ("documents", "undelete", "notes"),
        ("documents", "delete", "notes"),
        ("documents", "purge", "notes", "--yes"),
        ("documents", "recreate", "notes"),
    ):
        ended = await command(*words, "--tenant", "acme")
        assert ended.exit_code == 0, (words, ended.messages)
        nobody = await command(*words, "--tenant", "nobody")
        assert nobody.exit_code == (0 if words[1] == "list" else 4), (words, nobody.messages)
    explained = await command("explain", "notes", "--tenant", "acme", program=COMPACTOR)
    assert explained.exit_code == 0, explained.messages
    kept = await command("export", "notes", "--format", "json")
    assert json.loads(kept.output) == {"text": "of default"}


async def test_verify_all_looks_at_every_tenant(command: Callable[..., Any]) -> None:
    ended = await command("verify", "--all", "--json")
    assert {json.loads(line)["tenant"] for line in ended.output.splitlines()} == {"acme", "default"}
