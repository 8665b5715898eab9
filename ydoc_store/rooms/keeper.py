"""What a room asks of whoever keeps it: the work that needs waiting, or that looks beyond one room.

The registry is the keeper; rooms stay pure, and tests keep them by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.room import Room

Audited = Literal["blank run", "delete ahead"]
"""A run without content for a client that is live elsewhere; a delete of content that never came."""


class Keeper(Protocol):
    """What a room asks of whoever keeps it."""

    def catch_up(self, room: Room) -> None:
        """Read from the log what the room lacks; asking again while that is under way is fine."""

    def follow(self, member: Member, seq: int) -> None:
        """Send a member, at the pace of its socket, what came after `seq`; it goes live again behind that."""

    def identified(self, room: Room) -> None:
        """The document exists from now on, and the room knows its id."""

    def discarded(self, room: Room) -> None:
        """Nobody may enter this room any more."""

    def audited(self, room: Room, member: Member, what: Audited, seq: int | None) -> None:
        """Something was accepted, or will be, that an operator may have to repair: note it, without its content."""
