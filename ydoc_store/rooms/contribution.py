"""One update by somebody without a socket: judged, committed and relayed by the very room that editors are in.

A backend's edit is an update like any other. It comes from a member that is there until its outcome is known, so
admission, order, group commit and fan-out are the sockets' own. Here is only how the outcome becomes an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ydoc_store.errors import (
    ClientFault,
    CommitUnknown,
    DocumentRenamed,
    Forbidden,
    NoSuchDocument,
    StorageUnavailable,
    YdocError,
)
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.rooms.large import submit_large
from ydoc_store.rooms.member import MAY_ONLY_READ, READ_ONLY, Member
from ydoc_store.rooms.unseen import NO_DIALECT, EndOutlet
from ydoc_store.storage.guards import Duplicate, Guard, Verdict
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.storage.appender import QueuedUpdate


@dataclass(frozen=True, slots=True)
class Contributed:
    """The COMMIT is known. `seq` is the update's own; where nothing was stored it is a head by which all of it is in
    the log: it held nothing new (`is_new` is False), or is a producer's repeat (`is_duplicate`).

    `created` tells the update with which the document began.
    """

    document_id: int
    epoch: int
    marker: int
    seq: int
    is_new: bool = True
    is_duplicate: bool = False
    created: bool = False


async def contribute(
    rooms: Rooms,
    granted: Granted,
    name: str,
    update: bytes,
    *,
    dialect: str,
    guard: Guard | None = None,
    creates: bool = True,
    history: int | None = None,
) -> Contributed:
    """Have one update in the log, and shown to everyone in the document. `dialect` is counted in the metrics.

    `history` is the marker of the epoch that its sender holds (0: it was told that nothing is there), where that is
    known; another is EpochChanged.

    Returns behind the COMMIT. Raises, nothing being stored: Forbidden for a reader, StorageUnavailable on a read-only
    server, NoSuchDocument unless it `creates`, whatever the room refuses (InvalidUpdate, TooLarge, AheadOfLog,
    EpochChanged, DocumentDeleted), what the guard refuses, ServerFault. CommitUnknown and RoomDiscarded leave open
    whether it is stored: a repeat is harmless, and with a producer it is stored once. Cancelling undoes nothing.
    """
    if guard is not None and guard.head_is == 0:
        # It brings what the document begins with, instead of what its application has for empty ones.
        granted = replace(granted, initial_update=None)
    room = await open_granted(rooms, granted, name)
    member = _Contributor(rooms, room, granted, dialect)
    rooms.enter(member)
    try:
        if room.document_id is None and not creates:
            # Another node may have made it a moment ago.
            await rooms.watch.read_missing(room)
            if room.document_id is None:
                raise NoSuchDocument(f"no document is named {name!r}")
        if history is not None:
            await rooms.watch.judge_history(room, history)
        existed = room.document_id is not None
        await _submit(rooms, member, update, guard)
        seq = await member.stored()
        is_new = seq is not None and not member.is_duplicate
        return Contributed(
            room.document_id or 0,
            room.epoch,
            room.marker or 0,
            room.head if seq is None else seq,
            is_new=is_new,
            is_duplicate=member.is_duplicate,
            created=is_new and seq == 1 and not existed,
        )
    finally:
        rooms.left(member)


async def _submit(rooms: Rooms, member: Member, update: bytes, guard: Guard | None) -> None:
    try:
        if len(update) > INLINE_BYTES_MAX:
            await submit_large(rooms, member, update, guard=guard)
        elif not member.closed:
            member.room.submit_walked(member, update, walk(update, member.room.limits.update), guard=guard)
    except ClientFault:
        member.counts.refused += 1
        raise


class _Contributor(Member):
    """A member for one update."""

    __slots__ = ("_outcome", "is_duplicate")

    def __init__(self, rooms: Rooms, room: Room, granted: Granted, dialect: str):
        # A value in either case: nobody may be waiting any more, and an exception would be reported as forgotten.
        self._outcome: asyncio.Future[int | YdocError | None] = asyncio.get_running_loop().create_future()
        counts = rooms.metrics.dialect(dialect)
        outlet = EndOutlet(dialect, self._came_to)
        super().__init__(room, outlet, NO_DIALECT, counts, granted.actor, may_write=granted.may_write)
        self.is_duplicate = False
        # A backend may delete what it knows to be on its way from elsewhere; it is counted and told in the log.
        self.deletes_ahead_left = rooms.settings.import_deletes_ahead_max

    async def stored(self) -> int | None:
        """The seq of the update, of a producer's repeat the head where it was found out; None where the room held all
        of it already. Raises what it was refused for."""
        outcome = await self._outcome
        if isinstance(outcome, DocumentRenamed):
            # What was in flight is in the document all the same, under its new name.
            raise CommitUnknown("this document was renamed meanwhile: see under its new name what is stored")
        if isinstance(outcome, YdocError):
            raise outcome
        return outcome

    def _came_to(self, outcome: int | YdocError | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def acknowledge(self, *, accepted: bool, times: int = 1, seq: int | None = None) -> None:
        if accepted:
            self._came_to(seq)

    def judged(self, queued: QueuedUpdate, verdict: Verdict) -> None:
        if isinstance(verdict, Duplicate):
            # The room may be behind the node that stored it.
            self.is_duplicate = True
            self._came_to(verdict.head)
        else:
            self._came_to(verdict if isinstance(verdict, YdocError) else None)

    def decline(self, why: str, *, answers: bool = False) -> None:
        self.counts.read_only += 1
        self._came_to(StorageUnavailable(READ_ONLY) if why == READ_ONLY else Forbidden(MAY_ONLY_READ))

    def pause(self) -> None:
        """It has sent all that it will."""
