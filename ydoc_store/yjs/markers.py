"""Epoch markers in an update: planted where content goes to readers, taken out where it leaves its epoch.

A client that sends all it has sends the marker along, and so it may stand in the log and in snapshots. There it
does no harm, because it is the epoch's own; in another epoch it would have everybody refused who loads it.
"""

from __future__ import annotations

from ydoc_store.yjs.lib0 import Reader, encode_uint
from ydoc_store.yjs.structs import read_update, write_update
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk


def without_markers(update: bytes) -> bytes:
    """`update` without structs and deletes under reserved client ids; the very same bytes where it holds none.

    All other content stays byte for byte. Linear; raises InvalidUpdate.
    """
    if not walk(update, UNLIMITED).reserved_clients():
        return update
    decoded = read_update(update)
    return write_update(
        {client: block for client, block in decoded.structs.items() if client < RESERVED_CLIENT_ID_MIN},
        {client: ranges for client, ranges in decoded.deletes.items() if client < RESERVED_CLIENT_ID_MIN},
    )


def with_marker(update: bytes, marker: int) -> bytes:
    """A stored update with its epoch's marker in it, for a reader who may come back as a writer.

    Costs a copy: reserved ids are the greatest, and blocks stand in falling order of their ids, so it goes first.
    """
    reader = Reader(update)
    blocks = reader.uint()
    at = reader.at
    if blocks:
        reader.uint()
        if reader.uint() == marker:
            return update
    head = encode_uint(blocks + 1) + b"\x01" + encode_uint(marker) + b"\x00\x00\x01"
    return b"".join((head, memoryview(update)[at:]))
