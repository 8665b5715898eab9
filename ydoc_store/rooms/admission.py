"""May this update, or this reader, come in? Judged against what a document is and what its committed log knows.

Pure functions that raise what the peer is told and change nothing. Sizes in bytes are judged where they are
counted, on the document's head row; who may write at all is not known here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.errors import EpochChanged, InvalidUpdate, TooLarge
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, UpdateLimits, Walked

if TYPE_CHECKING:
    from ydoc_store.rooms.presence import Presence

# What is in the log was within the limits of its day; it must be walked whatever today's are.
STORED_LIMITS = UpdateLimits(update_bytes_max=2**31, nesting_max=100, types_nesting_max=2**31, judges_parents=False)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """What one member may do to a room; the settings of the same names give the defaults and reasons."""

    update: UpdateLimits
    document_bytes_max: int
    member_unsettled_bytes_max: int = 4 * 2**20
    pending_units_max: int = 1_000_000
    queue_bytes_max: int = 64 * 2**20
    incoming_bytes_max: int = 256 * 2**20
    members_max: int = 2_000
    document_ranges_max: int = 1_000_000
    # Nothing new is stored; members read and stay.
    read_only: bool = False


def judge_vector(clients: Iterable[int], marker: int | None) -> None:
    """Raises EpochChanged when a reader carries the marker of a history that this document is not."""
    for client in clients:
        if client >= RESERVED_CLIENT_ID_MIN and client != marker:
            raise _another_epoch(marker)


def judge_reserved(walked: Walked, marker: int | None) -> None:
    """Under reserved ids there is this epoch's marker, one unit at clock 0, and nothing else.

    Raises EpochChanged for another marker, InvalidUpdate for anything else under this one.
    """
    for ranges in (walked.structs, walked.deletes):
        for client, clock, end in ranges:
            if client >= RESERVED_CLIENT_ID_MIN:
                if client != marker:
                    raise _another_epoch(marker)
                if (clock, end) != (0, 1):
                    raise InvalidUpdate("client ids from 2^53 - 2^24 on are reserved")


def judge_counts(walked: Walked, knowledge: Knowledge, limits: UpdateLimits) -> None:
    """Raises TooLarge when the update brings too much that is new.

    What is merely repeated does not count: every reconnect brings the whole delete set.
    """
    if walked.over(limits) is not None:
        excess = knowledge.news(walked).over(limits)
        if excess is not None:
            raise TooLarge(f"this update brings too much at once: {excess}")


def blanks_a_live_client(walked: Walked, sender: Hashable, knowledge: Knowledge, presence: Presence) -> bool:
    """Whether the update brings runs without content for clocks, not known yet, of a client that is live elsewhere.

    Editors that load from a browser's storage send such runs honestly, and so they are accepted. One for clocks that
    a live client has yet to write erases its work, and only a repair brings it back.
    """
    live = {client for client, _, _ in walked.blanks if presence.is_live_elsewhere(client, sender)}
    return bool(live) and bool(knowledge.lacks(found for found in walked.blanks if found[0] in live))


def _another_epoch(marker: int | None) -> EpochChanged:
    if marker is None:
        # Made in the hour that a restored backup lost, or on another server.
        return EpochChanged("the document that you hold does not exist here: save it, and reload before editing on")
    return EpochChanged("this document was recreated, repaired or restored: reload it before editing on")
