"""Drops what has left the history window: segments, the bases under them, silent producers, rows of what was done and
of the change feed; and the rows of streams that are deleted or have expired, for which there is no window.

One pass goes over all documents that have history, a bounded piece of it with each sweep, and begins anew after a
while. Several compactors may do the same pass: a document is dropped under the compactors' own lock, so that no
base goes while a compaction decides that it needs none. The database's clock decides, and a minimum count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ydoc_store.errors import ServerFault, StorageBusy, StorageUnavailable
from ydoc_store.logs import logger
from ydoc_store.storage.commits import drop_outlived, list_tenants_noted
from ydoc_store.storage.compactions import drop_compactions, try_lock
from ydoc_store.storage.dead_streams import drop_tombstones, expire_stream, find_dead_streams, purge_stream_rows
from ydoc_store.storage.pool import Database
from ydoc_store.storage.producers import drop_producers
from ydoc_store.storage.segments import drop_history, find_expired

log = logger(__name__)

PASS_INTERVAL_S: Final = 6 * 3_600.0
DOCUMENTS_MAX: Final = 1_000
COMPACTIONS_MAX: Final = 5_000
COMMITS_MAX: Final = 5_000
COMMIT_BITES_A_PIECE: Final = 20
"""A busy day leaves millions of rows, and sweeps must not wait for all of them to go."""
COMPACTIONS_KEPT: Final = 1_000
COMPACTIONS_DAYS_MIN: Final = 7
"""What was done can be read for a week even where no history is kept."""
STREAMS_MAX: Final = 1_000
STREAM_ROWS_MAX: Final = 5_000
TOMBSTONES_MAX: Final = 1_000
PRODUCERS_MAX: Final = 5_000
PRODUCERS_DAYS_MIN: Final = 7
"""A producer may come back with an unanswered update for a week even where no history is kept; later it is taken for
a new one, whose updates begin at 0: a later one of the old is refused as a gap, its first would be stored again. What
is left of a dead stream stays so long too."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What one piece of a pass dropped."""

    documents: int = 0
    segments: int = 0
    bases: int = 0
    bytes: int = 0
    compactions: int = 0
    producers: int = 0
    streams: int = 0
    commits: int = 0
    tombstones: int = 0

    @property
    def has_dropped(self) -> bool:
        """Anything that an operator reads of: silent producers go by the dozen in any pass."""
        return bool(self.segments or self.compactions or self.commits or self.streams or self.tombstones)


class Retention:
    """Where the pass of this process stands. `history_days` 0 drops all history there is."""

    def __init__(self, database: Database, *, history_days: int, bases_min: int):
        self._database = database
        self._history_days = history_days
        self._bases_min = bases_min
        self._producers_days = max(history_days, PRODUCERS_DAYS_MIN)
        self._after_id = 0
        self._next_pass_s = 0.0
        # Whose rows of the change feed this pass has still to look at.
        self._tenants: list[str] = []

    async def drop_some(self) -> Retained:
        """The next piece of the pass, or nothing until the next pass is due.

        A document that a compactor is at is left for the next pass. Raises StorageUnavailable or StorageBusy.
        """
        if time.monotonic() < self._next_pass_s:
            return Retained(commits=await self._drop_some_commits())
        async with self._database.acquire() as connection:
            page = await find_expired(connection, self._after_id, DOCUMENTS_MAX, self._history_days)
        documents = segments = bases = dropped_bytes = 0
        for document_id in page.expired:
            try:
                async with self._database.transaction() as connection:
                    if not await try_lock(connection, document_id):
                        continue
                    dropped = await drop_history(
                        connection, document_id, history_days=self._history_days, bases_min=self._bases_min
                    )
            except (StorageUnavailable, StorageBusy):
                raise
            except ServerFault as error:
                # What Postgres refuses for one document (a damaged page) must not keep the others' history for ever.
                log.warning("history not dropped", document_id=document_id, reason=str(error))
                continue
            documents += 1
            segments += dropped.segments
            bases += dropped.bases
            dropped_bytes += dropped.bytes
        compactions = producers = streams = commits = tombstones = 0
        self._after_id = page.next_after_id or 0
        if page.next_after_id is None:
            compactions = await self._drop_compactions()
            producers = await self._drop_producers()
            streams = await self._purge_streams()
            tombstones = await self._drop_tombstones()
            async with self._database.acquire() as connection:
                self._tenants = await list_tenants_noted(connection)
            commits = await self._drop_some_commits()
            self._next_pass_s = time.monotonic() + PASS_INTERVAL_S
        return Retained(documents, segments, bases, dropped_bytes, compactions, producers, streams, commits, tombstones)

    async def _drop_compactions(self) -> int:
        total = 0
        while True:
            async with self._database.transaction() as connection:
                dropped = await drop_compactions(
                    connection,
                    older_than_days=max(self._history_days, COMPACTIONS_DAYS_MIN),
                    keep_newest=COMPACTIONS_KEPT,
                    limit=COMPACTIONS_MAX,
                )
            total += dropped
            if dropped < COMPACTIONS_MAX:
                return total

    async def _drop_producers(self) -> int:
        total = 0
        after: tuple[int, str] | None = (0, "")
        while after is not None:
            async with self._database.transaction() as connection:
                page = await drop_producers(
                    connection,
                    after,
                    silent_days=self._producers_days,
                    limit=PRODUCERS_MAX,
                )
            total += page.producers
            after = page.next_after
        return total

    async def _purge_streams(self) -> int:
        total = after_id = 0
        while True:
            async with self._database.acquire() as connection:
                dead = await find_dead_streams(connection, after_id, STREAMS_MAX)
            for document_id in dead:
                try:
                    total += await self._purge_stream(document_id)
                except (StorageUnavailable, StorageBusy):
                    raise
                except ServerFault as error:
                    log.warning("stream not purged", document_id=document_id, reason=str(error))
            if len(dead) < STREAMS_MAX:
                return total
            after_id = dead[-1]

    async def _purge_stream(self, document_id: int) -> bool:
        async with self._database.transaction() as connection:
            if not await expire_stream(connection, document_id):
                return False
        while True:
            async with self._database.transaction() as connection:
                if await purge_stream_rows(connection, document_id, STREAM_ROWS_MAX) < STREAM_ROWS_MAX:
                    return True

    async def _drop_tombstones(self) -> int:
        total = 0
        while True:
            try:
                async with self._database.transaction() as connection:
                    dropped = await drop_tombstones(connection, kept_days=self._producers_days, limit=TOMBSTONES_MAX)
            except (StorageUnavailable, StorageBusy):
                raise
            except ServerFault as error:
                # Roles that were granted before this release may not do it: that must not hold up the rest of a pass.
                log.warning("dead streams not forgotten", reason=str(error), advice="run `grant-sql` again")
                return total
            total += dropped
            if dropped < TOMBSTONES_MAX:
                return total

    async def _drop_some_commits(self) -> int:
        total = 0
        for _ in range(COMMIT_BITES_A_PIECE):
            if not self._tenants:
                break
            async with self._database.transaction() as connection:
                dropped = await drop_outlived(
                    connection, self._tenants[-1], history_days=self._history_days, limit=COMMITS_MAX
                )
            total += dropped
            if dropped < COMMITS_MAX:
                self._tenants.pop()
        return total
