"""Deleted documents go for good once they have been deleted for long enough: content and history, not the tombstone.

One pass now and then, a bounded piece of it with each sweep, as the retention of history. The database's clock decides.
A document that is undeleted meanwhile, or deleted anew, is left alone: the tombstone that was found is the one meant.
"""

from __future__ import annotations

import time
from typing import Final

from ydoc_store.errors import NoSuchDocument, ServerFault, StorageBusy, StorageUnavailable, WrongState
from ydoc_store.logs import logger
from ydoc_store.storage.epochs import purge_document
from ydoc_store.storage.pool import Database
from ydoc_store.storage.tombstones import find_old_tombstones

log = logger(__name__)

PASS_INTERVAL_S: Final = 6 * 3_600.0
DOCUMENTS_MAX: Final = 100
"""Purged with one sweep: each is a transaction of its own, some milliseconds for a small document."""


class Farewell:
    """Where the pass of this process stands. `kept_days` 0 purges what is deleted with the next pass."""

    def __init__(self, database: Database, *, kept_days: int):
        self._database = database
        self._kept_days = kept_days
        self._after_id = 0
        self._next_pass_s = 0.0

    async def purge_some(self) -> int:
        """How many documents the next piece of the pass purged; 0 until the next pass is due.

        One that a compactor is at, or that somebody has undeleted, waits. Raises StorageUnavailable, StorageBusy.
        """
        if time.monotonic() < self._next_pass_s:
            return 0
        found = await find_old_tombstones(
            self._database, self._after_id, limit=DOCUMENTS_MAX, kept_days=self._kept_days
        )
        purged = 0
        for one in found:
            self._after_id = one.document_id
            try:
                await purge_document(
                    self._database, one.tenant, one.name, replaced_only=False, deleted_at=one.deleted_at
                )
            except StorageUnavailable:
                raise
            except (WrongState, NoSuchDocument, StorageBusy):
                continue
            except ServerFault as error:
                # What Postgres refuses for one document must not keep the others for ever.
                log.warning("document not purged", document_id=one.document_id, reason=str(error))
                continue
            purged += 1
            log.info("document purged", document_id=one.document_id, deleted_at=one.deleted_at.isoformat())
        if len(found) < DOCUMENTS_MAX:
            self._after_id = 0
            self._next_pass_s = time.monotonic() + PASS_INTERVAL_S
        return purged
