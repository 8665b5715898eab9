"""Drops what has left the history window: segments, the bases under them, silent producers, rows of what was done and
of the change feed; and the rows of streams that are deleted or have expired, for which there is no window.

A pass goes over all of it, one bounded piece with each sweep, and the next begins a while after its end. Several
compactors may do the same pass: a document is dropped under the compactors' own lock, so that no base goes while a
compaction decides that it needs none. The database's clock decides, and a minimum count.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import astuple, dataclass
from operator import add
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
PIECE_S: Final = 5.0
"""A busy day leaves millions of rows, and sweeps must not wait for all of them to go."""
DOCUMENTS_MAX: Final = 100
"""Looked at in one bite, with a transaction for each that has something to drop: well within a second."""
ROWS_MAX: Final = 5_000
"""Deleted by one transaction: some 50 ms."""
COMPACTIONS_KEPT: Final = 1_000
COMPACTIONS_DAYS_MIN: Final = 7
"""What was done can be read for a week even where no history is kept."""
PRODUCERS_DAYS_MIN: Final = 7
"""A producer may come back with an unanswered update for a week even where no history is kept; later it is taken for
a new one, whose updates begin at 0: a later one of the old is refused as a gap, its first would be stored again. What
is left of a dead stream stays so long too."""
TOMBSTONES_MAX: Final = 1_000


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

    def and_also(self, other: Retained) -> Retained:
        """What both dropped together."""
        return Retained(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Bite:
    """One step of one part of a pass; `is_last` tells that the part is done."""

    dropped: Retained
    is_last: bool


class Retention:
    """Where the pass of this process stands. `history_days` 0 drops all history there is."""

    def __init__(self, database: Database, *, history_days: int, bases_min: int):
        self._database = database
        self._history_days = history_days
        self._bases_min = bases_min
        self._producers_days = max(history_days, PRODUCERS_DAYS_MIN)
        self._next_pass_s = 0.0
        # What this pass has still to do, and how far each part of it has come.
        self._left: list[Callable[[], Awaitable[Bite]]] = []
        self._after_id = 0
        self._after_producer = (0, "")
        self._after_stream_id = 0
        self._tenants: list[str] = []

    async def drop_some(self) -> Retained:
        """The next piece of the pass, or nothing until the next pass is due.

        A document that a compactor is at is left for the next pass. Raises StorageUnavailable or StorageBusy; the next
        piece goes on where this one came to.
        """
        dropped = Retained()
        if not self._left:
            if time.monotonic() < self._next_pass_s:
                return dropped
            self._begin()
        ends_at_s = time.monotonic() + PIECE_S
        while self._left:
            bite = Bite(Retained(), is_last=True)
            part = self._left[0]
            with _passed_over(part.__name__.strip("_")):
                bite = await part()
            dropped = dropped.and_also(bite.dropped)
            if bite.is_last:
                self._left.pop(0)
            if time.monotonic() >= ends_at_s:
                break
        if not self._left:
            self._next_pass_s = time.monotonic() + PASS_INTERVAL_S
        return dropped

    def _begin(self) -> None:
        self._after_id = self._after_stream_id = 0
        self._after_producer = (0, "")
        self._left = [
            self._drop_history,
            self._drop_compactions,
            self._drop_producers,
            self._purge_streams,
            self._drop_tombstones,
            self._list_tenants,
            self._drop_commits,
        ]

    async def _drop_history(self) -> Bite:
        async with self._database.acquire() as connection:
            page = await find_expired(connection, self._after_id, DOCUMENTS_MAX, self._history_days)
        dropped = Retained()
        for document_id in page.expired:
            with _passed_over("history", document_id=document_id):
                async with self._database.transaction() as connection:
                    if not await try_lock(connection, document_id):
                        continue
                    gone = await drop_history(
                        connection, document_id, history_days=self._history_days, bases_min=self._bases_min
                    )
                dropped = dropped.and_also(Retained(1, gone.segments, gone.bases, gone.bytes))
        self._after_id = page.next_after_id or 0
        return Bite(dropped, is_last=page.next_after_id is None)

    async def _drop_compactions(self) -> Bite:
        async with self._database.transaction() as connection:
            dropped = await drop_compactions(
                connection,
                older_than_days=max(self._history_days, COMPACTIONS_DAYS_MIN),
                keep_newest=COMPACTIONS_KEPT,
                limit=ROWS_MAX,
            )
        return Bite(Retained(compactions=dropped), is_last=dropped < ROWS_MAX)

    async def _drop_producers(self) -> Bite:
        async with self._database.transaction() as connection:
            page = await drop_producers(
                connection,
                self._after_producer,
                silent_days=self._producers_days,
                limit=ROWS_MAX,
            )
        self._after_producer = page.next_after or (0, "")
        return Bite(Retained(producers=page.producers), is_last=page.next_after is None)

    async def _purge_streams(self) -> Bite:
        async with self._database.acquire() as connection:
            dead = await find_dead_streams(connection, self._after_stream_id, 1)
        if not dead:
            return Bite(Retained(), is_last=True)
        (document_id,) = dead
        purged = None
        with _passed_over("stream", document_id=document_id):
            async with self._database.transaction() as connection:
                if await expire_stream(connection, document_id):
                    purged = await purge_stream_rows(connection, document_id, ROWS_MAX)
        if purged == ROWS_MAX:
            # Found again while it has rows.
            return Bite(Retained(), is_last=False)
        self._after_stream_id = document_id
        return Bite(Retained(streams=int(purged is not None)), is_last=False)

    async def _drop_tombstones(self) -> Bite:
        # Roles that were granted before this release may not do it: told, and no other part is held up.
        async with self._database.transaction() as connection:
            dropped = await drop_tombstones(connection, kept_days=self._producers_days, limit=TOMBSTONES_MAX)
        return Bite(Retained(tombstones=dropped), is_last=dropped < TOMBSTONES_MAX)

    async def _list_tenants(self) -> Bite:
        async with self._database.acquire() as connection:
            self._tenants = await list_tenants_noted(connection)
        return Bite(Retained(), is_last=True)

    async def _drop_commits(self) -> Bite:
        if not self._tenants:
            return Bite(Retained(), is_last=True)
        tenant = self._tenants[-1]
        dropped = 0
        with _passed_over("change feed", tenant=tenant):
            async with self._database.transaction() as connection:
                dropped = await drop_outlived(connection, tenant, history_days=self._history_days, limit=ROWS_MAX)
        if dropped < ROWS_MAX:
            self._tenants.pop()
        return Bite(Retained(commits=dropped), is_last=not self._tenants)


@contextlib.contextmanager
def _passed_over(what: str, **about: object) -> Iterator[None]:
    """What Postgres refuses of one thing (a damaged page) is told, and must not keep the others for ever."""
    try:
        yield
    except (StorageUnavailable, StorageBusy):
        raise
    except ServerFault as error:
        log.warning("not dropped", what=what, reason=str(error), **about)
