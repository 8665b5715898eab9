"""What a room asks of an update that holds something new, before it is queued.

Against what is committed and, where that alone would refuse it, what is in flight. Raises what the sender is told;
changes nothing but the sender's own allowance. Who may write at all was asked before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ydoc_store.errors import AheadOfLog, TooLarge
from ydoc_store.rooms.admission import judge_counts, judge_reserved

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.room import Room
    from ydoc_store.yjs.walked import Walked


def judge(room: Room, member: Member, walked: Walked) -> None:
    """Raises TooLarge, InvalidUpdate, EpochChanged, AheadOfLog."""
    if room.ranges_at_most > room.limits.document_ranges_max:
        _judge_ranges(room)
    knowledge = room.knowledge
    judge_counts(walked, knowledge, room.limits.update)
    judge_reserved(walked, room.marker)
    if knowledge.units_ahead(walked) and (ahead := knowledge.units_ahead(walked, room.flying())):
        if ahead > member.deletes_ahead_left:
            raise AheadOfLog("a delete of content that never came: sync again and bring it")
        member.deletes_ahead_left -= ahead
        room.keeper.audited(room, member, "delete ahead", None)
    # Whoever brings a late predecessor makes it less, and is welcome; the others bring theirs when they sync again.
    if knowledge.pending_units > room.limits.pending_units_max and (
        knowledge.pending_growth(walked) > 0 and knowledge.pending_growth(walked, room.flying()) > 0
    ):
        raise AheadOfLog("too much waits already for content that never came: sync again and bring it")


def _judge_ranges(room: Room) -> None:
    room.tidy_count()
    if room.ranges_at_most > room.limits.document_ranges_max:
        raise TooLarge("this document holds as many separate pieces as it may (YDOC_DOCUMENT_RANGES_MAX)")
