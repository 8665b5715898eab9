"""README's example of a follower: killed at any moment and started again, it has every edit once."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from tests.appending import Owner
from tests.sites import Site, running_site
from tests.waiting import until
from ydoc_store.storage.epochs import delete_document, recreate_document

README = Path(__file__).parents[2] / "README.md"


def example(site: Site) -> str:
    """The script, and nothing else changed in it than where the server is."""
    found = re.search(r"<!-- follow -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1].replace("http://127.0.0.1:1234", site.http_url)


@contextlib.asynccontextmanager
async def following(script: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """It runs, and is killed at the block's end."""
    process = await asyncio.create_subprocess_exec(sys.executable, script, cwd=script.parent)
    try:
        yield process
    finally:
        assert process.returncode is None, "it ended by itself"
        process.kill()
        await process.wait()


def kept(folder: Path) -> list[tuple[str, int, int, int]]:
    """What the follower has, in the order in which it was told."""
    if not (folder / "followed.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "followed.db", timeout=30)) as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'edits'").fetchone():
            return []
        return store.execute("SELECT document, epoch, seq, count FROM edits ORDER BY rowid").fetchall()


async def test_a_follower_that_is_killed_again_and_again_has_every_edit_once(database_url: str, tmp_path: Path) -> None:
    async with running_site(database_url) as site:
        script = tmp_path / "follower.py"
        script.write_text(example(site))
        owners = [Owner(site.service.appender, f"doc {number}", "default") for number in range(5)]
        written = 0
        for number in range(6):
            async with following(script):
                for _ in range(4):
                    for owner in owners:
                        owner.put(b"u", b"v", actor="ann")
                        written += 2
                    await asyncio.gather(*(owner.heard_of(written // 5) for owner in owners))
                # Now and then it is killed in the midst of it, and otherwise when it has seen something.
                if number % 2:
                    had = len(kept(tmp_path))
                    await until(lambda had=had: len(kept(tmp_path)) > had)
        await delete_document(site.database, "default", "doc 0")
        await recreate_document(site.database, "default", "doc 0")
        async with following(script):
            await until(lambda: sum(count for *_, count in kept(tmp_path)) >= written)
    heads: dict[tuple[str, int], int] = defaultdict(int)
    for document, epoch, seq, count in kept(tmp_path):
        assert seq - count == heads[document, epoch], "in order, without a gap"
        heads[document, epoch] = seq
    assert heads == {(owner.name, 1): written // 5 for owner in owners}
