"""A place in a tenant's change feed, and the opaque text by which a reader keeps it. Pure.

The text carries which database it is about (system identifier, timeline, identity of database and table, an
operator's bump) and whose feed: in another one the same numbers mean something else. It says when the row at that
place was written, too, which no row that was written over it says; and how much of the WAL holds all that its reader
was told, for the database of a standby that took over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import CursorExpired, InvalidRequest

if TYPE_CHECKING:
    from datetime import datetime

# In the order of the feed, so that the texts of one feed sort as their places do. Whole groups of base32 each.
_STANDING: Final = struct.Struct(">QQQQH6s")
_THROUGH: Final = struct.Struct(">Q")
_STANDING_CHARACTERS: Final = 64
_THROUGH_CHARACTERS: Final = 13
_AT_US_MAX: Final = 10**16
START_OVER: Final = "begin again: take a cursor with after=now, read the documents that you keep, and follow from it"


@dataclass(frozen=True, slots=True)
class Timeline:
    """One that the database has been on. Of what was written on it all up to `ends_at`, a place of the WAL, is in the
    database now; None where nobody knows. `noted_at` is when it was first seen."""

    number: int
    marker: str
    noted_at: datetime
    ends_at: int | None


@dataclass(frozen=True, slots=True)
class Source:
    """A database by name, and its timelines in order; it is on the last one, which ends where it is flushed to."""

    name: str
    timelines: Sequence[Timeline]

    @property
    def now(self) -> Timeline:
        return self.timelines[-1]


@dataclass(frozen=True, slots=True)
class Place:
    """Behind the first `seen` events of the row (through_xid, id), which was written at `at_us` (microseconds since
    1970). With id 0 it is before every row: of all times where `at_us` is 0, else of those from then on.

    All that was told to whoever stands there was committed before `through_lsn`, a place of the WAL.
    """

    through_xid: int = 0
    id: int = 0
    at_us: int = 0
    seen: int = 0
    through_lsn: int = 0


OLDEST: Final = Place()


def write_cursor(source: Source, tenant: str, place: Place) -> str:
    """77 digits and small letters; a later place has a greater text."""
    now = source.now
    packed = _STANDING.pack(
        place.through_xid, place.id, place.seen, place.at_us, now.number & 0xFFFF, _whose(source, now, tenant)
    )
    return _encode(packed) + _encode(_THROUGH.pack(place.through_lsn))


def read_cursor(source: Source, tenant: str, cursor: str) -> tuple[Place, Timeline]:
    """The place that this cursor names, and when it was handed out. Raises InvalidRequest for what is none,
    CursorExpired for another database's or another tenant's, and where something that was told is not there now."""
    try:
        if len(cursor) != _STANDING_CHARACTERS + _THROUGH_CHARACTERS or not cursor.isascii():
            raise ValueError
        through_xid, row_id, seen, at_us, _, whose = _STANDING.unpack(_decode(cursor[:_STANDING_CHARACTERS]))
        (through_lsn,) = _THROUGH.unpack(_decode(cursor[_STANDING_CHARACTERS:]))
        if max(through_xid, row_id) >= 2**63 or at_us > _AT_US_MAX:
            raise ValueError
    except (ValueError, binascii.Error, struct.error):
        raise InvalidRequest("this is no cursor of the change feed") from None
    timeline = next((one for one in source.timelines if _whose(source, one, tenant) == whose), None)
    if timeline is None or timeline.ends_at is None:
        raise CursorExpired(f"the database was restored, or another one took over: {START_OVER}")
    if through_lsn > timeline.ends_at:
        raise CursorExpired(f"another database took over, without all that was told before: {START_OVER}")
    return Place(through_xid, row_id, at_us, seen, through_lsn), timeline


def standing_and_told(cursor: str) -> tuple[str, int]:
    """Where the reader of a good cursor stands, as a text alike for all who do; and before which place of the WAL is
    what they were told."""
    (through_lsn,) = _THROUGH.unpack(_decode(cursor[_STANDING_CHARACTERS:]))
    return cursor[:_STANDING_CHARACTERS], through_lsn


def told_through(cursor: str, through_lsn: int) -> str:
    """The same place, for somebody who was told of other things as well, all committed before `through_lsn`."""
    return also_told(cursor, _encode(_THROUGH.pack(through_lsn)))


def also_told(cursor: str, other: str) -> str:
    """The same place, for somebody who was also told what the reader of another cursor was."""
    return cursor[:_STANDING_CHARACTERS] + max(cursor[_STANDING_CHARACTERS:], other[-_THROUGH_CHARACTERS:])


def _encode(packed: bytes) -> str:
    return base64.b32hexencode(packed).decode().rstrip("=").lower()


def _decode(text: str) -> bytes:
    return base64.b32hexdecode(text.upper() + "=" * (-len(text) % 8))


def _whose(source: Source, timeline: Timeline, tenant: str) -> bytes:
    # Not when the server was started: a restart loses nothing, and readers would all begin again.
    return hashlib.blake2b("\0".join((source.name, timeline.marker, tenant)).encode(), digest_size=6).digest()
