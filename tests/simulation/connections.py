"""How the product reaches the model: a `Database` and connections that look like asyncpg's, and what goes wrong.

A statement travels, runs in the server whatever becomes of its client meanwhile, and its answer travels back; a
`Fate` says which of these steps fail. Statements are told apart by the product's own constants, so that everything
of the product's Python code above them runs as it is. What a statement does is in `postgres`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context, copy_context
from types import SimpleNamespace, TracebackType
from typing import Any

import asyncpg

from tests.simulation.loop import OWNER
from tests.simulation.postgres import Document, Postgres, Session
from tests.simulation.weather import Fate, Weather
from ydoc_store.storage import (
    append_batch,
    creating,
    heads,
    incarnation,
    lane_connection,
    loader,
    notifications,
    outcomes,
    timelines,
)
from ydoc_store.storage.pool import mapping_errors

LOST = "connection was closed in the middle of operation"


class Record:
    """A row by position and by name, as asyncpg's."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: int | str) -> Any:
        return self._values[self._names.index(key) if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


def records(names: str, rows: Sequence[tuple[Any, ...]]) -> list[Record]:
    return [Record(tuple(names.split()), row) for row in rows]


class SimulatedDatabase:
    """`Database` as far as the relay uses it. `owner` is whose connections these are."""

    lock_timeout_s = 2.0
    url = "postgresql://simulated"

    def __init__(self, postgres: Postgres, weather: Weather, owner: Any = None) -> None:
        self.postgres = postgres
        self.weather = weather
        self.owner = owner
        self.connections: dict[SimulatedConnection, None] = {}
        # Its process was killed: nothing of it reaches the server any more.
        self.is_dead = False

    def acquire(self) -> _Acquired:
        return _Acquired(self)

    # There are always enough here, so nobody waits for a turn.
    acquire_in_turn = acquire

    async def connect_alone(self) -> Any:
        with mapping_errors("connecting to the database"):
            return await self._connect()

    async def _connect(self) -> SimulatedConnection:
        await asyncio.sleep(self.weather.delay_s())
        if self.is_dead or self.weather.refuses_connections():
            raise ConnectionRefusedError("simulated: the database is away")
        return SimulatedConnection(self)

    def cut(self) -> None:
        """Every connection ends, as when the server or its client is killed."""
        for connection in list(self.connections):
            connection.lose()

    def drop_connections(self) -> None:
        """Those of the pool end, whoever uses them; lanes and the listener have connections of their own."""
        for connection in [one for one in self.connections if one.is_pooled]:
            connection.lose()

    async def close(self) -> None:
        self.cut()


class _Acquired:
    """A class and not a generator: one that is never resumed needs no finalizer."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database
        self._connection: SimulatedConnection | None = None

    async def __aenter__(self) -> SimulatedConnection:
        with mapping_errors("using the database"):
            self._connection = await self._database._connect()
        self._connection.is_pooled = True
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        self._connection.terminate()


class SimulatedConnection:
    """What of `asyncpg.Connection` the relay uses. One statement at a time."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database
        self._postgres = database.postgres
        self._weather = database.weather
        self._session = Session(database.lock_timeout_s)
        self._session.timeline = self._postgres.timeline
        self.is_pooled = False
        self._closed = False
        self._is_busy = False
        self._answer: asyncio.Future[list[Record]] | None = None
        self._ended: list[tuple[Callable[[Any], None], Context]] = []
        self._warned: list[Callable[[Any, Any], None]] = []
        self._server_side: set[asyncio.Task[None]] = set()
        database.connections[self] = None
        self._postgres.sessions[self._session] = None
        self._statements: dict[str, Callable[..., Awaitable[list[Record]]]] = {
            lane_connection.SET_UP_LANE: self._set_up,
            lane_connection.IS_READ_ONLY: self._is_read_only,
            append_batch.BEGIN_CREATING: self._begin,
            creating.CREATE_DOCUMENTS: self._create,
            creating.FIND_DOCUMENTS: self._find,
            append_batch.APPEND_BATCH: self._append,
            outcomes.FIND_FREE_HEADS: self._find_free,
            append_batch.COMMIT_CREATED: self._nothing,
            append_batch.ROLL_BACK_CREATED: self._roll_back,
            loader.LOAD_BY_NAME: self._load,
            loader.READ_AFTER: self._read_after,
            heads.READ_HEADS: self._read_heads,
            incarnation.READ_INCARNATION: self._read_incarnation,
            timelines.NOTE_TIMELINE: self._note_timeline,
            heads.FIND_CREATED: self._find_created,
            notifications.NOTIFY: self._notify,
            notifications.LISTENERS_AND_QUEUE: self._listeners,
            notifications.HOLD_LISTENER_LOCK: self._hold_listener_lock,
        }

    # asyncpg's surface

    async def fetch(self, sql: str, *arguments: Any) -> list[Record]:
        return await self._run(sql, arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Record | None:
        rows = await self._run(sql, arguments)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        rows = await self._run(sql, arguments)
        return rows[0][0] if rows else None

    async def execute(self, sql: str, *arguments: Any) -> str:
        await self._run(sql, arguments)
        return "OK"

    def is_closed(self) -> bool:
        return self._closed

    def terminate(self) -> None:
        self._end()

    def add_termination_listener(self, listener: Callable[[Any], None]) -> None:
        self._ended.append((listener, copy_context()))

    def add_log_listener(self, listener: Callable[[Any, Any], None]) -> None:
        self._warned.append(listener)

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, object], None]) -> None:
        context = copy_context()

        def heard(channel: str, payload: str) -> None:
            for delay_s in self._weather.hint_delays_s(channel):
                asyncio.get_running_loop().call_later(delay_s, arrive, channel, payload, context=context)

        def arrive(channel: str, payload: str) -> None:
            if not self._closed:
                callback(self, 0, channel, payload)

        await asyncio.sleep(self._weather.delay_s())
        self._refuse_if_closed()
        self._session.listening[channel] = heard

    # The end

    def lose(self) -> None:
        """The connection ends without its client's doing."""
        answer = self._answer
        self._end()
        if answer is not None and not answer.done():
            answer.set_exception(asyncpg.ConnectionDoesNotExistError(LOST))

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._database.connections.pop(self, None)
        self._postgres.sessions.pop(self._session, None)
        self._session.listening.clear()
        if not self._is_busy:
            self._postgres.roll_back(self._session)
        for listener, context in self._ended:
            asyncio.get_running_loop().call_soon(listener, self, context=context)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")

    # One statement

    async def _run(self, sql: str, arguments: tuple[Any, ...]) -> list[Record]:
        self._refuse_if_closed()
        if self._is_busy:
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        if sql not in self._statements:
            raise NotImplementedError(f"the model does not know this statement: {sql}")
        self._is_busy = True
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        context = copy_context()
        context.run(OWNER.set, self._postgres)
        # Of the server's: it goes on when its client is gone.
        backend = loop.create_task(self._serve(sql, arguments, answer), context=context)
        self._server_side.add(backend)
        backend.add_done_callback(self._server_side.discard)
        return await answer

    async def _serve(self, sql: str, arguments: tuple[Any, ...], answer: asyncio.Future[list[Record]]) -> None:
        fate = self._weather.fate(sql)
        try:
            await asyncio.sleep(self._weather.delay_s())
            if fate is Fate.LOST_BEFORE:
                self.lose()
            rows = await self._execute(sql, arguments, fate)
        except asyncpg.PostgresError as error:
            self._fail(error, answer)
            return
        finally:
            self._is_busy = False
            if self._closed:
                self._postgres.roll_back(self._session)
        if fate is Fate.LOST_AFTER:
            self.lose()
        if fate is Fate.UNREPLICATED:
            for warned in self._warned:
                warned(self, SimpleNamespace(server_source_filename="syncrep.c", message="standby"))
        await asyncio.sleep(self._weather.delay_s())
        if not answer.done():
            answer.set_result(rows)

    async def _execute(self, sql: str, arguments: tuple[Any, ...], fate: Fate) -> list[Record]:
        session = self._session
        if self._closed and (session.in_transaction or fate is Fate.LOST_BEFORE):
            raise asyncpg.ConnectionDoesNotExistError(LOST)
        self._refuse_if_failed_over()
        if session.is_aborted and sql != append_batch.ROLL_BACK_CREATED:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        refused = fate is Fate.REFUSED and sql != append_batch.ROLL_BACK_CREATED
        # A BEGIN that fails begins nothing; of anything else the locks were taken before it failed.
        rows = [] if refused and sql == append_batch.BEGIN_CREATING else await self._statements[sql](*arguments)
        if refused:
            raise asyncpg.DeadlockDetectedError("simulated: deadlock detected")
        if sql == append_batch.COMMIT_CREATED or not session.in_transaction:
            if session.effects:
                # The flush; a stalled server may finish it when nobody waits any more.
                await asyncio.sleep(self._weather.stall_s() if fate is Fate.STALLED else self._weather.delay_s())
            self._refuse_if_failed_over()
            self._postgres.commit(session)
        return rows

    def _refuse_if_failed_over(self) -> None:
        if self._session.timeline != self._postgres.timeline:
            raise asyncpg.ConnectionDoesNotExistError(LOST)

    def _fail(self, error: asyncpg.PostgresError, answer: asyncio.Future[list[Record]]) -> None:
        session = self._session
        if session.in_transaction and not self._closed:
            session.is_aborted = True
        else:
            self._postgres.roll_back(session)
        if not answer.done():
            answer.set_exception(error)

    # What the statements are

    async def _nothing(self) -> list[Record]:
        return []

    async def _set_up(self, _statement_ms: str, lock_ms: str) -> list[Record]:
        self._session.lock_timeout_s = float(lock_ms) / 1000
        return []

    async def _is_read_only(self) -> list[Record]:
        return records("is_read_only", [(False,)])

    async def _begin(self) -> list[Record]:
        self._session.in_transaction = True
        return []

    async def _roll_back(self) -> list[Record]:
        self._postgres.roll_back(self._session)
        return []

    async def _create(
        self, tenants: Sequence[str], names: Sequence[str], markers: Sequence[int], _keep_deleted: bool = False
    ) -> list[Record]:
        await self._postgres.create_documents(self._session, tenants, names, markers)
        return []

    async def _find(self, tenants: Sequence[str], names: Sequence[str]) -> list[Record]:
        found = self._postgres.find_documents(self._session, tenants, names)
        return records("number id epoch marker", [(n, d.id, d.epoch, d.marker) for n, d in found])

    async def _append(self, *columns: Any) -> list[Record]:
        answer = await self._postgres.append(self._session, *columns)
        return records("id head deleted replaced another hints closed_at_head", [(*row, 0, None) for row in answer])

    async def _find_free(self, ids: Sequence[int]) -> list[Record]:
        known = self._postgres.documents
        return records("id", [(i,) for i in sorted(ids) if i in known and self._postgres.is_free(self._session, i)])

    async def _load(self, tenant: str, name: str) -> list[Record]:
        document = self._postgres.current(tenant, name)
        return [] if document is None else [_stored(document, 0)]

    async def _read_after(self, document_id: int, cursor: int) -> list[Record]:
        document = self._postgres.documents.get(document_id)
        return [] if document is None else [_stored(document, cursor)]

    async def _read_heads(self, ids: Sequence[int]) -> list[Record]:
        found = [self._postgres.documents[i] for i in ids if i in self._postgres.documents]
        names = "id name marker head deleted replaced accepted_bytes snapshot_bytes merged"
        return records(names, [_head(document) for document in found])

    async def _read_incarnation(self) -> list[Record]:
        names = "system_identifier timeline started_at database_oid table_oid bump bumped_at"
        return records(names, [(1, self._postgres.timeline, *(0,) * 5)])

    async def _note_timeline(self, _system_identifier: int, _timeline: int) -> list[Record]:
        # For the change feed, which nobody follows here.
        return []

    async def _find_created(self, tenants: Sequence[str], names: Sequence[str]) -> list[Record]:
        keys = enumerate(zip(tenants, names, strict=True))
        return records("index", [(index,) for index, key in keys if self._postgres.current(*key) is not None])

    async def _notify(self, channel: str, payloads: Sequence[str]) -> list[Record]:
        for payload in payloads:
            self._postgres.notify(self._session, channel, payload)
        return []

    async def _listeners(self, _classid: int) -> list[Record]:
        listeners = sum(session.has_listener_lock for session in self._postgres.sessions)
        return records("listeners usage", [(listeners, 0.0)])

    async def _hold_listener_lock(self, _classid: int, _objid: int) -> list[Record]:
        self._session.has_listener_lock = True
        return []


