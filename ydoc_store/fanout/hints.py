"""How a log hint looks: "these documents have moved on". Pure: texts in, values out; whatever is malformed is no hint.

It is written in SQL by the append itself, because only that statement knows the seqs:
`node;inline|id:count:head:marker|…`, `inline` being base64 of one document's frames or empty. `;|id:0:0` is said by
whoever deletes or replaces a document: look at it, it is not what it was.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace

from ydoc_store.yjs.lib0 import Malformed, frames


@dataclass(frozen=True, slots=True)
class LogHint:
    """A document has moved on to `head`; `updates` are (head - count, head] where they came along.

    With a `count` of 0 it has not moved on but changed as a whole: only the database tells how. `marker` is the
    epoch's: in a restored database the id may be another document's, whose bytes are nobody's business here.
    """

    document_id: int
    count: int
    head: int
    updates: list[bytes] | None
    marker: int | None = None


def parse_log_hint(payload: str, own_node: str) -> list[LogHint]:
    """The hints of another node's commit; none when it is our own or makes no sense."""
    node, _, rest = payload.partition(";")
    if node == own_node:
        return []
    inline, *documents = rest.split("|")
    try:
        updates = list(frames(base64.b64decode(inline, validate=True))) if inline else None
        numbers = [[int(number) for number in document.split(":")] for document in documents]
        hints = [
            LogHint(document_id, count, head, None, marker[0] if marker else None)
            for document_id, count, head, *marker in numbers
        ]
    except (ValueError, binascii.Error, Malformed):
        return []
    if any(not (1 <= hint.count <= hint.head or hint.count == hint.head == 0) for hint in hints):
        return []
    if updates is not None and len(hints) == 1 and len(updates) == hints[0].count:
        return [replace(hints[0], updates=updates)]
    return hints
