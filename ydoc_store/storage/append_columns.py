"""A batch as the columns that the append's statement takes: log rows, and hints for other nodes.

Consecutive updates of one actor share a row. A hint carries the bytes along where they fit. Pure: what is sent with
these columns, and what the answer means, is in `append_batch`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from ydoc_store.yjs.lib0 import encode_uint

if TYPE_CHECKING:
    from ydoc_store.storage.appender import QueuedUpdate

# Postgres refuses a payload of 8,000 bytes and more.
HINT_BYTES_MAX: Final = 7_999
# Above this many documents in one commit the bytes are not sent along: the commit's time is worth more than the
# one read that each of the other nodes saves, and the notification queue is a bounded thing.
INLINE_HINTS_MAX: Final = 16
# "|id:count:head:marker" of one document, at its longest.
_HINT_DOCUMENT_BYTES_MAX: Final = 72


class Hints(Protocol):
    """What the fan-out wants said with each commit."""

    hint_prefix: str
    inline_bytes_max: int


class LogRows:
    """The log rows of a batch, column by column: consecutive updates of one actor share a row.

    `followed_by` counts the document's updates behind a row, so that its seq is the new head less those.
    """

    def __init__(self) -> None:
        self.document_ids: list[int] = []
        self.followed_by: list[int] = []
        self.counts: list[int] = []
        self.actors: list[str | None] = []
        self.frames: list[bytes] = []

    def add(self, document_id: int, updates: list[QueuedUpdate]) -> int:
        """Append the rows of one document; returns how many there are."""
        rows_before = len(self.counts)
        frames: list[bytes] = []
        actor = updates[0].actor
        first = 0
        for place, queued in enumerate(updates):
            if queued.actor != actor:
                self._end_row(document_id, len(updates) - place, place - first, actor, frames)
                frames, actor, first = [], queued.actor, place
            frames.append(encode_uint(len(queued.update)))
            frames.append(queued.update)
        self._end_row(document_id, 0, len(updates) - first, actor, frames)
        return len(self.counts) - rows_before

    def _end_row(self, document_id: int, followed_by: int, count: int, actor: str | None, frames: list[bytes]) -> None:
        self.document_ids.append(document_id)
        self.followed_by.append(followed_by)
        self.counts.append(count)
        self.actors.append(actor)
        self.frames.append(b"".join(frames))


def hints_of(batches: Sequence[tuple[list[QueuedUpdate], int]], hints: Hints | None) -> tuple[list[int], list[str]]:
    """For the updates of each document, and their size, the number of the hint that names them (0 = none); and the
    texts that the hints begin with.

    A hint is `prefix;inline|id:count:head:marker|…`; inline is base64 of the frames of its one document where they fit,
    else empty. Documents without inline bytes share hints, as many as fit.
    """
    if hints is None:
        return [0] * len(batches), []
    numbers: list[int] = []
    texts: list[str] = []
    shared_number = 0
    shared_room = 0
    bare = f"{hints.hint_prefix};"
    for updates, size in batches:
        # Base64 of the frames of a batch of small updates; a frame's length takes up to 4 bytes here.
        inline_bytes = (size + 4 * len(updates)) * 4 // 3 + 4
        if inline_bytes <= hints.inline_bytes_max and len(batches) <= INLINE_HINTS_MAX:
            frames = b"".join(encode_uint(len(q.update)) + q.update for q in updates)
            texts.append(bare + base64.b64encode(frames).decode())
            numbers.append(len(texts))
            continue
        if shared_room < _HINT_DOCUMENT_BYTES_MAX:
            texts.append(bare)
            shared_number, shared_room = len(texts), HINT_BYTES_MAX - len(bare)
        shared_room -= _HINT_DOCUMENT_BYTES_MAX
        numbers.append(shared_number)
    return numbers, texts
