"""Under which account our Postgres runs, and what that account can reach.

Postgres refuses to run as root. A normal user runs it as themselves; root runs it through an unprivileged
account, chosen here. That account must be able to walk down to the data folder and to the binaries, which is
often not so below /root; the folder that bars the way is named here. Nothing here starts or changes anything.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ydoc_store.errors import EmbeddedPostgresFailed

# Best first: an account made for us, then Postgres's own, then the one that every system has.
ACCOUNTS_FOR_ROOT = ("ydoc-store", "postgres", "nobody")


class SpawnAs(TypedDict, total=False):
    """Keyword arguments of `subprocess.Popen` that start a child under an account; empty for our own."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs Postgres: ourselves, or (`is_other`) an account that root steps down to."""

    name: str
    uid: int
    gid: int
    is_other: bool

    def spawn_as(self) -> SpawnAs:
        """How to start a child under this account; only root can step down to another one."""
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def barred_at(self, path: Path) -> Path | None:
        """The first folder on the way to `path` (itself included) that this account may not enter, or None.

        Judged by the permission bits; a path that does not exist yet bars nobody.
        """
        if not self.is_other:
            return None
        for folder in (*reversed(path.parents), path):
            try:
                found = folder.stat()
            except FileNotFoundError:
                return None
            if stat.S_ISDIR(found.st_mode) and not self._may_enter(found):
                return folder
        return None

    def _may_enter(self, found: os.stat_result) -> bool:
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def choose_account(cluster: Path) -> Account:
    """The account for the cluster in this folder: its owner when it exists, else the best one available.

    Raises EmbeddedPostgresFailed when there is none, or when the folder belongs to somebody whom we cannot become.
    """
    uid = os.geteuid()
    owner = cluster.stat().st_uid if cluster.exists() else None
    if uid != 0:
        if owner not in (None, uid):
            raise EmbeddedPostgresFailed(
                f"{cluster} belongs to {_name_of(owner)}, but this is {_name_of(uid)}: "
                f"run ydoc-store as {_name_of(owner)} (or as root), or choose another --data-dir"
            )
        return _own_account(uid)
    if owner is not None:
        return _stepping_down_to_owner(cluster, owner)
    for name in ACCOUNTS_FOR_ROOT:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_other=True)
    raise EmbeddedPostgresFailed(
        "Postgres does not run as root, and this system has none of the accounts "
        f"{', '.join(ACCOUNTS_FOR_ROOT)} to run it under: create one (`useradd --system ydoc-store`), "
        "start ydoc-store as a normal user, or pass --database-url"
    )


def _own_account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        # initdb and the server both look up the name of the user they run as.
        raise EmbeddedPostgresFailed(
            f"the user id {uid} has no name on this system, and Postgres cannot run without one: "
            f"add it to /etc/passwd (a container image: `useradd --uid {uid} ydoc-store`), or pass --database-url"
        ) from None
    return Account(entry.pw_name, uid, os.getegid(), is_other=False)


def _stepping_down_to_owner(cluster: Path, owner: int) -> Account:
    if owner == 0:
        raise EmbeddedPostgresFailed(
            f"{cluster} belongs to root, and Postgres does not run as root: give it back to an "
            f"unprivileged account (`chown -R {ACCOUNTS_FOR_ROOT[-1]} {cluster}`)"
        )
    try:
        entry = pwd.getpwuid(owner)
    except KeyError:
        raise EmbeddedPostgresFailed(
            f"{cluster} belongs to the user id {owner}, which has no name on this system: create that account "
            f"(`useradd --system --uid {owner} ydoc-store`), or give the folder to another one with chown"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_other=True)


def _name_of(uid: int | None) -> str:
    if uid is None:
        return "nobody"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
