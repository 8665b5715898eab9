"""The answer to a Step1: what a reader lacks, in pieces, as fast as its socket takes them.

The content goes as Update messages, the last of it as the Step2. A first sync of any size is paced by the socket
and counts in no outbox; the member is skipped by deliveries meanwhile and catches up from the log when the pieces
are out, so that a slow link holds one copy of the document at most, shared with every other slow link; while others
wait for that memory, a link under YDOC_READER_BYTES_PER_S_MIN gives way. A document that fits one piece is answered
at once, without a task.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ydoc_store.errors import SlowMember
from ydoc_store.rooms.admission import STORED_LIMITS
from ydoc_store.rooms.budgets import Held, Shares
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX, Heavy, behind_gaps, cut_pieces, digest_tail
from ydoc_store.rooms.pace import Pace
from ydoc_store.storage.loader import read_after
from ydoc_store.storage.turns import Turns
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.split import split
from ydoc_store.yjs.walker import marker_update

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.room import Room
    from ydoc_store.settings import Settings
    from ydoc_store.storage.loader import StoredDocument
    from ydoc_store.storage.pool import Database

# Readers that bring a state vector have their answers prepared one by one: at most this many whole documents are
# held for that at once, however many come back in a storm.
PREPARED_AT_ONCE_MAX = 4
# Runs that are joined in the event loop for a reader: 1 to 2 µs each.
INLINE_RUNS_MAX = 2_000
# What a reader is told that gives way (YDOC_READER_BYTES_PER_S_MIN).
TOO_SLOW = "others wait for what this connection takes too slowly: come back"
# Differences that are remembered, each of a document of DIFF_INLINE_BYTES_MAX at most.
ANSWERS_MAX = 64
# A difference is made struct by struct: of typing, which is the worst case, this much takes some 10 ms.
DIFF_INLINE_BYTES_MAX = 32 * 1024


@dataclass(frozen=True, slots=True)
class Reader:
    """What a reader said that it has."""

    vector: dict[int, int]

    def knows_nothing_of(self, room: Room) -> bool:
        """Whether none of what it has is the document's: new, or new with a few edits of its own."""
        structs = room.knowledge.structs
        return not any(client in structs and client != room.marker for client in self.vector)


@dataclass(frozen=True, slots=True)
class FirstSyncLimits:
    """What first syncs may hold; the settings give the defaults and reasons."""

    piece_bytes_max: int
    at_once_max: int
    bytes_max: int
    bytes_per_s_min: int
    slow_member_s: float

    @classmethod
    def of(cls, settings: Settings) -> FirstSyncLimits:
        return cls(
            settings.sync_piece_bytes_max,
            settings.syncs_at_once_max,
            settings.process_sync_bytes_max,
            settings.reader_bytes_per_s_min,
            settings.slow_member_s,
        )

    def shares(self, size_max: int) -> Shares:
        """Whoever takes nothing is gone before those who wait for its share give up."""
        return Shares(size_max, 2 * self.slow_member_s, self.bytes_per_s_min)


class ColdPieces:
    """A document up to `seq`, cut for a first sync; kept alive by the readers that are taking it."""

    __slots__ = ("__weakref__", "held", "pieces", "seq")

    def __init__(self, seq: int, pieces: list[bytes], held: Held):
        self.seq = seq
        self.pieces = pieces
        self.held = held
        held.until_gone(self)


