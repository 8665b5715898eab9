"""Under which account Postgres runs, and who is barred from where."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from ydoc_store.embedded.account import ACCOUNTS_FOR_ROOT, Account, choose_account
from ydoc_store.errors import EmbeddedPostgresFailed

NOBODY = Account("nobody", pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid, is_other=True)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="absent: root's rights")


@only_root
def test_root_steps_down_to_an_unprivileged_account(tmp_path: Path) -> None:
    account = choose_account(tmp_path / "nothing yet")
    assert account.name in ACCOUNTS_FOR_ROOT
    assert account.uid != 0
    assert account.spawn_as() == {"user": account.uid, "group": account.gid, "extra_groups": []}


@only_root
def test_an_existing_cluster_is_run_by_its_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, pwd.getpwnam("daemon").pw_uid, -1)
    assert choose_account(tmp_path).name == "daemon"


@only_root
def test_a_cluster_that_belongs_to_root_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match=r"belongs to root.*chown -R"):
        choose_account(tmp_path)


@only_root
def test_a_cluster_of_a_user_id_without_a_name_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 54321, -1)
    with pytest.raises(EmbeddedPostgresFailed, match=r"54321, which has no name.*useradd"):
        choose_account(tmp_path)


def test_the_first_folder_that_bars_the_way_is_named(open_folder: Path) -> None:
    outer = open_folder / "outer"
    (outer / "inner").mkdir(parents=True, mode=0o755)
    outer.chmod(0o755)
    assert NOBODY.barred_at(outer / "inner" / "new") is None
    outer.chmod(0o700)
    assert NOBODY.barred_at(outer / "inner" / "new") == outer
    assert Account("me", os.geteuid(), os.getegid(), is_other=False).barred_at(outer) is None
