"""How hints between nodes look. Pure: texts in, values out; whatever is malformed is no hint.

A log hint is written in SQL by the append itself, because only that statement knows the seqs:
`node;inline|id:count:head|id:count:head…`, `inline` being base64 of one document's frames or empty. A presence
hint is `node;kind;part/parts;message id;base64` of a JSON document, cut where it does not fit one payload.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from ydoc_store.yjs.awareness import AwarenessEntry
from ydoc_store.yjs.lib0 import Malformed, frames

# Room for the head of a presence hint beside this much base64 in NOTIFY's 7,999 bytes.
PART_BYTES_MAX = 7_800
PARTS_MAX = 64


@dataclass(frozen=True, slots=True)
class LogHint:
    """A document has moved on to `head`; `updates` are (head - count, head] where they came along."""

    document_id: int
    count: int
    head: int
    updates: list[bytes] | None


@dataclass(frozen=True, slots=True)
class PresenceHint:
    """What members of another node show in one document; `asks` wants to hear who is there."""

    tenant: str
    name: str
    entries: list[AwarenessEntry]
    asks: bool


def parse_log_hint(payload: str, own_node: str) -> list[LogHint]:
    """The hints of another node's commit; none when it is our own or makes no sense."""
    node, _, rest = payload.partition(";")
    if node == own_node:
        return []
    inline, *documents = rest.split("|")
    try:
        updates = list(frames(base64.b64decode(inline, validate=True))) if inline else None
        numbers = [[int(number) for number in document.split(":")] for document in documents]
        hints = [LogHint(document_id, count, head, None) for document_id, count, head in numbers]
    except (ValueError, binascii.Error, Malformed):
        return []
    if updates is not None and len(hints) == 1 and len(updates) == hints[0].count:
        return [LogHint(hints[0].document_id, hints[0].count, hints[0].head, updates)]
    return hints


def presence_payloads(node: str, message_id: int, hints: Sequence[PresenceHint]) -> Iterator[str]:
    """The texts that carry these hints, each short enough for one NOTIFY."""
    content = [
        [hint.tenant, hint.name, hint.asks, [[e.client_id, e.clock, e.state_json] for e in hint.entries]]
        for hint in hints
    ]
    text = base64.b64encode(orjson.dumps(content)).decode()
    parts = [text[at : at + PART_BYTES_MAX] for at in range(0, len(text), PART_BYTES_MAX)]
    for number, part in enumerate(parts, 1):
        yield f"{node};{number}/{len(parts)};{message_id};{part}"


class PresenceReader:
    """Puts the parts together again. Parts of a message that never becomes whole are forgotten."""

    def __init__(self, own_node: str, messages_max: int = 256):
        self._own_node = own_node
        self._messages_max = messages_max
        self._parts: dict[tuple[str, str], dict[int, str]] = {}

    def read(self, payload: str) -> tuple[str, list[PresenceHint]]:
        """The node that spoke, and its hints once the last part is here."""
        node, place, message_id, part = [*payload.split(";", 3), "", "", ""][:4]
        number_text, _, total_text = place.partition("/")
        if node == self._own_node or not (number_text.isdigit() and total_text.isdigit()):
            return node, []
        number, total = int(number_text), int(total_text)
        if not 1 <= number <= total <= PARTS_MAX:
            return node, []
        parts = self._parts.setdefault((node, message_id), {})
        parts[number] = part
        if len(parts) < total:
            for key in list(itertools.islice(self._parts, max(0, len(self._parts) - self._messages_max))):
                del self._parts[key]
            return node, []
        del self._parts[node, message_id]
        return node, _read_content("".join(parts[index] for index in sorted(parts)))


def _read_content(text: str) -> list[PresenceHint]:
    try:
        return [
            PresenceHint(tenant, name, [AwarenessEntry(*entry) for entry in entries], asks)
            for tenant, name, asks, entries in orjson.loads(base64.b64decode(text, validate=True))
        ]
    except (ValueError, TypeError, binascii.Error):
        return []
