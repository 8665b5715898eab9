"""The data folder: its layout, who owns which part of it, and whether it can hold a cluster at all.

Nothing that our own process writes lies in a folder that the unprivileged account owns; that account owns the
cluster and the folder of its socket. Deleting the data folder deletes everything. Nothing here starts a process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.binaries import INSTALLS
from ydoc_store.errors import EmbeddedPostgresFailed

MIB = 1024 * 1024
# initdb writes 39 MiB, and the log of the first minutes may take as much again.
FIRST_START_BYTES_MIN = 96 * MIB
SOCKET_NAME = ".s.PGSQL.5432"
# What may lie in a data folder that is not ours yet, such as a fresh volume.
_HARMLESS = frozenset({"lost+found", ".DS_Store"})
_SHORT_PATHS = Path("/tmp")  # noqa: S108 # every entry is checked for its owner; other places are too long for a socket


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where everything of one embedded Postgres lies. `root` is absolute and free of symbolic links."""

    root: Path

    @property
    def cluster(self) -> Path:
        return self.root / "postgres"

    @property
    def configuration(self) -> Path:
        return self.root / "config"

    @property
    def log(self) -> Path:
        return self.root / "log" / "postgres.log"

    @property
    def lock(self) -> Path:
        return self.root / "service.lock"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    @property
    def restoring(self) -> Path:
        """Where a backup is made ready before it becomes the cluster."""
        return self.root / "restoring"

    def create(self, account: Account) -> None:
        """Make the folders of our own process.

        Raises EmbeddedPostgresFailed when this cannot be a data folder of ours.
        """
        barred = account.barred_at(self.root)
        if barred is not None:
            raise EmbeddedPostgresFailed(
                f"the account {account.name}, which runs Postgres for root, may not enter {barred}: choose "
                "a --data-dir outside it (the default is /var/lib/ydoc-store), or allow it with "
                f"`chmod o+x {barred}`"
            )
        if self.root.is_dir() and not self.lock.exists():
            foreign = sorted(entry.name for entry in self.root.iterdir() if entry.name not in _HARMLESS)
            if foreign:
                raise EmbeddedPostgresFailed(
                    f"{self.root} holds {foreign[0]!r}, which is not ours: a data folder is deleted as a whole, "
                    "so choose an empty or a new one as --data-dir"
                )
        # An account of its own must be able to pass through; otherwise nobody else has any business here.
        mode = 0o755 if account.is_other else 0o700
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(mode)
        # The log tells what stands in rows; it is written through a descriptor that we hand over.
        for folder, its_mode in ((self.configuration, mode), (self.programs, mode), (self.log.parent, 0o700)):
            folder.mkdir(exist_ok=True)
            folder.chmod(its_mode)

    def staging(self, account: Account) -> Path:
        """A new private folder of the account in which a cluster is made, to be renamed once it is whole."""
        for left_over in self.root.glob("postgres.new.*"):
            shutil.rmtree(left_over, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=self.root))
        _give(folder, account)
        found = folder.stat()
        if stat.S_IMODE(found.st_mode) != 0o700 or found.st_uid != account.uid:
            shutil.rmtree(folder, ignore_errors=True)
            raise EmbeddedPostgresFailed(
                f"the file system of {self.root} keeps no owners and permissions, which Postgres needs: choose a "
                "--data-dir elsewhere (under WSL, one in Linux's own file system, not below /mnt)"
            )
        return folder

    def commit(self, staging: Path) -> None:
        """Make the whole cluster in `staging` the one that counts, also after a power cut."""
        staging.rename(self.cluster)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def place_aside(self, major: int) -> Path:
        """Where an upgraded cluster's predecessor is kept. Raises EmbeddedPostgresFailed when it is taken."""
        kept = self.root / f"postgres.{major}"
        if kept.exists():
            raise EmbeddedPostgresFailed(f"{kept}, kept from a former upgrade, is in the way: move it away")
        return kept

    def socket_folder(self, account: Account) -> Path:
        """A folder that only this account (and root) can enter, with a path short enough for a Unix socket.

        Raises EmbeddedPostgresFailed when somebody else has taken the short path.
        """
        inside = self.root / "socket"
        inside.mkdir(mode=0o700, exist_ok=True)
        _give(inside, account)
        if _holds_sockets(inside):
            return inside
        # Too long (107 bytes on Linux, 103 on macOS), or a shared folder that knows no sockets.
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        outside = _SHORT_PATHS.resolve() / f"ydoc-store-{digest}"
        try:
            outside.mkdir(mode=0o700)
            _give(outside, account)
        except FileExistsError:
            found = outside.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
                raise EmbeddedPostgresFailed(
                    f"{outside}, where our Postgres's socket belongs, was made by somebody else: remove it"
                ) from None
        return outside

    def leave_socket_folder(self, folder: Path) -> None:
        """Remove a socket folder that lies outside the data folder, if it is empty."""
        if self.root not in folder.parents:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def major(self) -> int | None:
        """The major version of the cluster; None when there is none yet.

        Raises EmbeddedPostgresFailed when what lies there is no cluster.
        """
        if not self.cluster.exists():
            if self.restoring.exists():
                # Likewise: somebody waits for what was in the backup.
                raise EmbeddedPostgresFailed(
                    f"a restore into {self.root} did not come to its end: run it again, or begin with no documents at "
                    f"all after `rm -r {_shell(self.restoring)}`"
                )
            kept = sorted(self.root.glob("postgres.[0-9]*"))
            if kept:
                # Killed between its two renames; a new, empty cluster would look like a loss.
                raise EmbeddedPostgresFailed(
                    f"an upgrade of {self.root} was interrupted: "
                    f"`mv {_shell(kept[-1])} {_shell(self.cluster)}`, and upgrade again"
                )
            return None
        try:
            return int((self.cluster / "PG_VERSION").read_text().split(".")[0])
        except (OSError, ValueError) as error:
            raise EmbeddedPostgresFailed(
                f"{self.cluster} is damaged or no Postgres cluster (PG_VERSION: {error}): restore it from a "
                "backup, or move it away to begin anew"
            ) from error

    def require_major(self, ours: int) -> None:
        """Raises EmbeddedPostgresFailed, with the way to upgrade, when the cluster is of another major version."""
        found = self.major()
        if found in (None, ours):
            return
        problem = f"{self.cluster} was written by Postgres {found}, and this ydoc-store brings Postgres {ours}"
        if found in INSTALLS and found < ours:
            raise EmbeddedPostgresFailed(
                f"{problem}: upgrade it with `python -m ydoc_store.embedded.upgrade {_shell(self.root)}` "
                "(a copy is upgraded; the old cluster is kept)"
            )
        # Our own socket's folder may be one that is gone while we do not run.
        dump = "pg_dump -h /tmp -p 54320 -U ydoc -Fc -f ydoc.dump postgres"
        server = f"pg_ctl -D {_shell(self.configuration)}"
        start = f"{server} -o '-k /tmp -p 54320' start"
        raise EmbeddedPostgresFailed(
            f"{problem}. Go on with the ydoc-store that wrote it; or carry it over with the programs of Postgres "
            f"{found}, as the owner of that folder: `{start}`, `{dump}`, `{server} stop`; then "
            f"move {self.cluster} away, start ydoc-store once, and `pg_restore --clean --if-exists -d URL ydoc.dump`"
        )

    def require_space(self) -> None:
        """Raises EmbeddedPostgresFailed when a first start would fill the disk."""
        free = shutil.disk_usage(self.root).free
        if free < FIRST_START_BYTES_MIN:
            raise EmbeddedPostgresFailed(disk_full(self.root))


def disk_full(root: Path) -> str:
    """What to tell when the disk below the data folder is full."""
    free = shutil.disk_usage(root).free
    return (
        f"the disk of {root} is full ({free / MIB:.0f} MiB free, a first start needs "
        f"{FIRST_START_BYTES_MIN / MIB:.0f}): make room, or move the data folder to a larger disk and name it "
        "with --data-dir. Nothing that was accepted is lost"
    )


def _shell(path: Path) -> str:
    return shlex.quote(str(path))


def is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _give(folder: Path, account: Account) -> None:
    if account.is_other:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def _holds_sockets(folder: Path) -> bool:
    # The characters are those that need no quoting in an address or in Postgres's list of folders.
    if re.fullmatch(r"[A-Za-z0-9/._-]+", str(folder)) is None:
        return False
    probe = folder / "x".ljust(len(SOCKET_NAME), "x")
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
