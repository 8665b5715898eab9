"""Presence of somebody who has no socket: shown to everyone in the document, and gone unless it is renewed in time.

No connection's end takes it away: it leaves with a null, or with the time-out. What may be shown, and whose a state
is, is judged as for members.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ydoc_store.auth.access import Access
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.presence import Guest, Heard
from ydoc_store.yjs.awareness import decode_awareness, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.presence import Presence
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room
    from ydoc_store.settings import Settings
    from ydoc_store.yjs.awareness import AwarenessEntry


async def show_guest(rooms: Rooms, granted: Granted, name: str, payload: bytes) -> None:
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
    show_entries(rooms, await open_granted(rooms, granted, name), granted, entries)


def show_entries(rooms: Rooms, room: Room, granted: Granted, entries: Sequence[AwarenessEntry]) -> None:
    """Show the entries of one who may show something to everyone in the room."""
    heard = hear_guest(room.presence, rooms.settings, granted, entries)
    if heard.fresh:
        rooms.attendance.changed(room, heard.fresh, None)
    elif heard.corrections:
        # Its own reader tells it that it was declared gone, and that its next clock counts again.
        room.wake_followers()


def hear_guest(presence: Presence, settings: Settings, granted: Granted, entries: Sequence[AwarenessEntry]) -> Heard:
    """What the entries of one who may show something change, each being a guest of its own where nobody is known."""
    now_s = time.monotonic()
    heard = Heard([], [])
    for entry in entries:
        guest = Guest(granted.actor, None if settings.has_identities else entry.client_id)
        shown = stamp(entry, granted.actor, granted.name) if settings.has_identities else entry
        found = presence.hear(guest, [shown], now_s, principal=granted.actor)
        heard.fresh.extend(found.fresh)
        heard.corrections.extend(found.corrections)
    return heard


def may_show(settings: Settings, granted: Granted) -> bool:
    """Whether what this one shows of itself is passed on."""
    needed = {"read": Access.READ, "write": Access.WRITE}.get(settings.awareness)
    return needed is not None and granted.access >= needed
