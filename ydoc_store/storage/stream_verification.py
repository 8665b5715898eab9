"""Does what is stored of a stream hold together? The reading side of `verify --all`, beside that of documents.

Checks that the rows run from 1 to the head without a gap (I3), that head and counters belong to them (I6), and that
every append can be read as what the stream is of (I14). All of it is seen at one moment, a page at a time, and
everything wrong is told. Changes nothing, and is no use of the stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from ydoc_store.storage.pool import mapping_errors
from ydoc_store.storage.streams import READ_STREAM_AFTER, about_life, media_type_of
from ydoc_store.storage.verification import Finding
from ydoc_store.yjs.lib0 import Malformed, frames

if TYPE_CHECKING:
    import asyncpg

    from ydoc_store.storage.pool import Connection, Database

STREAMS_A_READ: Final = 1_000
ROWS_A_READ: Final = 2_000
BYTES_A_READ: Final = 1024 * 1024

LIST_STREAM_IDS = about_life("""
SELECT d.id, d.tenant, d.name
FROM ydoc.streams AS s
JOIN ydoc.documents AS d ON d.id = s.document_id
WHERE s.document_id > $1 AND <alive>
ORDER BY s.document_id
LIMIT $2
""")
READ_COUNTERS = about_life("""
SELECT d.marker, d.head, d.accepted_rows, d.accepted_bytes, s.content_type
FROM ydoc.documents AS d
JOIN ydoc.streams AS s ON s.document_id = d.id
WHERE d.id = $1 AND <alive>
""")


@dataclass(slots=True)
class VerifiedStream:
    """What was looked at, and what is wrong with it: nothing, where `findings` is empty."""

    document_id: int
    head: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, promise: str, text: str) -> None:
        self.findings.append(Finding(promise, text))


async def every_stream(database: Database) -> AsyncIterator[tuple[int, str, str]]:
    """Id, tenant and name of all that are alive. Raises StorageUnavailable or StorageBusy."""
    after_id = 0
    while True:
        async with database.acquire() as connection:
            with mapping_errors("listing streams"):
                page = await connection.fetch(LIST_STREAM_IDS, after_id, STREAMS_A_READ)
        for stream_id, tenant, name in page:
            yield stream_id, tenant, name
        if len(page) < STREAMS_A_READ:
            return
        after_id = page[-1][0]


async def verify_stream(database: Database, stream_id: int) -> VerifiedStream | None:
    """Everything that is wrong with one stream; None where it is gone. Raises StorageUnavailable or StorageBusy."""
    verified = VerifiedStream(stream_id)
    async with database.acquire() as connection:
        with mapping_errors("verifying"):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                head = await connection.fetchrow(READ_COUNTERS, stream_id)
                if head is None:
                    return None
                verified.head = head["head"]
                at = await _check_rows(connection, verified, head)
    if at != verified.head:
        verified.wrong("I6", f"the log ends at {at} and the head is {verified.head}")
    for what in ("rows", "bytes"):
        found, told = getattr(verified, what), head[f"accepted_{what}"]
        if found != told:
            verified.wrong("I6", f"it has {found} {what} and the counters say {told}")
    return verified


async def _check_rows(connection: Connection, verified: VerifiedStream, head: asyncpg.Record) -> int:
    """Up to which seq they go."""
    is_json = media_type_of(head["content_type"]) == "application/json"
    at = 0
    while True:
        page = await connection.fetchrow(
            READ_STREAM_AFTER, verified.document_id, head["marker"], at, ROWS_A_READ, BYTES_A_READ
        )
        if page is None or not page["seqs"]:
            return at
        for seq, count, row_frames in zip(page["seqs"], page["counts"], page["frames"], strict=True):
            if seq - count != at:
                verified.wrong("I3", f"row {seq} begins at {seq - count} and not at {at}")
            at = seq
            verified.rows += 1
            _check_row(verified, seq, count, row_frames, is_json=is_json)


def _check_row(verified: VerifiedStream, seq: int, count: int, row_frames: bytes, *, is_json: bool) -> None:
    try:
        updates = list(frames(row_frames))
    except Malformed as error:
        verified.wrong("I14", f"row {seq} does not hold whole frames: {error}")
        return
    if len(updates) != count:
        verified.wrong("I3", f"row {seq} holds {len(updates)} appends and says {count}")
    verified.bytes += sum(map(len, updates))
    for number, update in enumerate(updates, seq - len(updates) + 1):
        if is_json:
            try:
                orjson.loads(b"[" + update + b"]")
            except orjson.JSONDecodeError as error:
                verified.wrong("I14", f"append {number} is no JSON: {error}")
