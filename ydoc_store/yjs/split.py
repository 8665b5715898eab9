"""Cutting one large update into smaller ones, for a first sync that is paced by the socket.

The pieces come in the order in which a document can apply them, so that a receiver integrates each at once: Yjs
merges what has to wait into one pending update again with every piece, in time quadratic in their number. How fast
pieces are sent is the room's concern.
"""

from __future__ import annotations

from collections.abc import Iterator

from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.structs import Ranges, Struct, StructUpdate, Units, piece, read_update, write_deletes, write_struct
from ydoc_store.yjs.walker import ANY, SKIP, STRING

_RANGE_BYTES = 8  # two clocks of four bytes: a delete range is seldom longer
_HEADER_BYTES = 24  # a block's count, client and clock, or an item's two origins


def split(update: bytes, piece_bytes_max: int) -> list[bytes]:
    """Updates that equal `update` when all are applied, best in this order.

    No piece is much longer than `piece_bytes_max`, unless one value is; strings and arrays of values are cut,
    never inside a surrogate pair. Structs that wait for a missing predecessor come behind the applicable ones, the
    delete set last. An update that is small enough is the only piece, the very same bytes. Linear; reads every
    struct (about 2.5 µs each) and holds the interpreter, so large updates are split outside of the event loop.
    Raises InvalidUpdate.
    """
    if len(update) <= piece_bytes_max:
        return [update]
    decoded = read_update(update)
    splitter = _Splitter(piece_bytes_max)
    for client, struct in _in_order(decoded):
        splitter.add(client, struct)
    splitter.close()
    pieces = splitter.pieces + _split_deletes(decoded.deletes, piece_bytes_max)
    return pieces if len(pieces) > 1 else [update]


def _in_order(update: StructUpdate) -> Iterator[tuple[int, Struct]]:
    """All structs but Skips: first what can be applied, each behind what it needs, then the rest."""
    replay = Replay(update)
    yield from replay.order
    for client, block in update.structs.items():
        applied = replay.applied(client)
        for struct in block:
            if struct.clock >= applied and struct.kind != SKIP:
                yield client, struct


class _Splitter:
    """Fills one piece after the other with structs."""

    def __init__(self, piece_bytes_max: int) -> None:
        self.pieces: list[bytes] = []
        self._bytes_max = piece_bytes_max
        self._bytes = 0
        # For each client of the piece: the first clock, the end so far, how many structs, and their bytes.
        self._blocks: dict[int, tuple[int, int, int, list[bytes]]] = {}

    def add(self, client: int, struct: Struct) -> None:
        if len(struct.payload) <= self._bytes_max or struct.kind not in (STRING, ANY):
            self._add_whole(client, struct)
            return
        units = Units(struct)
        start = struct.clock
        for offset in units.cuts(self._bytes_max - 2 * _HEADER_BYTES):
            self._add_whole(client, piece(client, struct, units, start, struct.clock + offset))
            start = struct.clock + offset
        self._add_whole(client, piece(client, struct, units, start, struct.end))

    def close(self) -> None:
        """Ends the piece that is being filled."""
        if not self._blocks:
            return
        parts = [encode_uint(len(self._blocks))]
        for client, (clock, _, count, structs) in self._blocks.items():
            parts += (encode_uint(count), encode_uint(client), encode_uint(clock), *structs)
        parts.append(b"\0")
        self.pieces.append(b"".join(parts))
        self._blocks = {}
        self._bytes = 0

    def _add_whole(self, client: int, struct: Struct) -> None:
        encoded: list[bytes] = []
        write_struct(struct, encoded)
        size = sum(map(len, encoded))
        block = self._blocks.get(client)
        if block is not None and struct.clock != block[1]:
            self.close()  # a gap: the piece goes on behind it in a block of its own
            block = None
        elif self._bytes and self._bytes + size > self._bytes_max:
            self.close()
            block = None
        if block is None:
            self._blocks[client] = (struct.clock, struct.end, 1, encoded)
            self._bytes += size + _HEADER_BYTES
        else:
            block[3].extend(encoded)
            self._blocks[client] = (block[0], struct.end, block[2] + 1, block[3])
            self._bytes += size


def _split_deletes(deletes: dict[int, Ranges], piece_bytes_max: int) -> list[bytes]:
    """The delete set in updates without structs."""
    pieces: list[bytes] = []
    room = per_piece = max(1, piece_bytes_max // _RANGE_BYTES)
    filling: dict[int, Ranges] = {}
    for client, ranges in deletes.items():
        at = 0
        while at < len(ranges):
            filling[client] = ranges[at : at + room]
            at += room
            room -= len(filling[client])
            if room <= 0:
                pieces.append(_deletes_only(filling))
                filling = {}
                room = per_piece
    if filling:
        pieces.append(_deletes_only(filling))
    return pieces


def _deletes_only(deletes: dict[int, Ranges]) -> bytes:
    parts = [b"\0"]
    write_deletes(deletes, parts)
    return b"".join(parts)
