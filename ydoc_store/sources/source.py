"""What every source is: how many entries, and one after the other the documents in them.

Reading is synchronous in most stores, and then done step by step in a thread. Names and bytes are handed over as
they were found; of what a store cannot give, the reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from ydoc_store.errors import LibraryMissing

Item = TypeVar("Item")

# What a driver has in place of bytes that are no UTF-8
_TORN = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """One document's updates, in any order; `entries` of the source's total are done with it."""

    name: str
    updates: list[bytes]
    entries: int = 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that is no document, and why. `name` is for people to find it by."""

    name: str
    reason: str
    entries: int = 1


class Opened(Protocol):
    """A source that is being read, as one moment had it where the store can do that."""

    async def total(self) -> int:
        """How many entries there are. Raises SourceUnreadable."""

    def documents(self) -> AsyncIterator[Found | Unreadable]:
        """Each once, or a second time where its updates do not lie together. Raises SourceUnreadable."""


Source = AbstractAsyncContextManager[Opened]
"""Entering it raises SourceUnreadable or LibraryMissing."""


def missing(library: str, extra: str, error: ImportError) -> NoReturn:
    """Raises LibraryMissing, which says how to get `library`."""
    raise LibraryMissing(f"this needs {library}: pip install 'ydoc-store[{extra}]'") from error


async def stepwise(items: Iterator[Item]) -> AsyncIterator[Item]:
    """The items of a blocking iterator, each waited for in a thread: our own database is served meanwhile."""
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield item  # type: ignore[misc]  # the end is none of them


def entry(name: object, data: object) -> Found | Unreadable:
    """One row with a name and a value, as a driver gives it."""
    if isinstance(name, bytes):
        try:
            name = name.decode()
        except UnicodeDecodeError:
            return Unreadable(repr(name), "its name is not UTF-8")
    if name is None:
        return Unreadable("(none)", "it has no name")
    if isinstance(name, str) and _TORN.search(name):
        return Unreadable(repr(name), "its name is not UTF-8")
    if data is None:
        return Found(str(name), [])
    if isinstance(data, bytes | bytearray | memoryview):
        return Found(str(name), [bytes(data)])
    return Unreadable(str(name), f"its data is {type(data).__name__}, not bytes: decode it in the query")


def together(entries: Iterable[Found | Unreadable]) -> Iterator[Found | Unreadable]:
    """Neighbours of one name as one document: stores keep a row an update, too."""
    name: str | None = None
    updates: list[bytes] = []
    count = 0
    for item in entries:
        if isinstance(item, Found) and item.name == name:
            updates += item.updates
            count += item.entries
            continue
        if name is not None:
            yield Found(name, updates, count)
        if isinstance(item, Found):
            name, updates, count = item.name, list(item.updates), item.entries
        else:
            name = None
            yield item
    if name is not None:
        yield Found(name, updates, count)
