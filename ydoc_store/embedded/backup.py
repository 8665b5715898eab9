"""A copy of our own Postgres while it serves, and a data folder made from such a copy.

A backup is a folder: `postgres/`, the cluster as pg_basebackup copies it, with the WAL that makes it consistent and
Postgres's manifest, which has a checksum for every file; and `backup.json`, which says what it is and has the
manifest's own checksum. It appears under its name when it is whole. A restored cluster counts only when the caller
is done with it as well. What the database holds is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import orjson

from ydoc_store import __version__
from ydoc_store.embedded.account import Account, choose_account
from ydoc_store.embedded.binaries import MAJOR, packaged, reachable
from ydoc_store.embedded.cluster import DISK_FULL, run_program, run_to_end
from ydoc_store.embedded.folder import MIB, DataFolder
from ydoc_store.embedded.lock import FolderLock
from ydoc_store.embedded.predecessor import clear_predecessor
from ydoc_store.errors import BackupRefused

FORMAT = 1
DESCRIPTION = "backup.json"
CLUSTER = "postgres"
MANIFEST = "backup_manifest"
WAL = "pg_wal"
# Beside the files themselves: the WAL of the time that the copying takes, and of the recovery behind it.
SPARE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Backup:
    """What `backup.json` says. `files` and `bytes` are those of the cluster without its WAL.

    Postgres's manifest, whose checksum is `manifest_sha256`, has a checksum for each of these files, made while they
    were copied; `wal_sha256` has those of the WAL, by name.
    """

    format: int
    made_at: str
    release: str
    postgres_major: int
    files: int
    bytes: int
    manifest_sha256: str
    wal_sha256: dict[str, str]


async def back_up(url: str, folder: DataFolder, target: Path) -> Backup:
    """Copy the cluster of `folder`, which runs at `url`, to the absolute path `target`: everything that was committed
    when this began, and more of what was committed meanwhile.

    Writers go on meanwhile. Raises BackupRefused, having left nothing at `target`, where that exists, has too little
    room, or the copying fails; likewise when it is cancelled.
    """
    _require_absent(target, folder)
    needed = await asyncio.to_thread(_size_of, folder.cluster) + SPARE_BYTES
    _require_room(target.parent, needed, "a backup")
    half_done = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    try:
        cluster = half_done / CLUSTER
        options = ("--checkpoint=fast", "--wal-method=stream", "--manifest-checksums=SHA256", "--no-password")
        # As whoever asks for it, so that it may lie where the account of our Postgres may not go.
        exit_code, said = await run_to_end(
            packaged().program("pg_basebackup"), "-d", url, "-D", str(cluster), *options, account=_ourselves()
        )
        if exit_code != 0:
            raise BackupRefused(_why("the backup failed", said, target.parent))
        backup = await asyncio.to_thread(_describe, half_done)
        await asyncio.to_thread(_commit, half_done, target)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, half_done, ignore_errors=True)
        raise
    return backup


def read_backup(source: Path) -> Backup:
    """What this backup is. Raises BackupRefused where it is none, is damaged, or another major version wrote it."""
    try:
        told = orjson.loads((source / DESCRIPTION).read_bytes())
        manifest = (source / CLUSTER / MANIFEST).read_bytes()
    except (OSError, orjson.JSONDecodeError) as error:
        raise BackupRefused(f"{source} is no whole backup of `ydoc-store backup`: {error}") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT or set(told) != {f.name for f in fields(Backup)}:
        raise BackupRefused(f"{source / DESCRIPTION} is not of a form that this release knows")
    backup = Backup(**told)
    if hashlib.sha256(manifest).hexdigest() != backup.manifest_sha256:
        raise BackupRefused(
            f"{source} is damaged: the checksum of {CLUSTER}/{MANIFEST} is not the one it was made with"
        )
    if backup.postgres_major != MAJOR:
        raise BackupRefused(
            f"{source} is of Postgres {backup.postgres_major}, and this ydoc-store brings Postgres {MAJOR}: restore it "
            f"with ydoc-store {backup.release}, which made it, and upgrade the data folder then"
        )
    return backup


@contextlib.asynccontextmanager
async def restoring(source: Path, folder: DataFolder) -> AsyncIterator[Path]:
    """A data folder inside `folder` that holds the backup's cluster, checked; it becomes `folder`'s own at the end.

    Nothing may run in the inner folder when the block ends. Where the block raises, or the process dies, `folder`
    has no cluster, and no service begins an empty one there. Raises BackupRefused, EmbeddedPostgresFailed.
    """
    backup = await asyncio.to_thread(read_backup, source)
    if folder.cluster.exists():
        raise BackupRefused(f"{folder.root} holds a Postgres already: name a new or an empty folder with --data-dir")
    account = choose_account(folder.cluster)
    folder.create(account)
    lock = FolderLock(folder.lock)
    inner = DataFolder(folder.restoring)
    try:
        await _clear(inner, account)
        _require_room(folder.root, backup.bytes + SPARE_BYTES, "the restored cluster")
        await _copy(source, backup, inner, account)
        yield inner.root
        inner.cluster.rename(folder.cluster)
        _sync(folder.root)
        await asyncio.to_thread(shutil.rmtree, inner.root, ignore_errors=True)
    except BaseException:
        # The empty folder stays: it tells that this is not a place for a new, empty cluster.
        await asyncio.to_thread(shutil.rmtree, inner.root, ignore_errors=True)
        inner.root.mkdir(exist_ok=True)
        raise
    finally:
        lock.release()


async def _clear(inner: DataFolder, account: Account) -> None:
    if inner.cluster.exists():
        # Of a restore that was killed while its Postgres ran.
        await clear_predecessor(inner.cluster, inner.configuration, inner.socket_folder(account))
    await asyncio.to_thread(shutil.rmtree, inner.root, ignore_errors=True)


async def _copy(source: Path, backup: Backup, inner: DataFolder, account: Account) -> None:
    inner.create(account)
    inner.lock.touch()
    staging = inner.staging(account)
    try:
        await asyncio.to_thread(_copy_tree, source / CLUSTER, staging, account)
    except OSError as error:
        raise BackupRefused(f"{source} could not be copied to {inner.root.parent}: {error}") from error
    # The copy is checked rather than the backup: whatever went wrong on either disk is found.
    wrong = await asyncio.to_thread(_differences, staging, backup)
    if wrong:
        raise BackupRefused(f"{source} is damaged: {'; '.join(wrong[:3])}")
    programs = reachable(packaged(), account, inner.programs)
    await run_program(programs.program("initdb"), "--sync-only", "-D", str(staging), account=account, folder=inner)
    inner.commit(staging)


def _copy_tree(source: Path, target: Path, account: Account) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for name, _, files in os.walk(target):
        place = Path(name)
        for path, mode in ((place, 0o700), *((place / file, 0o600) for file in files)):
            path.chmod(mode)
            if account.is_other:
                os.chown(path, account.uid, account.gid)


def _differences(cluster: Path, backup: Backup) -> list[str]:
    """What of a cluster is not as it was backed up. The packaged pg_verifybackup crashes, so it is done here."""
    wrong = []
    expected = {f"{WAL}/{name}": checksum for name, checksum in backup.wal_sha256.items()}
    for entry in orjson.loads((cluster / MANIFEST).read_bytes())["Files"]:
        expected[entry["Path"]] = entry["Checksum"]
    for name, checksum in expected.items():
        path = cluster / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif _checksum(path) != checksum:
            wrong.append(f"{name} has another checksum")
    return wrong


def _checksum(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _describe(half_done: Path) -> Backup:
    manifest = (half_done / CLUSTER / MANIFEST).read_bytes()
    sizes = [entry["Size"] for entry in orjson.loads(manifest)["Files"]]
    wal = [path for path in sorted((half_done / CLUSTER / WAL).iterdir()) if path.is_file()]
    backup = Backup(
        format=FORMAT,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        release=__version__,
        postgres_major=MAJOR,
        files=len(sizes),
        bytes=sum(sizes),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        wal_sha256={path.name: _checksum(path) for path in wal},
    )
    with (half_done / DESCRIPTION).open("wb") as description:
        description.write(orjson.dumps(asdict(backup), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        description.flush()
        os.fsync(description.fileno())
    _sync(half_done)
    return backup


def _commit(half_done: Path, target: Path) -> None:
    half_done.rename(target)
    _sync(target.parent)


def _ourselves() -> Account:
    return Account("", os.geteuid(), os.getegid(), is_other=False)


def _require_absent(target: Path, folder: DataFolder) -> None:
    if folder.root in target.resolve().parents:
        raise BackupRefused(f"{target} lies in the data folder itself, and would be lost with it: name another place")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise BackupRefused(f"{target} is there already, and nothing is overwritten: name a new folder")
    if not target.parent.is_dir():
        raise BackupRefused(f"{target.parent} is no folder: make it, or mount the disk that belongs there")


def _require_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupRefused(
            f"the disk of {folder} has {free / MIB:.0f} MiB free, and {what} takes {needed / MIB:.0f}: make room, or "
            "choose another disk"
        )


def _size_of(folder: Path) -> int:
    size = 0
    for name, _, files in os.walk(folder):
        for file in files:
            # Postgres removes files while we look.
            with contextlib.suppress(FileNotFoundError):
                size += Path(name, file).stat().st_size
    return size


def _why(problem: str, said: str, folder: Path) -> str:
    if any(sign in said for sign in DISK_FULL):
        return f"{problem}: the disk of {folder} is full"
    words = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in said.splitlines() if line.strip()]
    return f"{problem}: {'; '.join(words[-3:])}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
