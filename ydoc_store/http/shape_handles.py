"""Which history of a document a shape's reader holds: what its handle says, and what follows where that has changed.

ElectricSQL's client stores whatever handle an answer brings and sends it back. On a 409 it reads the shape again from
the beginning into the very document that it has, which is right within one epoch and would merge two histories
otherwise; at any other 4xx it stops. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

from ydoc_store.errors import InvalidRequest

if TYPE_CHECKING:
    from ydoc_store.storage.incarnation import Incarnation

_HANDLE: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,16})-([0-9a-f]{16})")


class Held(Enum):
    """How what a reader holds stands to the document as it is now."""

    CURRENT = "it holds this"
    NOTHING = "it was told that nothing had been written"
    STALE = "the same epoch, and a database that may have lost what it holds"
    ANOTHER = "another history"


@dataclass(frozen=True, slots=True)
class Handle:
    """An epoch (0 and marker 0 where nothing was ever written) in one incarnation of the database."""

    epoch: int
    marker: int
    incarnation: str

    @classmethod
    def of(cls, epoch: int, marker: int | None, incarnation: Incarnation) -> Self:
        """The handle of a document as it is now; `marker` None where nobody has written to it."""
        return cls(epoch if marker is not None else 0, marker or 0, fingerprint(incarnation))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidRequest for what was never one."""
        match = _HANDLE.fullmatch(text)
        if match is None:
            raise InvalidRequest("the handle is none of this server's: begin again with an empty document")
        return cls(int(match[1]), int(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.epoch}-{self.marker}-{self.incarnation}"

    def beside(self, now: Handle) -> Held:
        """What somebody who has this handle holds, where the document's is `now`."""
        if self == now:
            return Held.CURRENT
        if not self.marker:
            # Nothing became the first epoch; whoever wrote to that may hold it, though it was never told its handle.
            return Held.NOTHING if now.epoch <= 1 else Held.ANOTHER
        return Held.STALE if self.marker == now.marker else Held.ANOTHER


def fingerprint(incarnation: Incarnation) -> str:
    """The same for the same database only. Its restarts differ: a copy of a stopped cluster has nothing else new."""
    told = (
        incarnation.system_identifier,
        incarnation.timeline,
        incarnation.started_at.isoformat(),
        incarnation.database_oid,
        incarnation.table_oid,
        incarnation.bump,
    )
    return sha256(repr(told).encode()).hexdigest()[:16]
