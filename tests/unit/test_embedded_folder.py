"""What can be a data folder, and what is said when something cannot."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.errors import EmbeddedPostgresFailed

ME = Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), is_other=False)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def made_by(folder: DataFolder, major: str) -> None:
    folder.cluster.mkdir(parents=True)
    (folder.cluster / "PG_VERSION").write_text(f"{major}\n")


def test_a_new_data_folder_is_ours_alone(folder: DataFolder) -> None:
    folder.create(ME)
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert folder.major() is None


def test_a_folder_that_holds_something_else_is_refused(folder: DataFolder) -> None:
    folder.root.mkdir()
    (folder.root / "thesis.tex").touch()
    with pytest.raises(EmbeddedPostgresFailed, match=r"thesis\.tex.*not ours"):
        folder.create(ME)


def test_a_fresh_volume_is_accepted(folder: DataFolder) -> None:
    (folder.root / "lost+found").mkdir(parents=True)
    folder.create(ME)
    assert folder.configuration.is_dir()


def test_a_folder_that_the_account_cannot_enter_is_refused_by_name(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    stranger = Account("stranger", 54321, 54321, is_other=True)
    with pytest.raises(EmbeddedPostgresFailed, match=rf"stranger.*may not enter {closed}.*/var/lib/ydoc-store"):
        DataFolder(closed / "data").create(stranger)
    assert not (closed / "data").exists()


def test_an_older_major_with_programs_here_names_the_upgrade(folder: DataFolder) -> None:
    made_by(folder, "16")
    with pytest.raises(EmbeddedPostgresFailed, match=r"Postgres 16.*python -m ydoc_store\.embedded\.upgrade"):
        folder.require_major(18)


@pytest.mark.parametrize("major", ["15", "19"])
def test_a_major_without_programs_here_names_dump_and_restore(folder: DataFolder, major: str) -> None:
    made_by(folder, major)
    with pytest.raises(EmbeddedPostgresFailed, match=rf"Postgres {major}.*pg_dump.*pg_restore"):
        folder.require_major(18)


def test_our_own_major_and_no_cluster_at_all_are_fine(folder: DataFolder) -> None:
    folder.require_major(18)
    made_by(folder, "18")
    folder.require_major(18)
    assert folder.major() == 18


def test_a_cluster_without_its_version_file_is_called_damaged(folder: DataFolder) -> None:
    folder.cluster.mkdir(parents=True)
    with pytest.raises(EmbeddedPostgresFailed, match=r"damaged.*backup"):
        folder.major()


def test_an_upgrade_killed_between_its_renames_is_not_taken_for_an_empty_folder(folder: DataFolder) -> None:
    (folder.root / "postgres.16").mkdir(parents=True)
    with pytest.raises(EmbeddedPostgresFailed, match="interrupted: `mv "):
        folder.major()


def test_a_cluster_half_made_by_a_killed_first_start_is_swept_away(folder: DataFolder) -> None:
    folder.create(ME)
    killed = folder.staging(ME)
    (killed / "PG_VERSION").touch()
    fresh = folder.staging(ME)
    assert not killed.exists()
    folder.commit(fresh)
    assert folder.cluster.is_dir()
    assert not fresh.exists()


def test_a_long_path_gets_its_socket_elsewhere_and_leaves_nothing_there(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("x" * 100) / "data")
    folder.create(ME)
    outside = folder.socket_folder(ME)
    assert folder.root not in outside.parents
    assert len(str(outside)) < 90
    assert outside.stat().st_mode & 0o777 == 0o700
    assert folder.socket_folder(ME) == outside
    folder.leave_socket_folder(outside)
    assert not outside.exists()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("y" * 100) / "data")
    folder.create(ME)
    outside = folder.socket_folder(ME)
    outside.chmod(0o755)
    try:
        with pytest.raises(EmbeddedPostgresFailed, match="made by somebody else"):
            folder.socket_folder(ME)
    finally:
        outside.rmdir()
