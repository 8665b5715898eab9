"""A model of what Postgres does for the relay: tables, row locks, transactions, notifications. No SQL is parsed.

What another session sees changes at a commit and at no other moment; a row that somebody is changing is waited for,
as READ COMMITTED does it, and judged as it is once it is free. The model is as faithful as `test_contract.py` shows:
every statement there runs on it and on a real Postgres. How a client reaches it, and what goes wrong on the way,
is in `connections`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import asyncpg

from compactor.fold import fold_document
from ydoc_store.yjs.lib0 import frames

HINT_CHANNEL = "ydoc_log"
NOTIFY_BYTES_MAX = 7_999


@dataclass(frozen=True, slots=True)
class Row:
    seq: int
    count: int
    actor: str | None
    frames: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    through_seq: int
    bytes: bytes
    state_vector: bytes
    delete_set: bytes
    merged_rows: int
    merged_bytes: int


@dataclass(eq=False, slots=True)
class Document:
    """One row of `documents` with its log. `history` is every update ever accepted, which no table keeps so plainly."""

    id: int
    tenant: str
    name: str
    epoch: int
    marker: int
    head: int = 0
    accepted_rows: int = 0
    accepted_bytes: int = 0
    deleted: bool = False
    replaced: bool = False
    rows: list[Row] = field(default_factory=list)
    snapshot: Snapshot | None = None
    history: list[bytes] = field(default_factory=list)


class Witness(Protocol):
    """Is told of every commit at the moment at which others can see it."""

    def created(self, document: Document) -> None: ...
    def committed(self, document: Document, updates: Sequence[bytes]) -> None: ...
    def went_back(self, document: Document) -> None: ...


class Session:
    """The server's side of one connection: its transaction, its locks, its settings."""

    def __init__(self, lock_timeout_s: float) -> None:
        self.lock_timeout_s = lock_timeout_s
        # None for one that outlives failovers: it is no connection.
        self.timeline: int | None = None
        self.in_transaction = False
        self.is_aborted = False
        self.effects: list[Callable[[], None]] = []
        self.created: dict[tuple[str, str], Document] = {}
        self.said: list[tuple[str, str]] = []
        self.held: dict[object, None] = {}
        self.listening: dict[str, Callable[[str, str], None]] = {}
        self.has_listener_lock = False


