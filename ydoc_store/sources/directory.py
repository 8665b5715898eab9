"""A directory of exported documents: a file each, and an index that tells the names. Written, and read.

The index is written last: a directory without one is an export that broke off. A file's name is safe on every file
system and says which document it is; the whole name stands in the index.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ydoc_store.errors import SourceUnreadable, WrongState
from ydoc_store.sources.source import Found, Opened, Unreadable, stepwise

INDEX = "index.jsonl"
_ENDING = ".yjs"
_SPOKEN_MAX = 60
_DIGEST_DIGITS = 16
_UNSPEAKABLE = re.compile(r"[^a-z0-9]+")


def file_name(name: str, ending: str = _ENDING) -> str:
    """For people a part of the name, for everything else its digest: names may differ in case alone, or be long."""
    spoken = _UNSPEAKABLE.sub("-", name.lower())[:_SPOKEN_MAX].strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{spoken}-{digest}{ending}" if spoken else digest + ending


class Writer:
    """Documents on their way into a new directory."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.rows: list[bytes] = []

    def write(self, name: str, update: bytes, **told: Any) -> None:
        """One document's whole content; `told` is kept beside its name."""
        file = file_name(name)
        (self._folder / file).write_bytes(update)
        digest = hashlib.sha256(update).hexdigest()
        row = {"name": name, "file": file, "bytes": len(update), "sha256": digest, **told}
        self.rows.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """A directory that is new or empty, with its index once the block ends. Raises WrongState for another one."""
    make_empty(folder)
    writer = Writer(folder)
    yield writer
    with whole_file(folder / INDEX) as index:
        index.writelines(writer.rows)


def make_empty(folder: Path) -> None:
    """Raises WrongState where the directory is there and holds something."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise WrongState(f"{folder} is not empty: nothing is overwritten")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there under its name once all of it is written, and not at all where that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


@asynccontextmanager
async def directory(folder: Path) -> AsyncIterator[Opened]:
    """The documents of such a directory."""
    try:
        rows = [orjson.loads(line) for line in (folder / INDEX).read_bytes().splitlines()]
        entries = [(str(row["name"]), str(row["file"]), str(row["sha256"])) for row in rows]
    except FileNotFoundError:
        raise SourceUnreadable(f"{folder} has no {INDEX}: no export was finished there") from None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise SourceUnreadable(f"{folder / INDEX} cannot be read: {error}") from error
    yield _Files(folder, entries)


class _Files:
    def __init__(self, folder: Path, entries: list[tuple[str, str, str]]):
        self._folder = folder
        self._entries = entries

    async def total(self) -> int:
        return len(self._entries)

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        return stepwise(self._found())

    def _found(self) -> Iterator[Found | Unreadable]:
        for name, file, digest in self._entries:
            if Path(file).name != file:
                yield Unreadable(name, "its file lies outside of the directory")
                continue
            try:
                content = (self._folder / file).read_bytes()
            except OSError as error:
                yield Unreadable(name, f"{file}: {error.strerror}")
                continue
            if hashlib.sha256(content).hexdigest() == digest:
                yield Found(name, [content])
            else:
                yield Unreadable(name, f"{file} is not what was exported: its checksum differs")
