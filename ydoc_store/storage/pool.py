"""One database: its pool, its transactions, and the one place where asyncpg's errors become ours.

A caller of this package never sees an asyncpg exception: whatever is raised between `mapping_errors()` is either
`StorageBusy` (known to have been rolled back), `StorageUnavailable` (no answer, nothing accepted) or, where a
commit was under way, `CommitUnknown`, which only the appender and the compactor can judge. No SQL of a table
lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Self

import asyncpg

from ydoc_store.errors import ServerFault, SettingInvalid, StorageBusy, StorageUnavailable, YdocError
from ydoc_store.storage.turns import NoneFree, Turns

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]

APPLICATION_NAME = "ydoc-store"
# Connections that loads never take all together: the poll, the monitor, presence and a compaction find one at once.
KEPT_FROM_LOADS = 4

# Rolled back by the server, and worth another try later: locks, time-outs, deadlocks, a full disk, no memory.
_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)
# No server that serves us: not there, shutting down, full, not for us, or one that takes no writes. OSError is
# TimeoutError's base.
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
)
# These are of a family in `_BUSY` by their code, and tell of a server that is not there for us.
_GONE_FIRST = (asyncpg.TooManyConnectionsError,)


def affected(status: str) -> int:
    """How many rows a command changed, by the status that Postgres answers it with."""
    return int(status.rpartition(" ")[2])


@contextlib.contextmanager
def mapping_errors(doing: str) -> Iterator[None]:
    """Whatever asyncpg or the socket raises inside leaves as one of ours; `doing` says what was tried."""
    try:
        yield
    except YdocError:
        raise
    except _GONE_FIRST as error:
        raise StorageUnavailable(f"{doing}: {_words(error)}") from error
    except _BUSY as error:
        raise StorageBusy(f"{doing}: {_words(error)}") from error
    except _GONE as error:
        raise StorageUnavailable(f"{doing}: {_words(error)}") from error
    except asyncpg.PostgresError as error:
        raise ServerFault(f"{doing}: {_words(error)}") from error


def _words(error: BaseException) -> str:
    # What asyncpg says about leaving a transaction on a connection that is gone hides why it is gone.
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error.__context__, asyncpg.PostgresError):
        error = error.__context__
    # A time-out carries no text of its own.
    return str(error) or type(error).__name__


def _is_cut(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # It has left its pool.
        return True


def _wrong_with(url: str, error: ValueError | OverflowError) -> str:
    """What a person can mend in a URL. No part of it is repeated that may belong to its password."""
    scheme, _, rest = url.partition("://")
    dialect, plus, driver = scheme.partition("+")
    if rest and plus and dialect in ("postgresql", "postgres"):
        return f"remove the +{driver} from {scheme}://, no driver is named here"
    if isinstance(error, asyncpg.InterfaceError):
        return str(error)
    return (
        "its port must be a number up to 65535, an IPv6 address stands in [ ], and / ? # @ : in a password are "
        "written as %2F %3F %23 %40 %3A"
    )


class Database:
    """A pool of connections with our session settings; every borrowed connection is given back clean.

    Sessions set `synchronous_commit = on` themselves, because the promise must not depend on a default that an
    operator may have relaxed for other databases on the same server.
    """

    def __init__(
        self,
        url: str,
        pool: asyncpg.Pool[asyncpg.Record],
        session: dict[str, str],
        *,
        pool_size: int,
        connect_timeout_s: float,
        wait_timeout_s: float,
        lock_timeout_s: float,
    ):
        self.url = url
        self.lock_timeout_s = lock_timeout_s
        self._pool = pool
        self._session = session
        self._connect_timeout_s = connect_timeout_s
        self._wait_timeout_s = wait_timeout_s
        # Waiting for a free connection and making one take different times: asyncpg's own time-out is over both.
        self._free = asyncio.Semaphore(pool_size)
        self._turns = Turns(max(pool_size - KEPT_FROM_LOADS, pool_size // 2, 1))

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        statement_timeout_s: float = 30.0,
        lock_timeout_s: float = 2.0,
        connect_timeout_s: float = 10.0,
        wait_timeout_s: float = 1.0,
        whose: str = "the database",
        read_only: bool = False,
    ) -> Self:
        """Connect once, so that a wrong URL is told now and not at the first query.

        `whose` names the database in an error; `read_only` lets no session write. Raises StorageUnavailable within
        about `connect_timeout_s` seconds, SettingInvalid for what is no URL.
        """
        session = {
            "application_name": APPLICATION_NAME,
            "synchronous_commit": "on",
            "statement_timeout": f"{statement_timeout_s * 1000:.0f}",
            "lock_timeout": f"{lock_timeout_s * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{statement_timeout_s * 2000:.0f}",
            "timezone": "UTC",
        }
        if read_only:
            session["default_transaction_read_only"] = "on"
        with mapping_errors(f"cannot reach {whose}"):
            try:
                pool = await asyncpg.create_pool(
                    url,
                    min_size=1,
                    max_size=pool_size,
                    timeout=connect_timeout_s,
                    command_timeout=statement_timeout_s + 5,
                    server_settings=session,
                )
            except (ValueError, OverflowError) as error:
                raise SettingInvalid(f"no URL of {whose}: {_wrong_with(url, error)}") from error
        return cls(
            url,
            pool,
            session,
            pool_size=pool_size,
            connect_timeout_s=connect_timeout_s,
            wait_timeout_s=wait_timeout_s,
            lock_timeout_s=lock_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction.

        Raises NoneFree when none is in `wait_timeout_s`, StorageUnavailable when none can be made.
        """
        await self._wait_for_free()
        try:
            with mapping_errors("using the database"):
                connection = await self._pool.acquire(timeout=self._connect_timeout_s)
                try:
                    yield connection
                except AttributeError as error:
                    # asyncpg stumbles like this where it is cut (`drop_connections`) between two steps of a statement.
                    if _is_cut(connection):
                        raise StorageUnavailable("using the database: the connection was lost") from error
                    raise
                finally:
                    # One that cannot be tidied in time is cut; what became of the borrower's own work stands.
                    with contextlib.suppress(TimeoutError):
                        await self._pool.release(connection)
        finally:
            self._free.release()

    async def _wait_for_free(self) -> None:
        try:
            async with asyncio.timeout(self._wait_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise NoneFree(f"no connection became free in {self._wait_timeout_s:g} s") from None

    @contextlib.asynccontextmanager
    async def acquire_in_turn(self) -> AsyncIterator[Connection]:
        """Like `acquire`, for reads that may come by the thousand: they take a share of the pool, one after another.

        Waiting for the turn has no time-out of its own; raises NoneFree as soon as one of them was given none.
        """
        async with self._turns.turn(), self.acquire() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a READ COMMITTED transaction, committed when the block ends without an error."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def connect_alone(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of its own outside the pool, for a lane of the appender or a listener; close it yourself."""
        with mapping_errors("connecting to the database"):
            return await asyncpg.connect(self.url, timeout=self._connect_timeout_s, server_settings=self._session)

    def drop_connections(self) -> None:
        """Cut every connection of the pool, whoever uses it; the next ones to be asked for are new.

        For when another connection to the same server was lost: those that are dead without a word would be handed
        to whoever comes back, and hold him up until a statement times out, and one that still leads to a server that
        was replaced would show what the new one does not hold. Whoever uses one gets StorageUnavailable.
        """
        # `Pool.terminate` does this, and closes the pool; `expire_connections` closes politely, waiting for the dead.
        for holder in self._pool._holders:  # type: ignore[attr-defined] # private, and pinned: see above
            holder.terminate()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Close every connection; those still busy after `timeout_s` are cut."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()
