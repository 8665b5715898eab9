"""History segments: the format on disk, and what damaged bytes are told as. Replay is tested with retention."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg
import pytest

from tests.statements import prepare_all
from ydoc_store.errors import CorruptDocument
from ydoc_store.storage import segments
from ydoc_store.storage.segments import HistoryRow, deflate, inflate, pack_row, unpack_rows, unpack_updates
from ydoc_store.yjs.lib0 import join_frames

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ROWS = [
    HistoryRow(2, 2, None, datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC), join_frames([b"one", b"two"])),
    HistoryRow(3, 1, "", datetime(1999, 12, 31, tzinfo=UTC), join_frames([b""])),
    HistoryRow(4, 1, "änn", datetime(2100, 1, 1, tzinfo=UTC), join_frames([b"x" * 300])),
]
PACKED = b"".join(map(pack_row, ROWS))


async def test_every_statement_is_one_that_postgres_accepts(connection: Connection) -> None:
    assert await prepare_all(connection, segments) == [
        "DROP_HISTORY",
        "FIND_EXPIRED",
        "INSERT_SEGMENT",
        "READ_BASE",
        "READ_LOG",
        "READ_SEGMENTS",
    ]


def test_rows_come_back_as_they_were_whatever_their_actor_and_time() -> None:
    assert list(unpack_rows(inflate(deflate(PACKED)))) == ROWS


def test_the_first_row_has_the_documented_bytes() -> None:
    assert pack_row(ROWS[0]).hex() == ("0000000000000002000000020002eef3fa791240ffffffff00000008036f6e650374776f")


def test_the_updates_of_all_rows_come_in_order_with_their_count_and_end() -> None:
    assert unpack_updates(PACKED, 0) == ([b"one", b"two", b"", b"x" * 300], 3, 4)


@pytest.mark.parametrize(
    ("packed", "after_seq", "reason"),
    [
        (PACKED, 1, "a hole: row 2 begins at 0, not at 1"),
        (PACKED[:-1], 0, "reaches past its segment"),
        (PACKED[:10], 0, "damaged"),
        (pack_row(HistoryRow(2, 2, None, ROWS[0].accepted_at, join_frames([b"one"]))), 0, "holds 1 updates and says 2"),
        (pack_row(HistoryRow(1, 1, None, ROWS[0].accepted_at, b"\x05ab")), 0, "does not hold whole frames"),
    ],
)
def test_rows_that_do_not_hold_together_are_refused(packed: bytes, after_seq: int, reason: str) -> None:
    with pytest.raises(CorruptDocument, match=reason):
        unpack_updates(packed, after_seq)


@pytest.mark.parametrize(
    "stored",
    [b"", b"\x02" + zlib.compress(PACKED), deflate(PACKED)[:-1], deflate(PACKED) + b"\x00", b"\x01garbage"],
)
def test_stored_bytes_of_another_format_or_damaged_are_refused(stored: bytes) -> None:
    with pytest.raises(CorruptDocument):
        inflate(stored)
