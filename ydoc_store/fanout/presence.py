"""How presence travels between nodes: collected for a moment, cut to fit NOTIFY, put together again. Pure.

A payload is `node;part/parts;message id;base64` of a part of a JSON document. A lost part loses its message, which
costs nothing lasting: stock clients renew every 15 s. Whatever is malformed is no hint.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from ydoc_store.yjs.awareness import AwarenessEntry

# Room for the head of a payload beside this much base64 in NOTIFY's 7,999 bytes.
PART_BYTES_MAX = 7_800
PARTS_MAX = 256
# Messages are kept to a few parts, so that a lost one loses few states.
MESSAGE_BYTES = 32 * 1024
# Incomplete messages that are kept for parts that may still come.
MESSAGES_MAX = 32
DOCUMENTS_WAITING_MAX = 10_000
# What waits while Postgres does not answer; client ids that come and go would make it grow for as long.
BYTES_WAITING_MAX = 16 * 1024 * 1024
# What an entry takes beside its state.
ENTRY_OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class PresenceHint:
    """What members of another node show in one document; `asks` wants to hear who is there."""

    tenant: str
    name: str
    entries: list[AwarenessEntry]
    asks: bool
    # Stateless words of its writers, for everyone in the document.
    words: tuple[str, ...] = ()


class PresenceOutbox:
    """What the other nodes should hear soon: of each client only the latest, of at most so many documents."""

    def __init__(self, documents_max: int = DOCUMENTS_WAITING_MAX):
        self._documents_max = documents_max
        # At most so many: what is replaced still counts.
        self._waiting_bytes = 0
        self._waiting: dict[tuple[str, str], dict[int, AwarenessEntry]] = {}
        self._asking: set[tuple[str, str]] = set()
        self._words: dict[tuple[str, str], list[str]] = {}

    def add(self, hint: PresenceHint) -> bool:
        """False where too much waits already: it is dropped, and renewed by the clients themselves."""
        size = sum(ENTRY_OVERHEAD_BYTES + len(entry.state_json or "") for entry in hint.entries)
        size += sum(ENTRY_OVERHEAD_BYTES + len(words) for words in hint.words)
        if self._waiting_bytes + size > BYTES_WAITING_MAX:
            return False
        self._waiting_bytes += size
        key = (hint.tenant, hint.name)
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= self._documents_max:
                return False
            waiting = self._waiting[key] = {}
        waiting.update((entry.client_id, entry) for entry in hint.entries)
        if hint.asks:
            self._asking.add(key)
        if hint.words:
            self._words.setdefault(key, []).extend(hint.words)
        return True

    def take(self) -> list[PresenceHint]:
        """Everything that waits; nothing waits afterwards."""
        waiting, self._waiting = self._waiting, {}
        asking, self._asking = self._asking, set()
        words, self._words = self._words, {}
        self._waiting_bytes = 0
        return [
            PresenceHint(*key, list(entries.values()), key in asking, tuple(words.get(key, ())))
            for key, entries in waiting.items()
        ]


def presence_payloads(node: str, numbers: Iterator[int], hints: list[PresenceHint]) -> Iterator[str]:
    """The texts that carry these hints, each short enough for one NOTIFY. A state too large for any is left out."""
    for message in _messages(hints):
        text = base64.b64encode(orjson.dumps(message)).decode()
        parts = [text[at : at + PART_BYTES_MAX] for at in range(0, len(text), PART_BYTES_MAX)]
        if len(parts) <= PARTS_MAX:
            number = next(numbers)
            for place, part in enumerate(parts, 1):
                yield f"{node};{place}/{len(parts)};{number};{part}"


def _messages(hints: list[PresenceHint]) -> Iterator[list[Any]]:
    """JSON documents of about MESSAGE_BYTES, each a list of [tenant, name, asks, [[id, clock, state], …], words…]."""
    message: list[Any] = []
    size = 0
    for hint in hints:
        content: list[Any] = []
        message.append([hint.tenant, hint.name, hint.asks, content, *hint.words])
        size += len(hint.tenant) + len(hint.name) + 20 + sum(map(len, hint.words))
        for entry in hint.entries:
            entry_bytes = len(entry.state_json or "") + 30
            if size + entry_bytes > MESSAGE_BYTES:
                yield message
                content = []
                message, size = [[hint.tenant, hint.name, False, content]], 0
            content.append([entry.client_id, entry.clock, entry.state_json])
            size += entry_bytes
    if message:
        yield message


class PresenceReader:
    """Puts the parts together again. Parts of a message that never becomes whole are forgotten."""

    def __init__(self, own_node: str, messages_max: int = MESSAGES_MAX):
        self._own_node = own_node
        self._messages_max = messages_max
        self._parts: dict[tuple[str, str], dict[int, str]] = {}

    def read(self, payload: str) -> tuple[str, list[PresenceHint]]:
        """The node that spoke, and its hints once the last part is here."""
        node, place, message_id, part = [*payload.split(";", 3), "", "", ""][:4]
        number_text, _, total_text = place.partition("/")
        if node == self._own_node or not (number_text.isdecimal() and total_text.isdecimal()):
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
            PresenceHint(
                _text(tenant),
                _text(name),
                [_entry(*entry) for entry in entries],
                asks is True,
                tuple(_text(word) for word in words),
            )
            for tenant, name, asks, entries, *words in orjson.loads(base64.b64decode(text, validate=True))
        ]
    except (ValueError, TypeError, binascii.Error):
        return []


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _entry(client_id: object, clock: object, state_json: object) -> AwarenessEntry:
    if not (isinstance(client_id, int) and isinstance(clock, int) and isinstance(state_json, str | None)):
        raise TypeError("not an awareness entry")
    return AwarenessEntry(client_id, clock, state_json)
