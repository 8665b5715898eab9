"""What y-leveldb keeps, which y-websocket's servers persist with: one LevelDB entry an update, by name and number.

Opening a LevelDB takes its lock, so nobody else, their server included, has it open meanwhile.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Unreadable, missing, stepwise, together
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_string

_STRING = 0
# `["v1", name, "update", number]`
_KEYS = bytes((_STRING,)) + encode_string("v1")


@asynccontextmanager
async def leveldb(path: Path) -> AsyncIterator[Opened]:
    """The documents of such a folder. SourceUnreadable where it is none, or is in use."""
    plyvel = _library()
    if not (path / "CURRENT").is_file():
        raise SourceUnreadable(f"no LevelDB at {path}: a folder with a file CURRENT in it")
    try:
        database = plyvel.DB(str(path), create_if_missing=False)
    except (plyvel.Error, OSError) as error:
        in_use = "lock" in str(error).lower()
        reason = "a server has it open: stop that one first" if in_use else str(error)
        raise SourceUnreadable(f"{path} cannot be read: {reason}") from error
    with closing(database):
        yield _Entries(database)


def _library() -> Any:
    """plyvel has wheels up to Python 3.11, its continuation from 3.12 on."""
    try:
        return importlib.import_module("plyvel")
    except ImportError:
        try:
            return importlib.import_module("plyvel_next")
        except ImportError as error:
            missing("plyvel, or plyvel-next", "leveldb", error)


class _Entries:
    def __init__(self, database: Any):
        self._database = database

    async def total(self) -> int:
        return sum(1 for key in self._database.iterator(prefix=_KEYS, include_value=False) if _is_update(key))

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        return stepwise(together(self._entries()))

    def _entries(self) -> Iterator[Found | Unreadable]:
        for key, value in self._database.iterator(prefix=_KEYS):
            try:
                match _parts(key):
                    case ["v1", str(name), "update", int()]:
                        yield Found(name, [bytes(value)])
            except (Malformed, UnicodeDecodeError):
                yield Unreadable(repr(key), "its key is none of y-leveldb's")


def _is_update(key: bytes) -> bool:
    """Beside the updates lie values that y-leveldb calls meta. A key that cannot be read is told, and counts."""
    try:
        return _parts(key)[2:3] == ["update"]
    except (Malformed, UnicodeDecodeError):
        return True


def _parts(key: bytes) -> list[str | int]:
    """A key's parts: each a kind and then a string (0), or a number of four bytes, the highest first (1)."""
    reader = Reader(key)
    parts: list[str | int] = []
    while not reader.done:
        if reader.byte() == _STRING:
            parts.append(reader.buf().decode())
        else:
            start = reader.skip(4)
            parts.append(int.from_bytes(key[start : start + 4]))
    return parts
