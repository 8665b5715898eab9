"""What compaction writes for each byte accepted, on a large document being typed in.

By hand: `python -m tests.bench.write_amplification [DATABASE_URL]`. A document of 20 MB (prose, compressible as
prose is) is typed in, one keystroke a row, and after every few hundred rows the policy decides whether it is
compacted. Counted is what is stored: new snapshots (as compressed on disk), history segments and the rows that
say what was done, against the log's rows with their tuple headers and index entries. Beside it stands the WAL of
both, which also carries the deletes and full pages. To reach: at most 10. The row of the change feed, one a commit
whatever the commit holds, is told apart: for keystrokes that are committed one by one, and 50 at a time.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

import asyncpg
from pycrdt import Doc, Text

from compactor.compaction import Compacted, Terms, compact
from compactor.worker import Worker
from tests.appending import Owner
from tests.log_rows import append, create_document
from tests.postgres import running_cluster
from ydoc_store.storage.appender import Appender
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.lib0 import encode_uint

DOCUMENT_BYTES = 20 * 2**20
COMPACTIONS = 5
ROWS_A_LOOK = 500
FEED_COMMITS = 200
WRITER = 77

# The tuple as stored (header and alignment included), its line pointer, and its entry in the primary key.
STORED_ROWS = """
SELECT sum(pg_column_size(u.*) + 4 + 8 + 16 + 4)::bigint FROM ydoc.updates AS u WHERE u.document_id = $1 AND u.seq > $2
"""
STORED_CHANGES = """
SELECT sum(pg_column_size(c.*) + 4 + 8 + 16 + pg_column_size(c.tenant) + 4)::bigint FROM ydoc.commits AS c
"""
STORED_SNAPSHOT = """
SELECT pg_column_size(s.bytes)::bigint + octet_length(s.state_vector) + octet_length(s.delete_set)
FROM ydoc.snapshots AS s WHERE s.document_id = $1 AND s.superseded_at IS NULL
"""
STORED_RUN = "SELECT pg_column_size(c.*)::bigint FROM ydoc.compactions AS c ORDER BY c.id DESC LIMIT 1"
WAL_AT = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


@dataclass
class Written:
    log_bytes: int = 0
    log_wal_bytes: int = 0
    snapshot_bytes: int = 0
    segment_bytes: int = 0
    run_bytes: int = 0
    compaction_wal_bytes: int = 0
    rows: int = 0
    runs: int = 0

    @property
    def compaction_bytes(self) -> int:
        return self.snapshot_bytes + self.segment_bytes + self.run_bytes


def prose(size_bytes: int) -> bytes:
    """One update that brings so much text: words of a few hundred, drawn as unevenly as a language draws them."""
    dice = random.Random(1)
    words = ["".join(dice.choices("etaoinshrdlucmfwypvbgkjqxz", k=dice.randint(2, 9))) for _ in range(400)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    doc: Doc[Text] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    while len(text) < size_bytes:
        text.insert(0, " ".join(dice.choices(words, weights, k=200_000)) + "\n")
    return doc.get_update()


def keystrokes(first_clock: int, count: int) -> list[bytes]:
    """What an editor sends for `count` letters typed one behind the other, the first at the document's start."""
    updates = []
    for clock in range(first_clock, first_clock + count):
        letter = bytes((97 + clock % 26,))
        behind = b"\x84" + encode_uint(WRITER) + encode_uint(max(clock - 1, 0))
        place = behind if clock else b"\x04\x01\x04text"
        updates.append(b"\x01\x01" + encode_uint(WRITER) + encode_uint(clock) + place + b"\x01" + letter + b"\x00")
    return updates


async def measure(url: str) -> Written:
    database = await Database.open(url)
    connection = await asyncpg.connect(url)
    written = Written()
    try:
        async with Worker() as worker:
            document_id = await create_document(connection, f"typed {time.time_ns()}")
            await append(connection, document_id, [prose(DOCUMENT_BYTES)])
            first = await compact(database, worker, document_id, Terms(), forced=True)
            assert isinstance(first, Compacted)
            print(f"the snapshot begins with {first.run.snapshot_bytes_after:,} bytes", flush=True)
            clock = 0
            while written.runs < COMPACTIONS:
                seq: int = await connection.fetchval("SELECT head FROM ydoc.documents WHERE id = $1", document_id)
                wal = await connection.fetchval(WAL_AT)
                await append(connection, document_id, keystrokes(clock, ROWS_A_LOOK))
                written.log_wal_bytes += int(await connection.fetchval(WAL_AT) - wal)
                clock += ROWS_A_LOOK
                written.rows += ROWS_A_LOOK
                written.log_bytes += await connection.fetchval(STORED_ROWS, document_id, seq)
                await compact_if_due(database, connection, worker, document_id, written)
    finally:
        await connection.close()
        await database.close()
    return written


async def compact_if_due(
    database: Database,
    connection: asyncpg.Connection[asyncpg.Record],
    worker: Worker,
    document_id: int,
    written: Written,
) -> None:
    wal = await connection.fetchval(WAL_AT)
    outcome = await compact(database, worker, document_id, Terms())
    if not isinstance(outcome, Compacted):
        return
    written.runs += 1
    written.compaction_wal_bytes += int(await connection.fetchval(WAL_AT) - wal)
    written.snapshot_bytes += await connection.fetchval(STORED_SNAPSHOT, document_id)
    written.segment_bytes += outcome.run.history_bytes
    written.run_bytes += await connection.fetchval(STORED_RUN)
    print(f"  {outcome.run.why}: {outcome.run.rows_merged:,} rows in {outcome.run.duration_ms:,.0f} ms", flush=True)


async def measure_feed(url: str, updates_a_commit: int) -> float:
    """Bytes of the feed that are stored for each byte of the log, at so many keystrokes a commit."""
    database = await Database.open(url)
    appender = Appender(database)
    await appender.start()
    try:
        async with database.acquire() as connection:
            await connection.execute("TRUNCATE ydoc.commits")
            owner = Owner(appender, f"typed {time.time_ns()}")
            for number in range(FEED_COMMITS):
                owner.put(*keystrokes(number * updates_a_commit, updates_a_commit))
                await owner.heard_of((number + 1) * updates_a_commit)
            log_bytes = await connection.fetchval(STORED_ROWS, owner.document_id, 0)
            return float(await connection.fetchval(STORED_CHANGES) / log_bytes)
    finally:
        await appender.drain(5)
        await database.close()


def main() -> None:
    with ExitStack() as stack:
        if len(sys.argv) > 1:
            url = sys.argv[1]
        else:
            cluster = stack.enter_context(running_cluster(durable=True))
            cluster.create_template()
            url = cluster.url(cluster.create_database())
        one_by_one, many = (asyncio.run(measure_feed(url, updates)) for updates in (1, 50))
        print(f"the change feed: {one_by_one:.1f} of the log's bytes, {many:.2f} at 50 keystrokes a commit", flush=True)
        written = asyncio.run(measure(url))
    ratio = written.compaction_bytes / written.log_bytes
    print(
        f"{written.rows:,} rows in {written.runs} compactions; the log {written.log_bytes:,} bytes, compaction "
        f"{written.compaction_bytes:,} ({written.snapshot_bytes:,} snapshots, {written.segment_bytes:,} history)\n"
        f"write amplification {ratio:.1f} as stored, "
        f"{written.compaction_wal_bytes / written.log_wal_bytes:.1f} in WAL"
    )
    sys.exit(0 if ratio <= 10 else 1)


if __name__ == "__main__":
    main()
