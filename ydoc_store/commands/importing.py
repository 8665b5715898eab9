"""Updates from a file go into the log as one member of a room, at the pace of the commits.

Every byte is walked before the first update is stored. The room judges each update as it judges an editor's, and
refuses one for the same reasons; what was accepted before stays, and a repeated import stores nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal, NamedTuple

from ydoc_store.errors import InvalidUpdate, YdocError
from ydoc_store.metrics import DialectCounts, Metrics
from ydoc_store.relay import RelayService
from ydoc_store.rooms.member import Member
from ydoc_store.rooms.unseen import NoDialect
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import Malformed, frames
from ydoc_store.yjs.markers import without_markers
from ydoc_store.yjs.split import split
from ydoc_store.yjs.walker import UpdateLimits, walk

# One chunk is committed while the next is read. Larger ones commit no faster, and what is in flight is looked
# through for each delete of something that is in flight itself.
CHUNK_UPDATES = 256

# The least that a struct takes, and what the splitter counts for a delete range, of which each may name a client.
_STRUCT_BYTES = 2
_RANGE_BYTES = 8


class ImportReport(NamedTuple):
    """What became of an import: `updates` were read, `head` is the document's seq afterwards.

    `deletes_ahead` units were deleted that never came: whoever writes them later writes in vain.
    """

    updates: int
    bytes: int
    accepted: int
    nothing_new: int
    head: int
    deletes_ahead: int


def read_updates(data: bytes, form: Literal["auto", "update", "log"], limits: UpdateLimits) -> list[bytes]:
    """The updates of a file, each of them well-formed and none over `limits` where it could be cut.

    A whole document is one update, and larger than any that an editor sends. Raises InvalidUpdate.
    """
    if not data:
        raise InvalidUpdate("the file is empty: it holds no update")
    any_size = replace(limits, update_bytes_max=2**62)
    found = [data] if form == "update" or (form == "auto" and _is_update(data, any_size)) else _log(data)
    updates: list[bytes] = []
    for number, update in enumerate(found, start=1):
        try:
            walked = walk(update, any_size)
        except YdocError as error:
            raise InvalidUpdate(f"update {number} of {len(found)}: {error}") from error
        if walked.reserved_clients():
            # A copy that somebody saved in an editor carries the marker of where it was: its content is wanted.
            update = without_markers(update)
            walked = walk(update, any_size)
        if len(update) <= limits.update_bytes_max and walked.over(limits) is None:
            updates.append(update)
        else:
            updates += split(update, _piece_bytes(limits))
    return updates


def _piece_bytes(limits: UpdateLimits) -> int:
    ranges_max = min(limits.delete_ranges_max, limits.clients_max)
    return max(1, min(limits.update_bytes_max // 2, _STRUCT_BYTES * limits.structs_max, _RANGE_BYTES * ranges_max))


def _is_update(data: bytes, limits: UpdateLimits) -> bool:
    try:
        walk(data, limits)
    except YdocError:
        return False
    return True


def _log(data: bytes) -> list[bytes]:
    try:
        return list(frames(data))
    except Malformed as error:
        raise InvalidUpdate(f"neither a Yjs v1 update nor a log of lib0 frames: {error}") from error


@asynccontextmanager
async def appending(database: Database, settings: Settings) -> AsyncIterator[RelayService]:
    """A node of the relay that nobody connects to, for imports to append through."""
    service = RelayService(database, settings, Metrics())
    try:
        await service.start()
        yield service
    finally:
        await service.stop()


async def append(
    service: RelayService, tenant: str, name: str, updates: Sequence[bytes], progress: Callable[[int], None]
) -> ImportReport:
    """Append in order; `progress` hears the bytes of each update that was handed over.

    Returns when the last COMMIT is known. Raises what the room refuses an update for, naming which it was.
    """
    room = await service.rooms.open(tenant, name)
    outlet = _Outlet()
    counts = DialectCounts()
    member = Member(room, outlet, _Dialect(), counts)
    member.deletes_ahead_left = ahead_max = service.settings.import_deletes_ahead_max
    room.members[member] = None
    try:
        for number, update in enumerate(updates, start=1):
            try:
                room.submit(member, update)
            except YdocError as error:
                await outlet.wait_for(number - 1)
                raise type(error)(f"update {number} of {len(updates)} was refused: {error}") from error
            progress(len(update))
            if number % CHUNK_UPDATES == 0:
                await outlet.wait_for(number - CHUNK_UPDATES)
            await outlet.may_send.wait()
            outlet.raise_if_closed()
        await outlet.wait_for(len(updates))
    finally:
        # An import of many documents keeps none of them in memory.
        room.leave(member)
        if room.is_idle:
            service.rooms.close(room)
    return ImportReport(
        updates=len(updates),
        bytes=sum(map(len, updates)),
        accepted=counts.accepted,
        nothing_new=counts.nothing_new,
        head=room.head,
        deletes_ahead=ahead_max - member.deletes_ahead_left,
    )


class _Dialect(NoDialect):
    """Only acks are of interest."""

    def ack(self, *, accepted: bool) -> bytes:
        return b"\1" if accepted else b"\0"


class _Outlet:
    """Counts acks in place of a socket."""

    id = "import"

    def __init__(self) -> None:
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._changed = asyncio.Event()
        self._acks = 0
        self._closed_by: YdocError | None = None

    def encode(self, message: bytes) -> bytes:
        return message

    def write(self, encoded: bytes) -> None:
        self._acks += len(encoded)
        self._changed.set()

    async def write_paced(self, _encoded: bytes) -> bool:
        return self._closed_by is None

    def close(self, error: YdocError) -> None:
        self._closed_by = error
        self.may_send.set()
        self._changed.set()

    def pause_reading(self) -> None:
        self.may_send.clear()

    def resume_reading(self) -> None:
        self.may_send.set()

    def raise_if_closed(self) -> None:
        if self._closed_by is not None:
            raise type(self._closed_by)(f"{self._closed_by}; {self._acks} updates had been accepted")

    async def wait_for(self, acks: int) -> None:
        """Returns when so many updates were acked. Raises what closed the member before."""
        while self._acks < acks:
            self.raise_if_closed()
            self._changed.clear()
            await self._changed.wait()
