"""Where a reader of a stream stands: the tokens in `offset`, and the cursors that keep shared caches moving. Pure.

A token is `%016d_%016d` of (epoch, number), and number is 2 * seq. The Yjs protocol has a snapshot continue at its
own token with the number plus one, so an odd number is a reader that has just loaded the snapshot through number // 2:
"updates whose 2 * seq is greater" then skips nothing. Tokens of one stream sort as text in the order of what they
stand for. What a token's epoch means for a document is the caller's.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ydoc_store.errors import InvalidRequest

CURSOR_INTERVAL_S: Final = 20
CURSOR_EPOCH_S: Final = 1_728_432_000
"""9 October 2024, 00:00 UTC, from which the protocol counts intervals."""
CURSOR_JITTER_S_MAX: Final = 3_600

_TOKEN = re.compile(r"([0-9]{16})_([0-9]{16})")
_SNAPSHOT_SUFFIX = "_snapshot"


class Sentinel(Enum):
    """Positions that are words."""

    BEGINNING = "-1"
    NOW = "now"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Token:
    """A reader of this epoch that has everything up to `seq`; `follows_snapshot` where that came as a snapshot."""

    epoch: int
    seq: int
    follows_snapshot: bool = False

    def __str__(self) -> str:
        return f"{self.epoch:016d}_{2 * self.seq + self.follows_snapshot:016d}"

    @property
    def behind_snapshot(self) -> Token:
        """Where a reader goes on that has loaded the snapshot of this position."""
        return Token(self.epoch, self.seq, follows_snapshot=True)


@dataclass(frozen=True, slots=True)
class SnapshotAt:
    """The snapshot itself, of this position."""

    token: Token

    def __str__(self) -> str:
        return f"{self.token}{_SNAPSHOT_SUFFIX}"


Offset = Token | SnapshotAt | Sentinel


def parse_offset(text: str) -> Offset:
    """What `offset=` asks for. Raises InvalidRequest for anything that no answer of ours has given."""
    if text in ("-1", "now", "snapshot"):
        return Sentinel(text)
    is_snapshot = text.endswith(_SNAPSHOT_SUFFIX)
    match = _TOKEN.fullmatch(text.removesuffix(_SNAPSHOT_SUFFIX))
    if match is None or not text.isascii():
        raise InvalidRequest("the offset is none: -1, now, snapshot, or what an answer's Stream-Next-Offset said")
    epoch, number = int(match[1]), int(match[2])
    token = Token(epoch, number // 2, follows_snapshot=number % 2 == 1)
    if not is_snapshot:
        return token
    if token.follows_snapshot:
        raise InvalidRequest("the offset is none: a snapshot stands at an even position")
    return SnapshotAt(token)


def cursor_after(echoed: str | None, now_s: float) -> str:
    """The cursor of a live answer, always greater than the one that the client has echoed.

    Raises InvalidRequest for one that is no number. So a shared cache never serves one answer for ever.
    """
    current = int(now_s - CURSOR_EPOCH_S) // CURSOR_INTERVAL_S
    if echoed is None:
        return str(current)
    if not (echoed.isascii() and echoed.isdecimal() and len(echoed) <= 16):
        raise InvalidRequest("the cursor is none: send back what Stream-Cursor said")
    if int(echoed) < current:
        return str(current)
    jitter = max(1, random.randint(1, CURSOR_JITTER_S_MAX) // CURSOR_INTERVAL_S)
    return str(int(echoed) + jitter)
