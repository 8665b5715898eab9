"""`python -m ydoc_store.embedded.upgrade DATA_DIR`: bring the cluster to the major version that we run.

Postgres's own pg_upgrade copies the old cluster into a new one; the old one is kept beside it, to be deleted by
hand once the new one has proved itself. Nothing may use the data folder meanwhile: its lock is held throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ydoc_store.embedded.account import Account, choose_account
from ydoc_store.embedded.binaries import MAJOR, Binaries, packaged, reachable
from ydoc_store.embedded.cluster import make_cluster, run_program
from ydoc_store.embedded.configuration import ROLE, write_configuration
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.embedded.lock import FolderLock
from ydoc_store.embedded.postmaster import Postmaster
from ydoc_store.embedded.predecessor import clear_predecessor
from ydoc_store.errors import EmbeddedPostgresFailed

READY_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Upgraded:
    """`kept` is where the old cluster lies now; None when there was nothing to do."""

    was: int
    kept: Path | None


async def upgrade(folder: DataFolder) -> Upgraded:
    """The cluster of this folder, brought to our major version by copying.

    Raises EmbeddedPostgresFailed; the old cluster is then still the one that counts.
    """
    was = folder.major()
    if was is None:
        raise EmbeddedPostgresFailed(f"{folder.root} holds no cluster to upgrade")
    if was == MAJOR:
        return Upgraded(was, None)
    account = choose_account(folder.cluster)
    folder.create(account)
    lock = FolderLock(folder.lock)
    socket_folder = folder.socket_folder(account)
    try:
        kept = folder.place_aside(was)
        old = reachable(packaged(was), account, folder.programs)
        new = reachable(packaged(), account, folder.programs)
        write_configuration(folder, account, socket_folder)
        await clear_predecessor(folder.cluster, folder.configuration, socket_folder)
        # pg_upgrade refuses a cluster that was not shut down cleanly: recover it first, with its own programs.
        postmaster = await Postmaster.start(folder, old, account, ready_timeout_s=READY_TIMEOUT_S)
        await postmaster.stop()
        staging = await _copy_upgraded(folder, account, old, new, socket_folder)
        folder.cluster.rename(kept)
        folder.commit(staging)
        return Upgraded(was, kept)
    finally:
        # pg_upgrade's own proposal of how to delete the old cluster; ours is told at the end.
        (socket_folder / "delete_old_cluster.sh").unlink(missing_ok=True)
        folder.leave_socket_folder(socket_folder)
        lock.release()


async def _copy_upgraded(
    folder: DataFolder, account: Account, old: Binaries, new: Binaries, socket_folder: Path
) -> Path:
    """A staging folder that holds the upgraded copy."""
    facts = await run_program(old.program("pg_controldata"), str(folder.cluster), account=account, folder=folder)
    has_checksums = "Data page checksum version:           0" not in facts
    # pg_upgrade wants both clusters alike in this; from 18 on initdb makes checksums unless told not to.
    choice = "--data-checksums" if has_checksums else "--no-data-checksums"
    staging = await make_cluster(folder, new, account, choice)
    rules = shlex.join(
        f"-c{name}={folder.configuration / file}"
        for name, file in (("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf"))
    )
    try:
        await run_program(
            new.program("pg_upgrade"),
            *("-b", str(old.folder), "-B", str(new.folder), "-d", str(folder.cluster), "-D", str(staging)),
            *("-U", ROLE, "--socketdir", str(socket_folder), "--old-options", rules, "--new-options", rules),
            account=account,
            folder=folder,
            # It writes its logs into the new cluster and a script into its working folder.
            cwd=socket_folder,
        )
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        raise
    return staging


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 done, else that of the error."""
    parser = argparse.ArgumentParser(prog="python -m ydoc_store.embedded.upgrade", description=upgrade.__doc__)
    parser.add_argument("data_dir", type=Path, help="the data folder, as given to `ydoc-store serve --data-dir`")
    data_dir: Path = parser.parse_args(arguments).data_dir
    try:
        done = asyncio.run(upgrade(DataFolder(data_dir.expanduser().resolve())))
    except (EmbeddedPostgresFailed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EmbeddedPostgresFailed.exit_code
    if done.kept is None:
        print(f"{data_dir} is of Postgres {done.was} already; nothing to do")
    else:
        print(f"upgraded from Postgres {done.was} to {MAJOR}; delete {done.kept} when all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
