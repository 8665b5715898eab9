"""What every part of the HTTP side works with: one running node, handed in by the composition.

Values only. A part asks for it at each request (`Present`), because the port may be listened on before the node runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ydoc_store.auth.authorizer import Authorizer
    from ydoc_store.auth.origins import Origins
    from ydoc_store.metrics import Metrics
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.settings import Settings
    from ydoc_store.storage.pool import Database


@dataclass(frozen=True, slots=True)
class Here:
    """A running node. `stopping` is set when it takes nothing new any more: whoever waits for news stops waiting."""

    authorizer: Authorizer
    database: Database
    rooms: Rooms
    origins: Origins
    settings: Settings
    metrics: Metrics
    stopping: asyncio.Event


Present = Callable[[], Here]
"""The running node. Raises StorageUnavailable while it starts."""
