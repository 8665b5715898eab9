"""Presence under names of its own, beside what everybody in a document sees: `?awareness=moderators`.

Such a stream is what a room's presence is, for those who ask for it by its name: never stored, told to other nodes by
hints, bounded in number and bytes. It begins when somebody makes it or shows something, and is forgotten an hour after
the last did. A document's new epoch has none of the old one's. Whether the document exists, and who may, is the
callers'. Pure: the time is a parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ydoc_store.errors import ServerFull
from ydoc_store.fanout.presence import PresenceHint
from ydoc_store.rooms.presence import Node, Presence
from ydoc_store.yjs.awareness import AwarenessEntry

LIFE_S: Final = 3_600.0
"""The protocol's own hour."""
STREAMS_MAX: Final = 4_000
"""In this process; each holds at most what one room's presence does, and all are looked through now and then."""
STREAMS_OF_A_TENANT_MAX: Final = 1_000
"""A quarter of them: one tenant that makes up names leaves the others theirs."""
STREAMS_OF_A_DOCUMENT_MAX: Final = 16
"""A handful of roles; a client that makes up names would fill its tenant's share otherwise."""
# In a hint, which names a document, between that and the rest: no document's name holds it.
_SEPARATOR: Final = "\0"


@dataclass(frozen=True, slots=True)
class StreamName:
    """Which stream, of which epoch of a document."""

    tenant: str
    document: str
    epoch: int
    name: str


@dataclass(slots=True)
class NamedStream:
    """One stream. `wakers` are called when it changes or ends."""

    presence: Presence
    used_at_s: float
    wakers: dict[Callable[[], None], None] = field(default_factory=dict)
    is_over: bool = False

    def wake(self) -> None:
        for waker in tuple(self.wakers):
            waker()


class NamedPresences:
    """Those of all documents. `new_presence` makes one with a room's limits; `tell` takes what other nodes hear."""

    def __init__(self, new_presence: Callable[[], Presence], timeout_s: float):
        self._new_presence = new_presence
        self._timeout_s = timeout_s
        self._streams: dict[StreamName, NamedStream] = {}
        self._of_document: dict[tuple[str, str], set[StreamName]] = {}
        self._of_tenant: Counter[str] = Counter()
        self.tell: Callable[[PresenceHint], None] = lambda _hint: None

    def find(self, name: StreamName) -> NamedStream | None:
        """The stream, None where nobody has made it as far as this node has heard."""
        return self._streams.get(name)

    def create(self, name: StreamName, now_s: float) -> NamedStream:
        """The stream, made where it is not there; its hour begins anew. Raises ServerFull."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._make(name, now_s)
            # Others may know who is in it; those who do not make it too.
            self._tell(name, [], asks=True)
        stream.used_at_s = now_s
        return stream

    def _make(self, name: StreamName, now_s: float) -> NamedStream:
        document = name.tenant, name.document
        for other in tuple(self._of_document.get(document, ())):
            # Those of histories that are over would count, and nobody can ask for them any more.
            if other.epoch < name.epoch:
                self.delete(other)
        if len(self._of_document.get(document, ())) >= STREAMS_OF_A_DOCUMENT_MAX:
            raise ServerFull(f"this document has as many awareness streams as it may, {STREAMS_OF_A_DOCUMENT_MAX}")
        if self._of_tenant[name.tenant] >= STREAMS_OF_A_TENANT_MAX:
            raise ServerFull(f"this tenant has as many awareness streams as it may, {STREAMS_OF_A_TENANT_MAX:,}")
        if len(self._streams) >= STREAMS_MAX:
            raise ServerFull("this server has as many awareness streams as it may")
        stream = self._streams[name] = NamedStream(self._new_presence(), now_s)
        self._of_document.setdefault(document, set()).add(name)
        self._of_tenant[name.tenant] += 1
        return stream

    def changed(self, name: StreamName, entries: Sequence[AwarenessEntry]) -> None:
        """Somebody here shows something new: who reads it is woken, and the other nodes hear."""
        self._tell(name, entries, asks=False)
        stream = self._streams.get(name)
        if stream is not None:
            stream.wake()

    def delete(self, name: StreamName) -> bool:
        """Whether there was such a stream. Who reads it is woken."""
        stream = self._streams.pop(name, None)
        if stream is None:
            return False
        document = name.tenant, name.document
        self._of_document[document].remove(name)
        if not self._of_document[document]:
            del self._of_document[document]
        self._of_tenant[name.tenant] -= 1
        if not self._of_tenant[name.tenant]:
            del self._of_tenant[name.tenant]
        stream.is_over = True
        stream.wake()
        return True

    def delete_all_of(self, tenant: str, document: str) -> None:
        """The document is gone, and its streams with it."""
        for name in tuple(self._of_document.get((tenant, document), ())):
            self.delete(name)

    def heard(self, node: str, hint: PresenceHint, now_s: float) -> None:
        """Another node tells of such a stream, or asks who is in it."""
        name = _name_of(hint)
        if name is None:
            return
        stream = self._streams.get(name)
        if stream is None:
            try:
                stream = self._make(name, now_s)
            except ServerFull:
                return
        if hint.asks and (mine := stream.presence.current_here()):
            self._tell(name, mine, asks=False)
        stream.used_at_s = now_s
        if stream.presence.hear(Node(node), hint.entries, now_s, is_node=True).fresh:
            stream.wake()

    def expire(self, now_s: float) -> None:
        """Forget who was not renewed in time, and what nobody has used for an hour."""
        for name, stream in list(self._streams.items()):
            if stream.presence.expire(now_s, self._timeout_s):
                stream.wake()
            if now_s - stream.used_at_s >= LIFE_S:
                self.delete(name)

    def _tell(self, name: StreamName, entries: Sequence[AwarenessEntry], *, asks: bool) -> None:
        addressed = _SEPARATOR.join((name.document, str(name.epoch), name.name))
        self.tell(PresenceHint(name.tenant, addressed, list(entries), asks=asks))


def is_named(hint: PresenceHint) -> bool:
    """Whether a hint is about such a stream, and not about a room."""
    return _SEPARATOR in hint.name


def _name_of(hint: PresenceHint) -> StreamName | None:
    document, _, rest = hint.name.partition(_SEPARATOR)
    epoch, _, name = rest.partition(_SEPARATOR)
    return StreamName(hint.tenant, document, int(epoch), name) if epoch.isdecimal() and name else None