def _head(document: Document) -> tuple[Any, ...]:
    snapshot = document.snapshot
    merged = (len(snapshot.bytes), snapshot.merged_bytes) if snapshot else (0, 0)
    return (
        document.id,
        document.name,
        document.marker,
        document.head,
        document.deleted,
        document.replaced,
        document.accepted_bytes,
        *merged,
    )


_STORED = (
    "id epoch marker head accepted_rows accepted_bytes deleted replaced through_seq bytes state_vector delete_set"
    " snapshot_bytes merged_rows merged_bytes seqs counts frames"
)


def _stored(document: Document, cursor: int) -> Record:
    s, d = document.snapshot, document
    of_snapshot: tuple[Any, ...] = (None,) * 7
    if s is not None:
        content = s.bytes if s.through_seq > cursor else None
        of_snapshot = (
            s.through_seq,
            content,
            s.state_vector,
            s.delete_set,
            len(s.bytes),
            s.merged_rows,
            s.merged_bytes,
        )
    behind = max(cursor, s.through_seq if s is not None else 0)
    tail = [row for row in d.rows if row.seq > behind]
    columns = ([row.seq for row in tail], [row.count for row in tail], [row.frames for row in tail])
    of_document = (d.id, d.epoch, d.marker, d.head, d.accepted_rows, d.accepted_bytes, d.deleted, d.replaced)
    return records(_STORED, [(*of_document, *of_snapshot, *columns)])[0]
