"""Updates that are too large to be walked in the event loop: walked elsewhere, looked through in turns.

Walking takes up to 0.2 µs a byte; every other document has its turn meanwhile (I13). What the room does with an
update that was walked is the room's; who waits for the outcome is the caller's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ydoc_store.errors import ServerFull
from ydoc_store.yjs.walker import UpdateLimits, Walked, walk

if TYPE_CHECKING:
    from ydoc_store.rooms.member import Member
    from ydoc_store.rooms.registry import Rooms
    from ydoc_store.storage.guards import Guard
    from ydoc_store.yjs.ranges import Knowledge
    from ydoc_store.yjs.walked import Range

# Ranges of a large update that are looked up before others have their turn: some 5 ms.
RANGES_A_TURN = 20_000


async def submit_large(
    rooms: Rooms, member: Member, update: bytes, *, answers: bool = False, guard: Guard | None = None
) -> None:
    """As `Room.submit`, of an update of any size. What the same member sends behind must be held until this returns.

    Raises as that does, ServerFull where too much is being walked already, StorageBusy where the worker fails.
    """
    incoming = rooms.incoming
    limits = member.room.limits.update
    incoming.walking_bytes += len(update)
    try:
        if incoming.is_full:
            raise ServerFull("this server is busy: try again later")
        walked = await rooms.heavy.run(len(update), walk, update, limits)
        news = await _news_in_turns(member.room.knowledge, walked, limits)
        # Asked behind the last await: whoever was fenced meanwhile sent this behind what was refused (I4).
        if not member.closed:
            member.room.submit_walked(member, update, walked, news=news, answers=answers, guard=guard)
    finally:
        incoming.walking_bytes -= len(update)


async def _news_in_turns(knowledge: Knowledge, walked: Walked, limits: UpdateLimits) -> Walked:
    """What of a large update is new to the document. A delete set of a million ranges, which a reconnect of its
    client repeats, takes half a second to look through; other documents have their turns meanwhile.

    What a room knows only grows, so what was known in an earlier turn still is. Too much news is not looked
    through to its end.
    """
    if len(walked.structs) + len(walked.deletes) <= RANGES_A_TURN:
        return walked
    structs: list[Range] = []
    deletes: list[Range] = []
    blanks: list[Range] = []
    for part in walked.parts(RANGES_A_TURN):
        found = knowledge.news(part)
        structs += found.structs
        deletes += found.deletes
        blanks += found.blanks
        if len(structs) > limits.structs_max or len(deletes) > limits.delete_ranges_max:
            break
        await asyncio.sleep(0)
    return knowledge.news(Walked(structs, deletes, walked.struct_count, 0, 0, blanks))
