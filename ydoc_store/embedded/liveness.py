"""Is this process id a live postmaster of this cluster, and which processes of the cluster are left?

`kill(pid, 0)` answers neither: it succeeds for a zombie that nobody reaps, as in many containers, and for a
stranger who was given the number of a dead postmaster. Linux tells through /proc, other systems through `ps`.
Nothing here signals a process or removes a file.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROC = Path("/proc")
PROGRAM = "postgres"
_DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the system shows of one running process; `folder` is None where we may not look."""

    program: str
    command: str
    folder: os.stat_result | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `postmaster.pid` says, judged by the process itself.

    `running` the postmaster is alive; `dead` no process has that id; `misleading` a zombie or a stranger answers
    to it, or the file is empty or torn, so that Postgres itself would refuse to start over it.
    """

    verdict: Literal["none", "running", "dead", "misleading"]
    pid: int = 0


def recorded_postmaster(cluster: Path, configuration: Path) -> Recorded:
    """What the cluster's own record leads to. `configuration` is the `-D` that our postmasters are started with.

    Raises OSError when the record cannot be read.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return Recorded("none")
    # A standalone backend records its id negated.
    digits = lines[0].strip().lstrip("-") if lines else ""
    if not digits.isdecimal():
        return Recorded("misleading")
    pid = int(digits)
    seen = look_at(pid)
    if seen is not None and is_of_cluster(seen, cluster, configuration):
        return Recorded("running", pid)
    return Recorded("misleading" if _answers(pid) else "dead", pid)


def is_ready(cluster: Path, pid: int) -> bool:
    """Has the postmaster `pid` said that it accepts connections?"""
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    # The record of a killed predecessor may still say ready.
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def processes_of(cluster: Path) -> list[int]:
    """The ids of all live processes that work in this cluster, as far as we may look; zombies do not count.

    Empty on a system without /proc: there, Postgres's own check of its shared memory has to do.
    """
    if not PROC.joinpath("self", "stat").exists():
        return []
    home = cluster.stat()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        seen = _look_in_proc(int(entry.name))
        # Somebody's shell may well be standing in that folder.
        if seen is not None and seen.program == PROGRAM and _same(seen.folder, home):
            found.append(int(entry.name))
    return found


def is_of_cluster(seen: Seen, cluster: Path, configuration: Path) -> bool:
    """Every Postgres process has the cluster as its working folder; where that is hidden, its command tells."""
    if seen.program != PROGRAM:
        return False
    if seen.folder is not None:
        return _same(seen.folder, cluster.stat())
    return f" -D {configuration} " in f"{seen.command} "


def look_at(pid: int) -> Seen | None:
    """The running process with this id; None when there is none, or when it is a zombie."""
    return _look_in_proc(pid) if PROC.joinpath("self", "stat").exists() else look_with_ps(pid)


def look_with_ps(pid: int) -> Seen | None:
    """As `look_at`, on systems without /proc (macOS)."""
    answer = subprocess.run(  # noqa: S603 # a fixed command and a number
        ["/bin/ps", "-o", "stat=", "-o", "command=", "-ww", "-p", str(pid)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=10,
    ).stdout.strip()
    state, _, command = answer.partition(" ")
    if not state or state[0] in _DEAD_STATES:
        return None
    command = command.strip()
    # The program's path may hold spaces; what follows it begins with the option that we always give first.
    return Seen(Path(command.split(" -D ")[0]).name, command, None)


def _look_in_proc(pid: int) -> Seen | None:
    folder = PROC / str(pid)
    try:
        # "7 (postgres) S 1 …": the name may itself hold spaces and brackets.
        name, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
        if rest.split()[0] in _DEAD_STATES:
            return None
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        home: os.stat_result | None = (folder / "cwd").stat()
    except OSError:
        # Another user's process; also root's view in a container without CAP_SYS_PTRACE.
        home = None
    return Seen(name.partition("(")[2], command, home)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and os.path.samestat(one, other)
