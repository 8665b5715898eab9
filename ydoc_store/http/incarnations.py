"""Which database an answer was read from, as ETags name it.

A restored backup gives ids and seqs again, for other content: what somebody keeps of before is not the same. What
follows where a name is another one is decided by whoever compares it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ydoc_store.http.here import Here
    from ydoc_store.storage.incarnation import Incarnation


def database_of(incarnation: Incarnation) -> str:
    """Twelve characters that differ where two databases do."""
    return hashlib.sha256(repr(incarnation).encode()).hexdigest()[:12]


async def database_here(here: Here) -> str:
    """Of the database that the rooms are of. Raises StorageUnavailable or StorageBusy where nobody has asked yet."""
    return database_of(await here.rooms.watch.which_database())
