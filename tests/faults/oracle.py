"""The one oracle of the fault laboratory: what must hold after a fault, whatever the fault was.

For every document: acked ⊆ stored ⊆ attempted, each acked marker exactly once and no marker twice; the log gapless;
what `ydoc-store verify` checks; nothing pending; Yjs, pycrdt and every live client equal to what is stored, whether
it is read as a log or loaded as snapshot and tail. Beside the documents: no transaction that idles, and once the
clients have left no room, task, connection or descriptor. All that is wrong is told at once.

Writers type markers (`tests.faults.journal`); y-websocket knows no ack, so there a marker counts as acked as soon
as another client shows it (I2). Nothing here causes a fault, or waits for one to pass for longer than its time-outs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pycrdt import Doc, Text

from tests.faults.journal import Known, markers_in
from tests.faults.processes import Watched, children_of, connections_on, descriptors_of, is_zombie
from tests.interop.yjs_judge import shared_judge
from tests.nodes import Node
from tests.stored import broken_seqs, connecting, log_of
from ydoc_store.errors import CorruptDocument
from ydoc_store.settings import Settings
from ydoc_store.storage.loader import StoredDocument, read_after
from ydoc_store.storage.pool import Database
from ydoc_store.storage.verification import verify_document
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.walker import marker_update

if TYPE_CHECKING:
    from tests.stored import Connection

SETTLE_TIMEOUT_S = 30.0
LOOK_PAUSE_S = 0.05
# A service that was watched when it was new opens its pool's other connections, a child for each of its workers and
# the pipes to those: more than that is a leak.
DESCRIPTORS_GROWTH_MAX = Settings.model_fields["pool_size"].default + 12
CHILDREN_GROWTH_MAX = 2

FIND_DOCUMENT = """
SELECT id FROM ydoc.documents WHERE name = $1 AND deleted_at IS NULL AND replaced_at IS NULL
"""
IDLE_TRANSACTIONS = """
SELECT pid, state, left(query, 80) AS query FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""


class Client(Protocol):
    """A live client of any kind: `tests.nodes.Editor`, `tests.interop.editors.Editor`, or another's."""

    async def state(self) -> bytes:
        """All that it has, as one update, what it cannot apply yet included where its library tells."""
        ...

    async def leave(self) -> None: ...


@dataclass
class Scene:
    """Who took part. `known` is by document, from a journal or from an appender's outcomes; so are `clients`.

    `nodes` run in this process, `services` are processes of their own, watched since they were new. A document of
    `clients` that is not in `known` is held to equality alone.
    """

    database_url: str
    known: Mapping[str, Known] = field(default_factory=dict)
    clients: Mapping[str, Sequence[Client]] = field(default_factory=dict)
    nodes: Sequence[Node] = ()
    services: Sequence[Watched] = ()


async def verify(scene: Scene, *, clients_leave: bool = True) -> None:
    """AssertionError with every finding. The clients leave at the end of it, unless the fault is to be repeated.

    Waits for what needs a moment: that clients come back and hear everything, that rooms close, that Postgres ends
    the sessions of whoever was killed.
    """
    findings: list[str] = []
    async with connecting(scene.database_url) as connection, _opened(scene.database_url) as database:
        for name in sorted({*scene.known, *scene.clients}):
            findings += await _of_document(connection, database, scene, name)
        findings += [f"{found}: a hole, or a seq twice" for found in await broken_seqs(connection)]
        findings += await _settled(lambda: _idle_transactions(connection))
    if clients_leave:
        for client in (client for clients in scene.clients.values() for client in clients):
            await client.leave()
        for node in scene.nodes:
            findings += await _settled(lambda node=node: _left_in(node))  # type: ignore[misc]
        for watched in scene.services:
            findings += await _settled(lambda watched=watched: _left_in_service(watched))  # type: ignore[misc]
    assert not findings, "\n".join(findings)


