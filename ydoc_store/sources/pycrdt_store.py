"""What PyPI's pycrdt-store keeps, and Jupyter with it: an SQLite file with a row an update, or a file a document.

A checkpoint is what its updates came to, so reading both changes nothing; where older updates were squashed into
one, that is an update like the others. What was compressed by callbacks of one's own cannot be told from garbage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Source, Unreadable, stepwise
from ydoc_store.sources.sqlite import open_read_only, reading, sqlite_query
from ydoc_store.yjs.lib0 import Malformed, frames

HAS_CHECKPOINTS = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'ycheckpoints'"
UPDATES = "SELECT path, yupdate FROM yupdates ORDER BY path, timestamp"
UPDATES_AND_CHECKPOINTS = """
SELECT path, bytes FROM (
    SELECT path, yupdate AS bytes, timestamp FROM yupdates
    UNION ALL
    SELECT path, checkpoint AS bytes, timestamp FROM ycheckpoints
)
ORDER BY path, timestamp
"""
_VERSION = b"VERSION:"
# An update, what the application says about it, and a time
_FRAMES_AN_UPDATE = 3


def pycrdt_store(path: Path) -> Source:
    """The documents of an SQLiteYStore's file, or of a folder of FileYStore's files, named by their paths in it."""
    if path.is_dir():
        return _files(path)
    with reading(path), closing(open_read_only(path)) as connection:
        (checkpoints,) = connection.execute(HAS_CHECKPOINTS).fetchone()
    return sqlite_query(path, UPDATES_AND_CHECKPOINTS if checkpoints else UPDATES)


@asynccontextmanager
async def _files(folder: Path) -> AsyncIterator[Opened]:
    files = await asyncio.to_thread(lambda: sorted(path for path in folder.rglob("*") if path.is_file()))
    if not files:
        raise SourceUnreadable(f"{folder} holds no files")
    yield _Files(folder, files)


class _Files:
    def __init__(self, folder: Path, files: list[Path]):
        self._folder = folder
        self._paths = files

    async def total(self) -> int:
        return len(self._paths)

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        return stepwise(self._found())

    def _found(self) -> Iterator[Found | Unreadable]:
        for path in self._paths:
            name = path.relative_to(self._folder).as_posix()
            try:
                yield Found(name, _updates(path.read_bytes()))
            except (Malformed, OSError) as error:
                yield Unreadable(name, f"not a file of pycrdt-store: {error}")


def _updates(content: bytes) -> list[bytes]:
    head, _, log = content.partition(b"\n")
    if not head.startswith(_VERSION):
        raise Malformed("it does not begin with VERSION:")
    return list(frames(log))[::_FRAMES_AN_UPDATE]
