"""What a shape's answers consist of: rows as JSON, and the words between them that are no rows. Pure.

Every row is one lib0 frame in PostgreSQL's hexadecimal form of bytea, as ElectricSQL's provider decodes it. There are
inserts, and for presence, where the row of an editor changes, updates; never a delete, over which the provider fails.
Long rows come in pieces, so that a document stands in memory once and not three times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from ydoc_store.http.shape_request import Table
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_uint, frame

_HEX_PIECE_BYTES: Final = 32 * 1024

_BYTEA: Final = {"type": "bytea", "not_null": True}
SCHEMAS: Final = {
    Table.UPDATES: orjson.dumps(
        {
            "seq": {"type": "int8", "not_null": True, "pk_index": 0},
            "part": {"type": "int4", "not_null": True, "pk_index": 1},
            "op": _BYTEA,
        }
    ).decode(),
    Table.AWARENESS: orjson.dumps(
        {"client_id": {"type": "text", "not_null": True, "pk_index": 0}, "op": _BYTEA}
    ).decode(),
}
"""The columns, described as the client's parser wants them. Rows of updates are numbered by the seq up to which their
answer reaches and their place in it: a snapshot, and updates that were joined on their way, have no seq of their own.
"""

MUST_REFETCH: Final = orjson.dumps([{"headers": {"control": "must-refetch"}}])


@dataclass(frozen=True, slots=True)
class Row:
    """JSON text with a payload in hexadecimal between its head and its tail."""

    head: bytes
    payload: bytes = b""
    tail: bytes = b""

    @property
    def size(self) -> int:
        return len(self.head) + 2 * len(self.payload) + len(self.tail)

    def pieces(self) -> Iterator[bytes]:
        yield self.head
        for at in range(0, len(self.payload), _HEX_PIECE_BYTES):
            yield self.payload[at : at + _HEX_PIECE_BYTES].hex().encode()
        yield self.tail


def update_row(seq: int, part: int, update: bytes) -> Row:
    """One update, or the snapshot: an insert."""
    key = orjson.dumps(f'"ydoc"."updates"/"{seq}"/"{part}"')
    head = b'{"key":%b,"value":{"seq":"%d","part":"%d","op":"\\\\x' % (key, seq, part)
    return Row(head + encode_uint(len(update)).hex().encode(), update, b'"},"headers":{"operation":"insert"}}')


def awareness_row(entry: AwarenessEntry, *, is_new: bool) -> Row:
    """What one editor shows now; one that is gone shows null."""
    payload = frame(encode_awareness_entries([entry]))
    value = {"client_id": str(entry.client_id), "op": "\\x" + payload.hex()}
    headers = {"operation": "insert" if is_new else "update"}
    key = f'"ydoc"."awareness"/"{entry.client_id}"'
    return Row(orjson.dumps({"key": key, "value": value, "headers": headers}))


def up_to_date(position: int) -> bytes:
    """The word behind all that there is by now. Where it comes as an event, the client goes on from the position."""
    return orjson.dumps({"headers": {"control": "up-to-date", "global_last_seen_lsn": str(position)}})


def array_size(rows: Sequence[Row], last: bytes) -> int:
    """How long `array` is."""
    return len(b"[]") + sum(row.size + len(b",") for row in rows) + len(last)


def array(rows: Sequence[Row], last: bytes) -> Iterator[bytes]:
    """A JSON array of the rows, and `last` behind them, in pieces."""
    yield b"["
    for row in rows:
        yield from row.pieces()
        yield b","
    yield last
    yield b"]"


def events(rows: Sequence[Row], last: bytes) -> Iterator[bytes]:
    """The same as server-sent events, one a row. JSON holds no line end, so nothing can end an event early."""
    for row in rows:
        yield b"data: "
        yield from row.pieces()
        yield b"\n\n"
    yield b"data: %b\n\n" % last
