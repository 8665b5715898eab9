"""Telling a live postmaster from a zombie, a stranger and a torn record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ydoc_store.embedded.liveness import (
    Seen,
    is_of_cluster,
    is_ready,
    look_at,
    look_with_ps,
    processes_of,
    recorded_postmaster,
)

# A process that calls itself as it is told, in the folder it is told.
NAMED = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def cluster_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "postgres"
    folder.mkdir()
    return folder


@pytest.fixture
def zombie() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    # Returns when it has ended, and leaves it unreaped.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


def record(cluster: Path, pid: object, word: str = "ready") -> None:
    (cluster / "postmaster.pid").write_text(f"{pid}\n{cluster}\n1\n5432\n/s\n\n  1 2\n{word}   \n")


def test_a_zombie_answers_to_kill_but_is_not_running(zombie: int) -> None:
    os.kill(zombie, 0)
    assert look_at(zombie) is None
    assert look_with_ps(zombie) is None


def test_we_ourselves_are_running_but_no_postmaster(cluster_folder: Path) -> None:
    for look in (look_at, look_with_ps):
        seen = look(os.getpid())
        assert seen is not None
        assert not is_of_cluster(seen, cluster_folder, cluster_folder / "config")


def test_no_record(cluster_folder: Path) -> None:
    assert recorded_postmaster(cluster_folder, cluster_folder / "config").verdict == "none"


@pytest.mark.parametrize("text", ["", "\n", "torn\n", "12"])
def test_an_empty_or_torn_record_misleads_or_names_nobody(cluster_folder: Path, text: str) -> None:
    (cluster_folder / "postmaster.pid").write_text(text)
    assert recorded_postmaster(cluster_folder, cluster_folder / "config").verdict in ("misleading", "dead")


def test_a_record_of_a_zombie_or_of_a_stranger_misleads(cluster_folder: Path, zombie: int) -> None:
    for pid in (zombie, os.getpid(), 1):
        record(cluster_folder, pid)
        assert recorded_postmaster(cluster_folder, cluster_folder / "config").verdict == "misleading"


def test_a_record_of_nobody_is_dead(cluster_folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    record(cluster_folder, child.pid)
    assert recorded_postmaster(cluster_folder, cluster_folder / "config").verdict == "dead"
    record(cluster_folder, 2**40)
    assert recorded_postmaster(cluster_folder, cluster_folder / "config").verdict == "dead"


def test_where_the_working_folder_is_hidden_the_command_tells(tmp_path: Path) -> None:
    ours, other = tmp_path / "our config", tmp_path / "our config too"
    seen = Seen("postgres", f"/usr/bin/postgres -D {ours} -c listen_addresses=", None)
    assert is_of_cluster(seen, tmp_path, ours)
    assert not is_of_cluster(seen, tmp_path, other)
    assert not is_of_cluster(Seen("vim", seen.command, None), tmp_path, ours)
    longer = Seen("postgres", f"/usr/bin/postgres -D {other}", None)
    assert is_of_cluster(longer, tmp_path, other)


def test_the_working_folder_beats_the_command(tmp_path: Path, cluster_folder: Path) -> None:
    seen = Seen("postgres", f"postgres -D {tmp_path}", cluster_folder.stat())
    assert is_of_cluster(seen, cluster_folder, tmp_path / "moved")
    assert not is_of_cluster(seen, tmp_path, tmp_path)


def test_a_shell_standing_in_the_cluster_is_not_one_of_its_processes(cluster_folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], cwd=cluster_folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert processes_of(cluster_folder) == []


def test_ready_is_only_what_this_postmaster_says_of_itself(cluster_folder: Path) -> None:
    assert not is_ready(cluster_folder, 7)
    record(cluster_folder, 7, "starting")
    assert not is_ready(cluster_folder, 7)
    record(cluster_folder, 7)
    assert is_ready(cluster_folder, 7)
    assert not is_ready(cluster_folder, 8)
