"""The commands in this process, as their entry point runs them: a tenth of the time that a process each takes.

Their exit codes, output and messages are those of the program; only its interpreter, and its logging, are shared.
For tests without a running event loop: each command runs one of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from ydoc_store import logs
from ydoc_store.cli import commands
from ydoc_store.commands.ending import run_to_exit_code


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished command."""

    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        assert self.code in (0, 1), self.err
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


def runner(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ydoc-store` with these arguments, on this database; `stdin`, and settings by their variables."""
    # It would take the handlers of the whole test run away.
    monkeypatch.setattr(logs, "configure", lambda *_arguments: None)

    def run(*arguments: object, stdin: bytes = b"", **variables: str) -> Ran:
        environment = {"YDOC_DATABASE_URL": database_url, **variables}
        with CliRunner().isolation(input=stdin, env=environment) as (out, err, _both):
            code = run_to_exit_code(commands, "ydoc-store", [str(argument) for argument in arguments])
            return Ran(code, out.getvalue(), err.getvalue().decode())

    return run
