"""The answer to a Step1: what a reader lacks, in pieces, as fast as its socket takes them.

Our own Step1 goes first, then the content as Update messages, the last of it as the Step2. A first sync of any
size is paced by the socket and counts in no outbox; the member is skipped by deliveries meanwhile and catches up
from the log when the pieces are out, so that a slow link holds one copy of the document at most, shared with
every other slow link. A document that fits one piece is answered at once, without a task.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ydoc_store.errors import YdocError
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX, Heavy, cut_pieces, digest_tail
from ydoc_store.rooms.room import STORED_LIMITS, ColdPieces, Room
from ydoc_store.storage.loader import read_after
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.walker import marker_update

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member
    from ydoc_store.storage.loader import StoredDocument
    from ydoc_store.storage.pool import Database


@dataclass(frozen=True, slots=True)
class Reader:
    """What a reader said that it has."""

    vector: dict[int, int]
    state_vector: bytes

    @property
    def is_new(self) -> bool:
        return not self.vector


class FirstSync:
    """Answers Step1 for all rooms of a process."""

    def __init__(self, database: Database, heavy: Heavy, piece_bytes_max: int):
        self._database = database
        self._heavy = heavy
        self._piece_bytes_max = piece_bytes_max

    def at_once(self, member: Member, reader: Reader) -> bool:
        """Answer from what the room holds, if that is small; False when it takes a task (`paced`)."""
        room = member.room
        if room.document_id is None:
            member.send(member.dialect.step2(EMPTY_UPDATE))
            member.is_live = True
            return True
        if room.knowledge.is_within(reader.vector):
            # Whoever has every struct lacks deletes at most, and those the room knows by heart.
            member.send(member.dialect.step2(b"\0" + room.knowledge.encode_delete_set()))
            member.is_live = True
            return True
        parts = room.cache.parts()
        if parts is None and room.fresh is not None and room.fresh[0] == room.head:
            parts = room.fresh[1]
        if parts is None or sum(map(len, parts)) > min(self._piece_bytes_max, INLINE_BYTES_MAX * 2):
            return False
        pieces = cut_pieces(parts, None if reader.is_new else reader.state_vector, self._piece_bytes_max)
        for message in _messages(member, reader, pieces):
            member.send(message)
        member.is_live = True
        room.fresh = None
        return True

    async def paced(self, member: Member, reader: Reader) -> None:
        """Answer at the pace of the socket, then catch up with what was committed meanwhile, then go live.

        Returns early when the member is gone. Raises ServerFault where the log cannot be read.
        """
        seq, pieces, shared = await self._pieces(member.room, reader)
        for message in _messages(member, reader, pieces):
            if not await member.outlet.write_paced(member.outlet.encode(message)):
                return
        del shared
        room = member.room
        while seq < room.head:
            missed = room.cache.after(seq)
            if missed is not None:
                seq = room.head
            else:
                stored = await read_after(self._database, room.document_id or 0, seq)
                missed, seq = await self._parts_of(stored, seq), stored.head
            for update in missed:
                if not await member.outlet.write_paced(member.outlet.encode(member.dialect.update(update))):
                    return
        # No await between the last look at the head and this: nothing can be committed in between unseen.
        member.is_live = not member.closed

    async def _pieces(self, room: Room, reader: Reader) -> tuple[int, list[bytes], ColdPieces | None]:
        if reader.is_new and room.cold_pieces is not None:
            shared = room.cold_pieces()
            if shared is not None:
                return shared.seq, shared.pieces, shared
        seq, parts = await self._parts(room)
        size = sum(map(len, parts))
        state_vector = None if reader.is_new else reader.state_vector
        pieces = await self._heavy.run(size, cut_pieces, parts, state_vector, self._piece_bytes_max)
        shared = None
        if reader.is_new:
            shared = ColdPieces(seq, pieces)
            room.cold_pieces = weakref.ref(shared)
        return seq, pieces, shared

    async def _parts(self, room: Room) -> tuple[int, list[bytes]]:
        parts = room.cache.parts()
        if parts is not None:
            return room.head, parts
        if room.fresh is not None:
            (seq, parts), room.fresh = room.fresh, None
            return seq, parts
        stored = await read_after(self._database, room.document_id or 0, 0)
        return stored.head, await self._parts_of(stored, 0)

    async def _parts_of(self, stored: StoredDocument, cursor: int) -> list[bytes]:
        parts = []
        if stored.snapshot is not None and stored.snapshot.bytes is not None:
            parts.append(stored.snapshot.bytes)
            cursor = stored.snapshot.through_seq
        rows = [trimmed(row.frames, cursor - (row.seq - row.count)) for row in stored.tail]
        if rows:
            joined, _ = await self._heavy.run(sum(map(len, rows)), digest_tail, rows, STORED_LIMITS)
            parts.append(joined)
        return parts


def trimmed(row_frames: bytes, skip: int) -> bytes:
    """A row's frames without its first `skip` updates: a cursor may point inside a row."""
    if skip <= 0:
        return row_frames
    offset = 0
    for index, update in enumerate(frames(row_frames)):
        if index == skip:
            break
        offset += len(update) + _length_bytes(len(update))
    return row_frames[offset:]


def _length_bytes(length: int) -> int:
    return max(1, (length.bit_length() + 6) // 7)


def _messages(member: Member, reader: Reader, pieces: list[bytes]) -> list[bytes]:
    dialect = member.dialect
    messages = []
    marker = member.room.marker
    if marker is not None and marker not in reader.vector:
        messages.append(dialect.update(marker_update(marker)))
    messages.extend(dialect.update(piece) for piece in pieces[:-1])
    messages.append(dialect.step2(pieces[-1] if pieces else EMPTY_UPDATE))
    return messages


__all__ = ["FirstSync", "Reader", "YdocError", "trimmed"]
