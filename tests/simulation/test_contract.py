"""The model of Postgres that the simulation runs on does what a real Postgres does: one suite, on both."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.simulation.connections import SimulatedDatabase
from tests.simulation.contract import MARKER, Contract, Log
from tests.simulation.postgres import Postgres, Session, Snapshot
from tests.simulation.weather import Calm
from ydoc_store.storage.pool import Database

INSERT_SNAPSHOT = """
INSERT INTO ydoc.snapshots
    (document_id, through_seq, bytes, state_vector, delete_set, merged_rows, merged_bytes, way)
VALUES ($1, $2, $3, '', '', $4, $5, 'merge')
"""
HOLD = "SELECT FROM ydoc.documents WHERE id = $1 FOR UPDATE"


class OnModel:
    def __init__(self) -> None:
        self.postgres = Postgres()
        self.database = SimulatedDatabase(self.postgres, Calm())

    async def delete(self, document_id: int) -> None:
        self.postgres.documents[document_id].deleted = True

    async def recreate(self, document_id: int) -> None:
        self.postgres.recreate(self.postgres.documents[document_id], MARKER)

    async def put_snapshot(self, document_id: int, through_seq: int, content: bytes, merged: tuple[int, int]) -> None:
        document = self.postgres.documents[document_id]
        document.rows = [row for row in document.rows if row.seq > through_seq]
        document.snapshot = Snapshot(through_seq, content, b"", b"", *merged)

    @contextlib.asynccontextmanager
    async def held(self, document_id: int) -> AsyncIterator[None]:
        session = Session(1.0)
        await self.postgres.lock(session, document_id)
        yield
        self.postgres.roll_back(session)


class OnPostgres:
    def __init__(self, database: Database, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.database = database
        self._connection = connection

    async def delete(self, document_id: int) -> None:
        await self._connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE id = $1", document_id)

    async def recreate(self, document_id: int) -> None:
        await self._connection.execute("UPDATE ydoc.documents SET replaced_at = now() WHERE id = $1", document_id)
        await self._connection.execute(
            "INSERT INTO ydoc.documents (tenant, name, epoch, marker)"
            " SELECT tenant, name, epoch + 1, $2 FROM ydoc.documents WHERE id = $1",
            document_id,
            MARKER,
        )

    async def put_snapshot(self, document_id: int, through_seq: int, content: bytes, merged: tuple[int, int]) -> None:
        await self._connection.execute(
            "DELETE FROM ydoc.updates WHERE document_id = $1 AND seq <= $2", document_id, through_seq
        )
        await self._connection.execute(INSERT_SNAPSHOT, document_id, through_seq, content, *merged)

    @contextlib.asynccontextmanager
    async def held(self, document_id: int) -> AsyncIterator[None]:
        async with self._connection.transaction():
            await self._connection.execute(HOLD, document_id)
            yield


class TestTheModel(Contract):
    @pytest.fixture
    async def log(self) -> Log:
        return OnModel()


class TestPostgres(Contract):
    @pytest.fixture
    async def log(self, database_url: str) -> AsyncIterator[Log]:
        database = await Database.open(database_url)
        connection = await asyncpg.connect(database_url)
        yield OnPostgres(database, connection)
        await connection.close()
        await database.close()
