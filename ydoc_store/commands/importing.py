"""Updates from a file go into the log as one member of a room, at the pace of the commits.

Every byte is walked before the first update is stored. The room judges each update as it judges an editor's, and
refuses one for the same reasons; what was accepted before stays, and a repeated import stores nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from ydoc_store.errors import InvalidUpdate, YdocError
from ydoc_store.metrics import Metrics
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.relay import RelayService
from ydoc_store.rooms.member import Member
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
    """What became of an import: `updates` were read, `head` is the document's seq afterwards."""

    updates: int
    bytes: int
    accepted: int
    nothing_new: int
    head: int


def read_updates(data: bytes, form: Literal["auto", "update", "log"], limits: UpdateLimits) -> list[bytes]:
    """The updates of a file, each of them well-formed and none over `limits` where it could be cut.

    A whole document is one update, and larger than any that an editor sends. Raises InvalidUpdate.
    """
    if not data:
        raise InvalidUpdate("the file is empty: it holds no update")
    any_size = replace(limits, update_bytes_max=2**62, entries_max=2**62)
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


async def import_updates(
    database: Database,
    settings: Settings,
    name: str,
    updates: Sequence[bytes],
    progress: Callable[[int], None],
) -> ImportReport:
    """Append in order; `progress` hears the bytes of each update that was handed over.

    Returns when the last COMMIT is known. Raises what the room refuses an update for, naming which it was.
    """
    service = RelayService(database, settings, Metrics())
    try:
        await service.start()
        return await _append(service, name, updates, progress)
    finally:
        await service.stop()


async def _append(
    service: RelayService, name: str, updates: Sequence[bytes], progress: Callable[[int], None]
) -> ImportReport:
    room = await service.rooms.open(DEFAULT_TENANT, name)
    outlet = _Outlet()
    counts = service.metrics.dialect(_Dialect.name)
    member = Member(room, outlet, _Dialect(), counts)
    room.members[member] = None
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
    return ImportReport(
        updates=len(updates),
        bytes=sum(map(len, updates)),
        accepted=counts.accepted,
        nothing_new=counts.nothing_new,
        head=room.head,
    )


class _Dialect:
    """Only acks are of interest; this member never goes live, so nothing else is sent to it."""

    name: Final = "import"

    def step1(self, _state_vector: bytes) -> bytes:
        return b""

    def step2(self, _update: bytes) -> bytes:
        return b""

    def update(self, _update: bytes) -> bytes:
        return b""

    def awareness(self, _payload: bytes) -> bytes:
        return b""

    def ack(self, *, accepted: bool) -> bytes:
        return b"\1" if accepted else b"\0"


class _Outlet:
    """Counts acks in place of a socket."""

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
