"""What an update holds beyond what a document knows already: for imports that are repeated.

A store that keeps whole documents hands over all of one each time. What is new in it is cut out here, structs and
deletes alike, so that the log gains that alone.
"""

from __future__ import annotations

from ydoc_store.yjs.intervals import IntervalSet
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.structs import Ranges, read_update, write_update
from ydoc_store.yjs.union import diff_exactly
from ydoc_store.yjs.walker import SKIP


def news(update: bytes, known: Knowledge) -> bytes:
    """The part of `update` that is not in `known`, content byte for byte; EMPTY_UPDATE where there is none.

    What stands behind a gap is handed over again with its client's other news; it changes nothing. Linear; raises
    InvalidUpdate.
    """
    found = read_update(diff_exactly(update, known.state_vector()))
    structs = {
        client: line
        for client, line in found.structs.items()
        if known.lacks((client, struct.clock, struct.end) for struct in line if struct.kind != SKIP)
    }
    deletes = {client: _without(ranges, known.deletes.get(client)) for client, ranges in found.deletes.items()}
    deletes = {client: ranges for client, ranges in deletes.items() if ranges}
    return write_update(structs, deletes) if structs or deletes else EMPTY_UPDATE


def _without(ranges: Ranges, known: IntervalSet | None) -> Ranges:
    """The parts of `ranges` that `known` does not hold. Both are in order, so one pass over the two suffices."""
    if known is None:
        return ranges
    left: Ranges = []
    held = list(known)
    at = 0
    for start, end in ranges:
        while at < len(held) and held[at][1] <= start:
            at += 1
        look = at
        while look < len(held) and held[look][0] < end:
            if start < held[look][0]:
                left.append((start, held[look][0]))
            start = max(start, held[look][1])
            look += 1
        if start < end:
            left.append((start, end))
    return left
