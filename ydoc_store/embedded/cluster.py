"""Running Postgres's programs under the chosen account, making a cluster with them, and what their failures mean.

A cluster is made in a staging folder and renamed when it is whole and synced, so that a first start that was
killed half-way leaves nothing that looks like a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import IO

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.binaries import Binaries
from ydoc_store.embedded.configuration import ROLE
from ydoc_store.embedded.folder import DataFolder, disk_full
from ydoc_store.errors import EmbeddedPostgresFailed

# No locale or PG* variable of the person who starts us may change what a cluster becomes.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
DISK_FULL = ("No space left on device", "Disk quota exceeded")
_LINES_TOLD = 6


async def make_cluster(folder: DataFolder, binaries: Binaries, account: Account, *options: str) -> Path:
    """A whole new cluster in a staging folder, synced to disk; `folder.commit` makes it the one that counts.

    Raises EmbeddedPostgresFailed; nothing is left behind then, nor when it is cancelled.
    """
    staging = await asyncio.to_thread(folder.staging, account)
    try:
        await run_program(
            binaries.program("initdb"),
            *("-D", str(staging), "-U", ROLE, "--encoding=UTF8", "--locale=C", "--no-instructions"),
            # Only for somebody who starts it without our configuration.
            *("--auth-local=peer", "--auth-host=reject", *options),
            account=account,
            folder=folder,
        )
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        raise
    return staging


async def run_program(*command: str, account: Account, folder: DataFolder, cwd: Path = Path("/")) -> str:
    """What a program of Postgres said on stdout; it is killed when the caller is cancelled.

    Raises EmbeddedPostgresFailed, with what it said, when it fails.
    """
    exit_code, said = await run_to_end(*command, account=account, cwd=cwd)
    if exit_code != 0:
        raise EmbeddedPostgresFailed(explain(f"{Path(command[0]).name} failed", said, folder))
    return said


async def run_to_end(*command: str, account: Account, cwd: Path = Path("/")) -> tuple[int, str]:
    """The exit code of a program of Postgres, and what it said; it is killed when the caller is cancelled.

    Raises EmbeddedPostgresFailed when it cannot be started.
    """
    process = await spawn(*command, account=account, cwd=cwd, output=subprocess.PIPE)
    try:
        output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None  # noqa: S101 # it has ended
    return process.returncode, output.decode(errors="replace")


async def spawn(
    *command: str, account: Account, output: int | IO[bytes], cwd: Path = Path("/")
) -> asyncio.subprocess.Process:
    """Start a program under the account, in a session of its own, both outputs to `output`.

    Raises EmbeddedPostgresFailed when the system does not let us.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Root's own working folder is often closed to the account.
            cwd=cwd,
            env=ENVIRONMENT,
            start_new_session=True,
            **account.spawn_as(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        if account.is_other:
            raise EmbeddedPostgresFailed(
                f"root cannot start {command[0]} under the account {account.name} ({error}): Postgres does not "
                "run as root, so start ydoc-store as a normal user (a container: `--user`), or pass --database-url"
            ) from error
        raise EmbeddedPostgresFailed(f"{command[0]} does not run on this system: {error}") from error


def explain(problem: str, said: str, folder: DataFolder) -> str:
    """What a person is told about a program that failed: the cause that we know, or its own last words."""
    if any(sign in said for sign in DISK_FULL):
        return f"{problem}: {disk_full(folder.root)}"
    words = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in words if any(mark in line for mark in ("FATAL", "PANIC", "HINT", "error:"))]
    last = (telling or words)[-_LINES_TOLD:]
    return f"{problem}: {' / '.join(last) or 'it said nothing'} (its log is {folder.log})"
