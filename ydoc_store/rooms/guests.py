"""Presence of somebody who has no socket: shown to everyone in the document, and gone unless it is renewed in time.

No connection's end takes it away: it leaves with a null, or with the time-out. Whoever it is may show as much in a
document as one member may, and whose a state is, is judged as for members.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.auth.access import Access
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.yjs.awareness import decode_awareness, stamp

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.settings import Settings


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody without a socket, as the owner of what they show; `address` where a token names nobody."""

    actor: str | None
    address: str | None


async def show_guest(rooms: Rooms, granted: Granted, name: str, payload: bytes, *, address: str | None) -> None:
    """Show what an awareness payload says to everyone in the document; what is not newer changes nothing.

    Nor does it where this one may not show anything (YDOC_AWARENESS): a stock client that is refused presence stops
    everything else too. Raises InvalidFrame, and as opening the document does.
    """
    settings = rooms.settings
    entries = decode_awareness(
        payload,
        entries_max=settings.awareness_entries_max,
        bytes_max=settings.awareness_bytes_max,
        json_depth_max=settings.nesting_max,
    )
    if not may_show(settings, granted):
        return
    if settings.has_identities:
        entries = [stamp(entry, granted.actor, granted.name) for entry in entries]
    room = await open_granted(rooms, granted, name)
    owner = Guest(granted.actor, address if granted.actor is None else None)
    fresh = room.presence.hear(owner, entries, time.monotonic(), principal=granted.actor).fresh
    if fresh:
        rooms.attendance.changed(room, fresh, None)


def may_show(settings: Settings, granted: Granted) -> bool:
    """Whether what this one shows of itself is passed on."""
    needed = {"read": Access.READ, "write": Access.WRITE}.get(settings.awareness)
    return needed is not None and granted.access >= needed