class Postgres:
    """The tables and who holds what. Statements run in a session; `commit` makes their effects visible."""

    def __init__(self, witness: Witness | None = None) -> None:
        self.documents: dict[int, Document] = {}
        self.sessions: dict[Session, None] = {}
        # Rises with a failover: sessions of before are of a server that is no more.
        self.timeline = 1
        self._witness = witness
        self._current: dict[tuple[str, str], Document] = {}
        self._holders: dict[object, Session] = {}
        self._waiting: dict[object, list[asyncio.Future[None]]] = {}
        self._last_id = 0

    def current(self, tenant: str, name: str) -> Document | None:
        """The row of this name that is not replaced, tombstone or not."""
        return self._current.get((tenant, name))

    # Locks and transactions

    async def lock(self, session: Session, key: object) -> None:
        """Waits while another session holds it, at most `lock_timeout`."""
        deadline_s = asyncio.get_running_loop().time() + session.lock_timeout_s
        while self._holders.get(key, session) is not session:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(waiter)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await waiter
            except TimeoutError:
                raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
        self._holders[key] = session
        session.held[key] = None

    def is_free(self, session: Session, key: object) -> bool:
        return self._holders.get(key, session) is session

    def commit(self, session: Session) -> None:
        for effect in session.effects:
            effect()
        said = list(dict.fromkeys(session.said))
        self._end(session)
        for channel, payload in said:
            for listener in list(self.sessions):
                if channel in listener.listening:
                    listener.listening[channel](channel, payload)

    def roll_back(self, session: Session) -> None:
        self._end(session)

    def _end(self, session: Session) -> None:
        session.in_transaction = session.is_aborted = False
        session.effects, session.said, session.created = [], [], {}
        held, session.held = session.held, {}
        for key in held:
            del self._holders[key]
            for waiter in self._waiting.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(None)

    # Statements of an append

    async def create_documents(
        self, session: Session, tenants: Sequence[str], names: Sequence[str], markers: Sequence[int]
    ) -> None:
        for tenant, name, marker in sorted(zip(tenants, names, markers, strict=True)):
            key = (tenant, name)
            if key not in self._current:
                await self.lock(session, key)
            if key not in self._current and key not in session.created:
                self._last_id += 1
                document = Document(self._last_id, tenant, name, 1, marker)
                session.created[key] = document
                session.effects.append(lambda document=document: self._insert(document))

    def _insert(self, document: Document) -> None:
        self.documents[document.id] = document
        self._current[document.tenant, document.name] = document
        if self._witness is not None:
            self._witness.created(document)

    def find_documents(
        self, session: Session, tenants: Sequence[str], names: Sequence[str]
    ) -> list[tuple[int, Document]]:
        found = []
        for number, key in enumerate(zip(tenants, names, strict=True), 1):
            document = session.created.get(key) or self._current.get(key)
            if document is not None:
                found.append((number, document))
        return found

    async def append(
        self,
        session: Session,
        ids: Sequence[int],
        counts: Sequence[int],
        row_counts: Sequence[int],
        sizes: Sequence[int],
        ceilings: Sequence[int],
        hints: Sequence[int],
        row_ids: Sequence[int],
        followed_by: Sequence[int],
        row_updates: Sequence[int],
        actors: Sequence[str | None],
        row_frames: Sequence[bytes],
        texts: Sequence[str],
        markers: Sequence[int | None],
    ) -> list[tuple[int, int | None, bool, bool, bool]]:
        """(id, head or None, deleted, replaced, another) of each document that exists; heads locked in id order."""
        own = {document.id: document for document in session.created.values()}
        answer: list[tuple[int, int | None, bool, bool, bool]] = []
        told: dict[int, str] = {}
        for place, document_id in enumerate(ids):
            document = own.get(document_id) or self.documents.get(document_id)
            if document is None:
                continue
            await self.lock(session, document_id)
            full = document.accepted_bytes + sizes[place] > ceilings[place]
            another = markers[place] not in (None, document.marker)
            head = None
            if not (document.deleted or document.replaced or another or full):
                head = document.head + counts[place]
                columns = zip(row_ids, followed_by, row_updates, actors, row_frames, strict=True)
                rows = [
                    Row(head - behind, n, actor, framed) for i, behind, n, actor, framed in columns if i == document_id
                ]
                assert len(rows) == row_counts[place]
                session.effects.append(self._advance(document, head, rows, sizes[place]))
                if hints[place]:
                    heads = f"|{document_id}:{counts[place]}:{head}:{document.marker}"
                    told[hints[place]] = told.get(hints[place], "") + heads
            answer.append((document_id, head, document.deleted, document.replaced, another))
        for number, heads in told.items():
            self.notify(session, HINT_CHANNEL, texts[number - 1] + heads)
        return answer

    def _advance(self, document: Document, head: int, rows: list[Row], size: int) -> Callable[[], None]:
        def effect() -> None:
            document.head = head
            document.accepted_rows += len(rows)
            document.accepted_bytes += size
            document.rows += rows
            updates = [update for row in rows for update in frames(row.frames)]
            document.history += updates
            if self._witness is not None:
                self._witness.committed(document, updates)

        return effect

    def notify(self, session: Session, channel: str, payload: str) -> None:
        if len(payload.encode()) > NOTIFY_BYTES_MAX:
            raise asyncpg.InvalidParameterValueError("payload string too long")
        session.said.append((channel, payload))

    # What others do to documents: an operator, a compactor

    def delete(self, document: Document) -> None:
        """Sets the tombstone. Raises where somebody is appending: try again."""
        assert document.id not in self._holders
        document.deleted = True
        self._tell_changed(document)

    def recreate(self, document: Document, marker: int) -> Document:
        """A new epoch under the same name; the old one keeps its rows."""
        assert document.id not in self._holders
        document.replaced = True
        self._last_id += 1
        new = Document(self._last_id, document.tenant, document.name, document.epoch + 1, marker)
        self._insert(new)
        self._tell_changed(document)
        return new

    def _tell_changed(self, document: Document) -> None:
        session = Session(0.0)
        self.notify(session, HINT_CHANNEL, f";|{document.id}:0:0")
        self.commit(session)

    def is_held(self, document: Document) -> bool:
        return document.id in self._holders

    def go_back(self, document: Document, rows: int) -> None:
        """The newest rows are gone, as after a failover to a standby that lagged. No session outlives it."""
        kept = len(document.rows) - min(rows, len(document.rows))
        document.rows, lost = document.rows[:kept], document.rows[kept:]
        document.head -= sum(row.count for row in lost)
        document.accepted_rows -= len(lost)
        document.accepted_bytes -= sum(len(update) for row in lost for update in frames(row.frames))
        del document.history[document.head :]
        if lost and self._witness is not None:
            self._witness.went_back(document)

    def compact(self, document: Document, rows_max: int) -> None:
        """The oldest rows become a snapshot, as the compactor makes it."""
        bite, rest = document.rows[:rows_max], document.rows[rows_max:]
        if not bite:
            return
        old = document.snapshot
        tail = [update for row in bite for update in frames(row.frames)]
        folded = fold_document(old.bytes if old else None, tail, keep_deleted=False)
        document.snapshot = Snapshot(
            bite[-1].seq,
            folded.snapshot,
            folded.state_vector,
            folded.delete_set,
            (old.merged_rows if old else 0) + len(bite),
            (old.merged_bytes if old else 0) + sum(map(len, tail)),
        )
        document.rows = rest