class FirstSync:
    """Answers Step1 for all rooms of a process. `spawn` holds the tasks that several readers share."""

    def __init__(
        self,
        database: Database,
        heavy: Heavy,
        limits: FirstSyncLimits,
        is_crowded: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ):
        self._database = database
        self._heavy = heavy
        self._piece_bytes_max = limits.piece_bytes_max
        self._slow_member_s = limits.slow_member_s
        self._is_crowded = is_crowded
        # Sockets that hold a piece, and what is prepared for them. Whoever holds what is prepared never waits for a
        # socket's turn, so that the two cannot wait for each other.
        self.sending = limits.shares(limits.at_once_max)
        self.prepared = limits.shares(limits.bytes_max)
        self._spawn = spawn
        self._cutting: dict[Room, asyncio.Task[ColdPieces]] = {}
        # The last difference of some rooms: up to which seq, for whom, and what.
        self._answers: weakref.WeakKeyDictionary[Room, tuple[int, dict[int, int], list[bytes]]] = (
            weakref.WeakKeyDictionary()
        )
        self.preparing = Turns(PREPARED_AT_ONCE_MAX)

    def at_once(self, member: Member, reader: Reader) -> bool:
        """Answer from what the room holds, if that is small; False when it takes a task (`paced`)."""
        room = member.room
        pieces = None if self._is_crowded() else self._pieces_at_once(room, reader)
        if pieces is None:
            return False
        for message in _messages(member, reader, pieces):
            member.send(message)
        member.is_live = True
        return True

    def _pieces_at_once(self, room: Room, reader: Reader) -> list[bytes] | None:
        if room.document_id is None:
            return []
        if room.gaps_known and room.knowledge.is_within(reader.vector):
            deletes = _all_deletes(room)
            return [deletes] if len(deletes) <= self._piece_bytes_max else None
        remembered = self._answers.get(room)
        if remembered is not None and remembered[:2] == (room.head, reader.vector):
            return remembered[2]
        parts = room.cache.parts()
        if parts is None and room.cache.loaded is not None and room.cache.loaded[0] == room.head:
            parts = room.cache.loaded[1]
        is_new = reader.knows_nothing_of(room)
        size_max = min(self._piece_bytes_max, INLINE_BYTES_MAX * 2 if is_new else DIFF_INLINE_BYTES_MAX)
        if parts is None or len(parts) > INLINE_RUNS_MAX or sum(map(len, parts)) > size_max:
            return None
        room.cache.drop_loaded()
        if len(parts) > 2:
            base = room.cache.base_parts
            joined = join(parts[len(base) :])
            room.cache.join(room.head, joined)
            parts = [*base, joined]
        pieces = cut_pieces(parts, None if is_new else reader.vector, self._piece_bytes_max)
        if not is_new:
            self._remember(room, reader, pieces)
        return pieces

    def _remember(self, room: Room, reader: Reader, pieces: list[bytes]) -> None:
        # After a restart everybody comes back with the same vector, and a difference takes milliseconds.
        self._answers[room] = (room.head, reader.vector, pieces)
        if len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]

    async def paced(self, member: Member, reader: Reader) -> None:
        """Answer at the pace of the socket, then catch up with what was committed meanwhile, then go live.

        Waits its turn where many do this. Returns early when the member is gone. Raises ServerFault where the log
        cannot be read or its turn does not come, DocumentDeleted.
        """
        room = member.room
        pace = self._pace_of(member)
        async with self.sending.hold(1, pace):
            if reader.knows_nothing_of(room):
                shared = await self._cold_pieces(room)
                seq = shared.seq
                with shared.held.read_by(pace):
                    is_sent = await _send(member, pace, _messages(member, reader, shared.pieces))
                del shared
            else:
                async with self.prepared.hold(room.size_bytes, pace) as held:
                    seq, pieces = await self._pieces(room, reader)
                    held.resize(sum(map(len, pieces)))
                    is_sent = await _send(member, pace, _messages(member, reader, pieces))
            if is_sent:
                await self._follow(member, pace, seq)

    async def follow(self, member: Member, seq: int) -> None:
        """Bring a member that has everything up to `seq` to the room's head at the pace of its socket, then go live.

        Returns early when the member is gone; waits and raises like `paced`.
        """
        pace = self._pace_of(member)
        async with self.sending.hold(1, pace):
            await self._follow(member, pace, seq)

    def _pace_of(self, member: Member) -> Pace:
        return Pace(self._slow_member_s, lambda: member.close(SlowMember(TOO_SLOW)))

    async def _follow(self, member: Member, pace: Pace, seq: int) -> None:
        room = member.room
        while seq < room.head and not member.closed:
            kept = room.cache.after(seq)
            async with self.prepared.hold(room.size_bytes if kept is None else sum(map(len, kept)), pace) as held:
                if kept is not None:
                    missed, seq = kept, room.head
                else:
                    async with self.preparing.turn():
                        stored = await read_after(self._database, room.document_id or 0, seq, room.marker)
                        missed, seq = await self._parts_of(stored, seq), stored.head
                        del stored
                    held.resize(sum(map(len, missed)))
                for update in missed:
                    pieces = await self._heavy.run(len(update), cut_pieces, [update], None, self._piece_bytes_max)
                    if not await _send(member, pace, map(member.dialect.update, pieces)):
                        return
        # No await between the last look at the head and this: nothing can be committed in between unseen.
        member.is_live = not member.closed

    async def _pieces(self, room: Room, reader: Reader) -> tuple[int, list[bytes]]:
        async with self.preparing.turn():
            if room.knowledge.is_within(reader.vector):
                if not room.gaps_known:
                    await self._look_behind_gaps(room)
                if room.knowledge.is_within(reader.vector):
                    # Whoever has every struct lacks deletes at most, and those the room knows by heart.
                    return room.head, split(_all_deletes(room), self._piece_bytes_max)
            seq, parts = await self.parts(room)
            size = sum(map(len, parts))
            return seq, await self._heavy.run(size, cut_pieces, parts, reader.vector, self._piece_bytes_max)

    async def _cold_pieces(self, room: Room) -> ColdPieces:
        shared = room.cold_pieces() if room.cold_pieces is not None else None
        if shared is not None:
            return shared
        cutting = self._cutting.get(room)
        if cutting is None:
            cutting = self._cutting[room] = self._spawn(self._cut(room))
            cutting.add_done_callback(lambda _task: self._cutting.pop(room, None))
        return await asyncio.shield(cutting)

    async def _cut(self, room: Room) -> ColdPieces:
        held = await self.prepared.take(room.size_bytes)
        try:
            seq, parts = await self.parts(room)
            pieces = await self._heavy.run(sum(map(len, parts)), cut_pieces, parts, None, self._piece_bytes_max)
        except BaseException:
            held.resize(0)
            raise
        held.resize(sum(map(len, pieces)))
        shared = ColdPieces(seq, pieces, held)
        room.cold_pieces = weakref.ref(shared)
        return shared

    async def _look_behind_gaps(self, room: Room) -> None:
        _, parts = await self.parts(room)
        if parts and not room.gaps_known:
            room.learn_gaps(await self._heavy.run(len(parts[0]), behind_gaps, parts[0]))

    async def parts(self, room: Room) -> tuple[int, list[bytes]]:
        """The whole document, as its snapshot or base, and everything after it joined; and up to which seq."""
        parts = room.cache.parts()
        if parts is not None:
            seq = room.head
            if len(parts) > 2:
                base = room.cache.base_parts
                joined = await self._heavy.run(sum(map(len, parts)), join, parts[len(base) :])
                room.cache.join(seq, joined)
                parts = [*base, joined]
            return seq, parts
        loaded = room.cache.drop_loaded()
        if loaded is not None:
            return loaded
        stored = await read_after(self._database, room.document_id or 0, 0, room.marker)
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


def _all_deletes(room: Room) -> bytes:
    return b"\0" + room.knowledge.encode_delete_set()


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


async def _send(member: Member, pace: Pace, messages: Iterable[bytes]) -> bool:
    """At the pace of the socket; False when the member is gone."""
    for message in messages:
        pace.sending(len(message), time.monotonic())
        writing = member.outlet.write_paced(member.outlet.encode(message))
        # A thousand readers wait here: the socket's own copy of the piece is enough.
        del message
        if not await writing:
            return False
        pace.sent(time.monotonic())
    return True


def _messages(member: Member, reader: Reader, pieces: list[bytes]) -> Iterator[bytes]:
    """Made one by one: pieces are shared between readers, messages are not."""
    dialect = member.dialect
    marker = member.room.marker
    if marker is not None and marker not in reader.vector:
        yield dialect.update(marker_update(marker))
    for piece in pieces[:-1]:
        yield dialect.update(piece)
    yield dialect.step2(pieces[-1] if pieces else EMPTY_UPDATE)
