"""Presence on its way: from a member to its room's other members and to other nodes, and back. Never stored.

The states of a node's members belong to that node, which renews them; where it dies they time out like those of a
half-open socket. Between nodes presence travels as hints, which may be lost: stock clients renew every 15 s.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ydoc_store.fanout.presence import PresenceHint
from ydoc_store.rooms.named_presence import NamedPresences, is_named
from ydoc_store.rooms.presence import Node, Presence
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Dialect, Member
    from ydoc_store.rooms.room import Room


class Attendance:
    """The presence of all rooms of this process. `tell` takes what other nodes should hear."""

    def __init__(self, rooms: dict[tuple[str, str], Room], timeout_s: float, new_presence: Callable[[], Presence]):
        self._rooms = rooms
        # Tells what a reader was shown here from what another node has shown it.
        self.node = secrets.token_hex(6)
        self._timeout_s = timeout_s
        self.tell: Callable[[PresenceHint], None] = lambda _hint: None
        self.named = NamedPresences(new_presence, timeout_s)
        self.named.tell = self._tell_of_named

    def _tell_of_named(self, hint: PresenceHint) -> None:
        self.tell(hint)

    def changed(self, room: Room, entries: Sequence[AwarenessEntry], sender: Member | None) -> None:
        """A member of this node shows something new: everyone else in the room sees it, and the other nodes hear."""
        show(room, entries, sender)
        self.tell(PresenceHint(room.tenant, room.name, list(entries), asks=False))

    def opened(self, room: Room) -> None:
        """A room has opened here: ask the other nodes who is there already."""
        self.tell(PresenceHint(room.tenant, room.name, [], asks=True))

    def listening(self) -> None:
        """This node listens from now on. What others said meanwhile is asked for, and what they may have missed of its
        members is told again: clients would renew it, but only every 15 s."""
        for room in list(self._rooms.values()):
            if not room.presence.is_empty or room.members:
                self.tell(PresenceHint(room.tenant, room.name, room.presence.current_here(), asks=True))

    def heard(self, node: str, hint: PresenceHint) -> None:
        """Another node tells of its members, or asks for ours."""
        if is_named(hint):
            self.named.heard(node, hint, time.monotonic())
            return
        room = self._rooms.get((hint.tenant, hint.name))
        if room is None:
            return
        if hint.asks:
            mine = room.presence.current_here()
            if mine:
                self.tell(PresenceHint(room.tenant, room.name, mine, asks=False))
        heard = room.presence.hear(Node(node), hint.entries, time.monotonic(), is_node=True)
        if heard.corrections:
            # Its member came back with the clock it left with, as after a lost connection: that node tells it so.
            self.tell(PresenceHint(room.tenant, room.name, heard.corrections, asks=False))
        if heard.fresh:
            show(room, heard.fresh, None)
        for words in hint.words:
            say(room, words, None)

    def said(self, room: Room, words: str, sender: Member) -> None:
        """A writer's stateless words: everyone else in the room hears them, on other nodes too. Nothing is kept."""
        say(room, words, sender)
        self.tell(PresenceHint(room.tenant, room.name, [], asks=False, words=(words,)))

    def expire(self, now_s: float) -> None:
        """Forget, in every room, whoever was not renewed in time."""
        for room in list(self._rooms.values()):
            if not room.presence.is_empty:
                gone = room.presence.expire(now_s, self._timeout_s)
                if gone:
                    show(room, gone, None)
        self.named.expire(now_s)


def show(room: Room, entries: Sequence[AwarenessEntry], sender: Member | None) -> None:
    """Send presence to every member but its sender that has begun its first sync, each dialect's frame built once."""
    payload = encode_awareness_entries(entries)
    encoded: dict[Dialect, bytes] = {}
    for member in tuple(room.members):
        if member is not sender and member.presence_sent and not member.closed:
            frame = encoded.get(member.dialect)
            if frame is None:
                frame = encoded[member.dialect] = member.outlet.encode(member.dialect.awareness(payload))
            member.outlet.write(frame)
    room.wake_followers()


def say(room: Room, words: str, sender: Member | None) -> None:
    """Send stateless words to every member but their sender whose dialect has such."""
    for member in tuple(room.members):
        if member is not sender and not member.closed:
            message = member.dialect.stateless(words)
            if message is not None:
                member.send(message)