@contextlib.asynccontextmanager
async def _opened(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url, pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def _settled(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What is still found when its time is over."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while (found := await look()) and time.monotonic() < deadline_s:  # noqa: ASYNC110 # others bring it about
        await asyncio.sleep(LOOK_PAUSE_S)
    return found


# Documents


@dataclass(frozen=True, slots=True)
class _Stored:
    """One moment of a document, read in both ways."""

    loaded: list[bytes]
    logged: list[bytes]


async def _of_document(connection: Connection, database: Database, scene: Scene, name: str) -> list[str]:
    known = scene.known.get(name)
    try:
        findings = await _settled(lambda: _of_clients(connection, database, name, scene.clients.get(name, ())))
        document_id = await connection.fetchval(FIND_DOCUMENT, name)
        if document_id is None:
            acked = sorted(known.acked) if known else []
            return findings + ([f"{name}: there is no such document, and {_some(acked)} were acked"] if acked else [])
        findings += _of_content(await _read(connection, database, document_id), known)
    except CorruptDocument as error:
        findings, document_id = [f"I6: {error}"], await connection.fetchval(FIND_DOCUMENT, name)
    verified = await verify_document(database, document_id)
    assert verified is not None, "the document was there a moment ago"
    findings += [f"{finding.promise}: {finding.text}" for finding in verified.findings]
    return [f"{name}: {finding}" for finding in findings]


async def _read(connection: Connection, database: Database, document_id: int) -> _Stored:
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        stored = await read_after(database, document_id, 0)
        logged = await log_of(connection, document_id)
        # Somebody may still be writing: both readings are to be of one head.
        if stored.head == len(logged) or time.monotonic() > deadline_s:
            marker = marker_update(stored.marker)
            return _Stored([marker, *_updates_of(stored)], [marker, *logged])


def _updates_of(stored: StoredDocument) -> list[bytes]:
    snapshot = stored.snapshot
    assert snapshot is None or snapshot.bytes is not None
    held = [] if snapshot is None or snapshot.bytes is None else [snapshot.bytes]
    return held + [update for row in stored.tail for update in frames(row.frames)]


async def _of_clients(connection: Connection, database: Database, name: str, clients: Sequence[Client]) -> list[str]:
    if not clients:
        return []
    document_id = await connection.fetchval(FIND_DOCUMENT, name)
    stored = _Stored([], []) if document_id is None else await _read(connection, database, document_id)
    differences = [shared_judge().difference(stored.loaded, [await client.state()]) for client in clients]
    return [
        f"client {number} shows something else than is stored: {difference}"
        for number, difference in enumerate(differences, 1)
        if difference is not None
    ]


def _of_content(stored: _Stored, known: Known | None) -> list[str]:
    judge = shared_judge()
    findings: list[str] = []
    if (difference := judge.difference(stored.logged, stored.loaded)) is not None:
        findings.append(f"I7: what is loaded differs from the log: {difference}")
    described = judge.describe(stored.loaded)
    findings += [
        f"I22: something is pending: {part} {described[part]}"
        for part in ("waiting", "pendingDeletes")
        if described[part]
    ]
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    doc.apply_update(merge(stored.loaded))
    if (difference := judge.difference(stored.loaded, [doc.get_update()])) is not None:
        findings.append(f"I22: pycrdt shows something else than Yjs: {difference}")
    return findings + (_of_markers(str(text), known) if known is not None else [])


def _of_markers(text: str, known: Known) -> list[str]:
    shown = Counter(markers_in(text))
    wrong = {
        "I1: acked and not stored": known.acked - shown.keys(),
        "stored and never attempted": shown.keys() - known.attempted,
        "stored more than once": {marker for marker, times in shown.items() if times > 1},
        "acked and never attempted, as the journal has it": known.acked - known.attempted,
    }
    return [f"{what}: {_some(sorted(markers))}" for what, markers in wrong.items() if markers]


def _some(markers: list[str]) -> str:
    return f"{len(markers)} ({', '.join(markers[:5])}{', …' if len(markers) > 5 else ''})"


# What is left behind


async def _idle_transactions(connection: Connection) -> list[str]:
    rows = await connection.fetch(IDLE_TRANSACTIONS)
    return [f"an idle transaction: process {row['pid']} is {row['state']} after {row['query']!r}" for row in rows]


async def _left_in(node: Node) -> list[str]:
    rooms, relay, appender = node.service.rooms, node.service.relay, node.service.appender
    left = {
        "rooms": len(rooms.rooms),
        "rooms by document id": len(rooms.by_document_id),
        "rooms without a document": len(rooms.absent),
        "tasks of rooms": len(rooms._tasks),
        "connections": len(relay.connections),
        "connections that open": len(relay._opening),
        "queued bytes": appender.queued_bytes,
        "queues that wait": sum(len(lane.dirty) for lane in appender._lanes),
    }
    return [f"I15: a node is left with {count} {what}" for what, count in left.items() if count]


async def _left_in_service(watched: Watched) -> list[str]:
    service = watched.service
    if not service.is_running:
        return []
    sockets, descriptors, children = connections_on(service.port), descriptors_of(service.pid), children_of(service.pid)
    # Asked for last, because the asking is a connection too.
    metrics = await service.metrics()
    left = {
        "rooms": metrics["ydoc_rooms"],
        "connections": sum(value for name, value in metrics.items() if name.startswith("ydoc_connections{")),
        "open sockets on its port": sockets,
        "descriptors more than a pool explains": max(
            0, len(descriptors) - watched.descriptors - DESCRIPTORS_GROWTH_MAX
        ),
        "children more than its workers": max(0, len(children) - watched.children - CHILDREN_GROWTH_MAX),
        "dead children": sum(map(is_zombie, children)),
    }
    return [
        f"I15: the service on port {service.port} is left with {count:g} {what}"
        for what, count in left.items()
        if count
    ]
