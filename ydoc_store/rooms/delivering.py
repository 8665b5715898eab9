"""Committed updates on their way to a room's members: who is sent what, each kind of frame built once. Pure.

Whoever is not live is skipped, and catches up from the log. What is delivered when is the room's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ydoc_store.rooms.joined import joined

if TYPE_CHECKING:
    from ydoc_store.rooms.early import Run
    from ydoc_store.rooms.member import Dialect, Member
    from ydoc_store.rooms.room import Room

LIVE_BYTES_MAX: Final = 1024 * 1024
"""A larger update takes a slow link some time: members are sent it as a first sync is, not through their outbox."""


def deliver(room: Room, run: Run, before: int) -> None:
    """Show a run to the members, who were at `before`, and keep it for readers to come."""
    sole = run.sole_writer
    if len(run.updates) > 1 and any(member.is_live and member is not sole for member in room.members):
        run.updates = list(joined(run.updates))
    for update in run.updates:
        room.cache.add(run.last, update)
        if len(update) > LIVE_BYTES_MAX:
            _send_paced(room, before, sole)
        else:
            send_all(room, update, sole)
    room.wake_followers()


def send_all(room: Room, update: bytes, but: Member | None, *, syncing_too: bool = False) -> None:
    """Send one update to everyone who is live, behind everything sent before."""
    frames: dict[Dialect, bytes] = {}
    # A copy: whoever an outlet tells may leave before the next one is served.
    for member in tuple(room.members):
        if (member.is_live or (syncing_too and member.presence_sent)) and member is not but:
            frame = frames.get(member.dialect)
            if frame is None:
                frame = frames[member.dialect] = member.outlet.encode(member.dialect.update(update))
            member.outlet.write(frame)


def _send_paced(room: Room, seq: int, but: Member | None) -> None:
    # In an outbox it would close every member whose link takes a while for it.
    for member in tuple(room.members):
        if member.is_live and member is not but:
            room.keeper.follow(member, seq)
