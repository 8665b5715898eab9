"""What was accepted under suspicion, for an operator who may have to repair it: counted, and told in the log.

A flood of it must not flood the log, so one line an interval is written, which says how many were left out. No
content is told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from ydoc_store.metrics import Metrics
    from ydoc_store.rooms.keeper import Audited
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.room import Room

log = structlog.get_logger(__name__)

LINE_INTERVAL_S: Final = 1.0


class Audits:
    """Those of all rooms of this process."""

    def __init__(self, metrics: Metrics):
        self._metrics = metrics
        self._next_line_at_s = 0.0
        self._left_out = 0

    def note(self, room: Room, member: Member, what: Audited, seq: int | None) -> None:
        """`seq` is the update's own, None where it is not accepted yet."""
        self._metrics.audited(what)
        now_s = time.monotonic()
        if now_s < self._next_line_at_s:
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        self._next_line_at_s = now_s + LINE_INTERVAL_S
        log.warning(
            "accepted, and to be looked at",
            what=what,
            document=room.document_id,
            seq=seq,
            connection=member.outlet.id,
            actor=member.actor,
            left_out=left_out,
        )
