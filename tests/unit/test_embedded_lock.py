"""One service a data folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ydoc_store.embedded.lock import FolderLock
from ydoc_store.errors import EmbeddedPostgresFailed

HOLDING_WITH_A_FORKED_WORKER = """
import os, sys
from pathlib import Path
from ydoc_store.embedded.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
worker = os.fork()
if worker == 0:
    # Told by the worker: before it runs, it still has its parent's end of the lock.
    print("held", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(worker, 0)
"""


def test_a_taken_folder_names_its_holder_and_the_way_out(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    with pytest.raises(EmbeddedPostgresFailed, match=rf"process {os.getpid()}: stop that one.*--data-dir"):
        FolderLock(tmp_path / "lock")
    lock.release()
    FolderLock(tmp_path / "lock").release()


def test_a_glance_of_a_command_does_not_keep_a_service_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    glancing = os.open(path, os.O_RDONLY)
    fcntl.flock(glancing, fcntl.LOCK_SH)
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(FolderLock, path)
        os.close(glancing)
        starting.result().release()
    assert path.read_text() == ""


def test_releasing_twice_does_no_harm(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    lock.release()
    lock.release()
    assert (tmp_path / "lock").read_text() == ""


def test_a_link_that_another_account_left_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"Too many levels|symbolic"):
        FolderLock(tmp_path / "lock")
    assert (tmp_path / "target").read_text() == "precious"


def test_a_killed_holder_leaves_the_folder_free_even_when_its_forked_worker_lives_on(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING_WITH_A_FORKED_WORKER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(EmbeddedPostgresFailed, match=f"process {holder.pid}:"):
            FolderLock(tmp_path / "lock")
        holder.kill()
        holder.wait()
        FolderLock(tmp_path / "lock").release()
