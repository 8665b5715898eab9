"""What a shape's answers consist of: rows as JSON, the two words that are no rows, and their headers. Pure.

Every row is one lib0 frame in PostgreSQL's hexadecimal form of bytea, as ElectricSQL's provider decodes it. There are
inserts alone, and for presence, whose row of an editor changes, updates: the provider fails over a delete. Long rows
come in pieces, so that a document stands in memory once and not three times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from ydoc_store.http.shape_request import Table
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_uint, frame

HEX_PIECE_BYTES: Final = 128 * 1024

SCHEMAS: Final = {
    Table.UPDATES: orjson.dumps(
        {
            "seq": {"type": "int8", "not_null": True, "pk_index": 0},
            "part": {"type": "int4", "not_null": True, "pk_index": 1},
            "op": {"type": "bytea", "not_null": True},
        }
    ).decode(),
    Table.AWARENESS: orjson.dumps(
        {"client_id": {"type": "text", "not_null": True, "pk_index": 0}, "op": {"type": "bytea", "not_null": True}}
    ).decode(),
}
"""The columns as the client's parser wants them described. A document's rows are numbered by the seq up to which their
answer reaches and their place in it: the snapshot, and updates that were merged on their way, have no seq of their own.
"""

MUST_REFETCH: Final = orjson.dumps([{"headers": {"control": "must-refetch"}}])


def offset_of(count: int) -> str:
    """A position as the protocol writes it."""
    return f"{count}_0"


def up_to_date(count: int) -> bytes:
    """The word that ends what there is by now. The client goes on behind `count` where it came as an event."""
    return orjson.dumps({"headers": {"control": "up-to-date", "global_last_seen_lsn": str(count)}})


def update_row(seq: int, part: int, update: bytes) -> Iterator[bytes]:
    """One update, or the snapshot, as an inserted row in pieces."""
    key = orjson.dumps(f'"ydoc"."updates"/"{seq}"/"{part}"')
    yield b'{"key":%b,"value":{"seq":"%d","part":"%d","op":"\\\\x' % (key, seq, part)
    yield encode_uint(len(update)).hex().encode()
    view = memoryview(update)
    for at in range(0, len(view), HEX_PIECE_BYTES):
        yield view[at : at + HEX_PIECE_BYTES].hex().encode()
    yield b'"},"headers":{"operation":"insert"}}'


def awareness_row(entry: AwarenessEntry, *, is_new: bool) -> bytes:
    """What one editor shows now; one that is gone shows null."""
    return orjson.dumps(
        {
            "key": f'"ydoc"."awareness"/"{entry.client_id}"',
            "value": {
                "client_id": str(entry.client_id),
                "op": "\\x" + frame(encode_awareness_entries([entry])).hex(),
            },
            "headers": {"operation": "insert" if is_new else "update"},
        }
    )


def array(rows: Iterable[Iterable[bytes]], last: bytes | None) -> Iterator[bytes]:
    """A JSON array of rows in pieces, with `last` behind them where it is given."""
    opening = b"["
    for row in rows:
        yield opening
        yield from row
        opening = b","
    if last is not None:
        yield opening
        yield last
        yield b"]"
    else:
        yield b"[]" if opening == b"[" else b"]"
