"""Presence of somebody who has no socket: shown to everyone in the document, and gone unless it is renewed in time.

No connection's end takes it away: it leaves with a null, or with the time-out. What may be shown, and whose a state
is, is judged as for members.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ydoc_store.auth.access import Access
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.presence import Guest
from ydoc_store.yjs.awareness import decode_awareness, stamp

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
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
    if settings.has_identities:
        entries = [stamp(entry, granted.actor, granted.name) for entry in entries]
    room = await open_granted(rooms, granted, name)
    now_s = time.monotonic()
    fresh: list[AwarenessEntry] = []
    corrections: list[AwarenessEntry] = []
    for entry in entries:
        guest = Guest(granted.actor, None if settings.has_identities else entry.client_id)
        heard = room.presence.hear(guest, [entry], now_s, principal=granted.actor)
        fresh += heard.fresh
        corrections += heard.corrections
    if fresh:
        rooms.attendance.changed(room, fresh, None)
    elif corrections:
        # Its own reader tells it that it was declared gone, and that its next clock counts again.
        room.wake_followers()


def may_show(settings: Settings, granted: Granted) -> bool:
    """Whether what this one shows of itself is passed on."""
    needed = {"read": Access.READ, "write": Access.WRITE}.get(settings.awareness)
    return needed is not None and granted.access >= needed
