"""`backup` and `restore` where something is in the way: nothing is overwritten, and half of it counts for nothing.

That a backup holds what was accepted while it was made is a drill: tests/interop/test_restore_drills.py.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.integration.test_cli_commands import typed
from tests.service import STORE, Ended, end_orphans, run
from tests.waiting import until
from ydoc_store.embedded import backup
from ydoc_store.embedded.backup import read_backup
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.errors import BackupRefused


async def command(*arguments: str | Path) -> Ended:
    return await run(*STORE, *map(str, arguments))


@pytest.fixture
async def made(data_dir: Path, tmp_path: Path) -> Path:
    """A backup of a folder with one document, made while nothing serves."""
    (tmp_path / "update").write_bytes(typed("hello")[0])
    imported = await command("import", "plan", tmp_path / "update", "--data-dir", data_dir)
    assert imported.exit_code == 0, imported.messages
    done = await command("backup", tmp_path / "backup", "--data-dir", data_dir, "--json")
    assert done.exit_code == 0, done.messages
    told = json.loads(done.output)
    assert told["files"] > 100
    assert told["bytes"] > 1_000_000
    return tmp_path / "backup"


async def test_a_damaged_backup_is_refused_and_a_killed_restore_can_be_repeated(
    made: Path, open_folder: Path, data_dir: Path, free_port: int
) -> None:
    new = open_folder / "new"
    # One bit of one page.
    page = max((made / "postgres" / "base").rglob("[0-9]*"), key=lambda path: path.stat().st_size)
    whole = page.read_bytes()
    page.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    damaged = await command("restore", made, "--data-dir", new)
    assert (damaged.exit_code, f"{page.relative_to(made / 'postgres')} has another checksum" in damaged.messages) == (
        5,
        True,
    )
    refused = await command("serve", "--data-dir", new, "--port", free_port)
    assert (refused.exit_code, "did not come to its end" in refused.messages) == (3, True)
    page.write_bytes(whole)

    inner = DataFolder(DataFolder(new).restoring)
    killed = await asyncio.create_subprocess_exec(
        *STORE, "restore", made, "--data-dir", new, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    # Its Postgres runs, and outlives it.
    await until((inner.cluster / "postmaster.pid").exists)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    try:
        assert not DataFolder(new).cluster.exists()
        restored = await command("restore", made, "--data-dir", new)
    finally:
        end_orphans(inner.root)
    assert (restored.exit_code, "1 document" in restored.output) == (0, True), restored
    again = await command("restore", made, "--data-dir", new)
    assert (again.exit_code, "holds a Postgres already" in again.messages) == (5, True)
    shutil.rmtree(data_dir)
    exported = await command("export", "plan", "--data-dir", new, "--format", "json")
    assert exported.exit_code == 0, exported.messages


async def test_what_is_no_place_or_no_backup_is_refused_before_anything_is_copied(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(data_dir)
    url = "postgresql://nobody@/nothing?host=/nowhere"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    (tmp_path / "file").touch()
    for place, reason in (("taken", "is there already"), ("file", "is there already"), ("no/where", "is no folder")):
        with pytest.raises(BackupRefused, match=reason):
            await backup.back_up(url, folder, tmp_path / place)
    data_dir.mkdir()
    with pytest.raises(BackupRefused, match="in the data folder itself"):
        await backup.back_up(url, folder, data_dir / "backup")
    monkeypatch.setattr(backup, "SPARE_BYTES", 2**60)
    with pytest.raises(BackupRefused, match="MiB free, and a backup takes"):
        await backup.back_up(url, folder, tmp_path / "new")
    monkeypatch.undo()
    with pytest.raises(BackupRefused, match="the backup failed"):
        await backup.back_up(url, folder, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "taken"}, "nothing is left behind"
    for content in (b"", b"[]", b'{"format": 2}'):
        (tmp_path / "taken" / "backup.json").write_bytes(content)
        with pytest.raises(BackupRefused):
            read_backup(tmp_path / "taken")


async def test_a_given_database_is_not_for_these_commands(tmp_path: Path) -> None:
    for arguments in (("backup", tmp_path / "new"), ("restore", tmp_path)):
        refused = await command(*arguments, "--database-url", "postgresql://x@y/z")
        assert refused.exit_code == 2
        assert "pg_dump" in refused.messages
