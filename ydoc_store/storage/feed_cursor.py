"""A place in a tenant's change feed, and the opaque text by which a reader keeps it. Pure.

The text carries which database it is about (system identifier, timeline, identity of database and table, an
operator's bump) and whose feed: in another one the same numbers mean something else. It says when the row at that
place was written, too, which no row that was written over it says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ydoc_store.errors import CursorExpired, InvalidRequest

if TYPE_CHECKING:
    from ydoc_store.storage.incarnation import Incarnation

# In the order of the feed, so that the texts of one feed sort as their places do.
_FORM: Final = struct.Struct(">QQIQ8s")
_CHARACTERS: Final = 58
_AT_US_MAX: Final = 10**16
START_OVER: Final = "begin again: take a cursor with after=now, read the documents that you keep, and follow from it"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Behind the first `seen` events of the row (through_xid, id), which was written at `at_us` (microseconds since
    1970). With id 0 it is before every row: of all times where `at_us` is 0, else of those from then on."""

    through_xid: int = 0
    id: int = 0
    at_us: int = 0
    seen: int = 0


OLDEST: Final = Place()


def write_cursor(incarnation: Incarnation, tenant: str, place: Place) -> str:
    """58 digits and small letters; a later place has a greater text."""
    packed = _FORM.pack(place.through_xid, place.id, place.seen, place.at_us, _whose(incarnation, tenant))
    return base64.b32hexencode(packed).decode().rstrip("=").lower()


def read_cursor(incarnation: Incarnation, tenant: str, cursor: str) -> Place:
    """The place that this cursor names. Raises InvalidRequest for what is none, CursorExpired for another database's
    or another tenant's."""
    try:
        if len(cursor) != _CHARACTERS or not cursor.isascii():
            raise ValueError
        padded = cursor.upper().ljust(-(-_CHARACTERS // 8) * 8, "=")
        through_xid, row_id, seen, at_us, whose = _FORM.unpack(base64.b32hexdecode(padded))
        if max(through_xid, row_id) >= 2**63 or at_us > _AT_US_MAX:
            raise ValueError
    except (ValueError, binascii.Error, struct.error):
        raise InvalidRequest("this is no cursor of the change feed") from None
    if whose != _whose(incarnation, tenant):
        raise CursorExpired(f"the database was restored, or another one took over: {START_OVER}")
    return Place(through_xid, row_id, at_us, seen)


def _whose(incarnation: Incarnation, tenant: str) -> bytes:
    # Not when the server was started: a restart loses nothing, and readers would all begin again.
    named = (
        incarnation.system_identifier,
        incarnation.timeline,
        incarnation.database_oid,
        incarnation.table_oid,
        incarnation.bump,
        tenant,
    )
    return hashlib.blake2b("\0".join(map(str, named)).encode(), digest_size=8).digest()
