"""Opening a document that may have to be begun first: its application says what an empty one holds.

However many clients arrive at once, on however many nodes, the database lets one of them begin it. Who may open it
at all was decided before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ydoc_store.errors import AuthUnavailable, ClientFault
from ydoc_store.rooms.admission import judge_counts, judge_reserved
from ydoc_store.storage.beginnings import create_with_content
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.rooms.room import Room

log = structlog.get_logger(__name__)


async def open_granted(rooms: Rooms, granted: Granted, name: str) -> Room:
    """As `Rooms.open`; where nobody has written to the document yet it begins with `initial_update`, exactly once.

    Raises AuthUnavailable, told in the log, for an update of the application's that no editor might send.
    """
    tenant, update = granted.tenant, granted.initial_update
    room = await rooms.open(tenant, name)
    while update is not None and room.document_id is None and not rooms.settings.read_only:
        await _judge(rooms, update)
        await create_with_content(
            rooms.database, tenant, name, update, granted.actor, keep_deleted=rooms.settings.keep_deleted
        )
        # It is there now, whoever was first.
        await rooms.watch.read_missing(room)
        room = await rooms.open(tenant, name)
    return room


async def _judge(rooms: Rooms, update: bytes) -> None:
    limits = rooms.limits.update
    try:
        walked = await rooms.heavy.run(len(update), walk, update, limits)
        judge_counts(walked, Knowledge(), limits)
        judge_reserved(walked, None)
    except ClientFault as error:
        log.error("the application's initial_update is refused", reason=str(error))
        raise AuthUnavailable("this document cannot be begun now") from error
