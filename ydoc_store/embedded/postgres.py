"""The Postgres of our own, from the outside: start it, use its URL, stop it.

Everything lies in one data folder, which one service uses at a time. A postmaster that dies while we run is
started again. What a person must decide (no programs, a full disk, another major version, a taken folder) leaves
as EmbeddedPostgresFailed, whose message says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from ydoc_store.embedded import binaries as programs
from ydoc_store.embedded.account import Account, choose_account
from ydoc_store.embedded.binaries import Binaries
from ydoc_store.embedded.cluster import make_cluster
from ydoc_store.embedded.configuration import address, write_configuration
from ydoc_store.embedded.folder import DataFolder, disk_full, is_disk_full
from ydoc_store.embedded.lock import FolderLock
from ydoc_store.embedded.postmaster import Postmaster, bound_log
from ydoc_store.embedded.predecessor import clear_predecessor, end_backends
from ydoc_store.errors import EmbeddedPostgresFailed

# Recovery replays at most `max_wal_size` twice; a slow disk takes minutes for that.
READY_TIMEOUT_S = 600.0
LOOK_INTERVAL_S = 10.0
RESTART_WAIT_S_MAX = 30.0

logger = structlog.get_logger("ydoc_store.embedded")


class EmbeddedPostgres:
    """`async with EmbeddedPostgres(data_dir) as postgres: … postgres.url`; or `start` and `stop`.

    Leaving the block stops the server with a fast shutdown: connections still open are cut.
    """

    def __init__(self, data_dir: Path, *, binaries: Binaries | None = None) -> None:
        self._folder = DataFolder(data_dir.expanduser().resolve())
        self._binaries = binaries
        self._lock: FolderLock | None = None
        self._postmaster: Postmaster | None = None
        self._socket_folder: Path | None = None
        self._watching: asyncio.Task[None] | None = None

    @staticmethod
    def binaries() -> Binaries:
        """The installed programs. Raises EmbeddedPostgresFailed, naming what to install or to pass instead."""
        return programs.packaged()

    @property
    def data_dir(self) -> Path:
        """Everything of this Postgres; deleting it while nothing runs deletes all documents."""
        return self._folder.root

    @property
    def url(self) -> str:
        """For asyncpg and for psql, over a Unix socket. It stays the same when the server is restarted."""
        if self._socket_folder is None:
            raise EmbeddedPostgresFailed("the embedded Postgres is not running")
        return address(self._socket_folder)

    @property
    def major(self) -> int:
        return (self._binaries or self.binaries()).major

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None while it does not run."""
        return None if self._postmaster is None or self._postmaster.has_ended else self._postmaster.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when connections are accepted; the first time the cluster is made.

        Raises EmbeddedPostgresFailed, having let go of the folder and of every process, as does a cancellation.
        """
        if self._lock is not None:
            raise EmbeddedPostgresFailed(f"the embedded Postgres in {self._folder.root} was started already")
        try:
            account, binaries = await asyncio.to_thread(self._prepare)
            if not self._folder.cluster.exists():
                staging = await make_cluster(self._folder, binaries, account)
                await asyncio.to_thread(self._folder.commit, staging)
            self._postmaster = await self._start_postmaster(account, binaries)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise EmbeddedPostgresFailed(self._explain(error)) from error
            raise
        self._watching = asyncio.create_task(self._watch(account, binaries), name="embedded-postgres")

    async def stop(self) -> None:
        """Returns when the server has ended and the folder is free. Does nothing when it is not running."""
        try:
            if self._watching is not None:
                self._watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._watching
                self._watching = None
            if self._postmaster is not None:
                await self._postmaster.stop()
                self._postmaster = None
                # Of a postmaster that was killed, now or just before.
                await end_backends(self._folder.cluster)
        finally:
            self._release()

    def _prepare(self) -> tuple[Account, Binaries]:
        binaries = self._binaries or self.binaries()
        account = choose_account(self._folder.cluster)
        self._folder.create(account)
        self._lock = FolderLock(self._folder.lock)
        if self._folder.major() is None:
            self._folder.require_space()
        self._folder.require_major(binaries.major)
        binaries = programs.reachable(binaries, account, self._folder.programs)
        self._socket_folder = self._folder.socket_folder(account)
        write_configuration(self._folder, account, self._socket_folder)
        return account, binaries

    async def _start_postmaster(self, account: Account, binaries: Binaries) -> Postmaster:
        assert self._socket_folder is not None  # noqa: S101 # _prepare chose it
        await clear_predecessor(self._folder.cluster, self._folder.configuration, self._socket_folder)
        return await Postmaster.start(self._folder, binaries, account, ready_timeout_s=READY_TIMEOUT_S)

    async def _watch(self, account: Account, binaries: Binaries) -> None:
        """Until cancelled: bound the log, and start a postmaster that died (out of memory, a full disk) again."""
        wait_s = 0.0
        while True:
            if not await self._ends_within(LOOK_INTERVAL_S):
                wait_s = 0.0
                await asyncio.to_thread(bound_log, self._folder.log)
                continue
            logger.error("embedded_postgres_ended", log=str(self._folder.log))
            await asyncio.sleep(wait_s)
            wait_s = min(RESTART_WAIT_S_MAX, wait_s * 2 + 1)
            try:
                self._postmaster = await self._start_postmaster(account, binaries)
            except (EmbeddedPostgresFailed, OSError) as error:
                logger.error("embedded_postgres_restart_failed", reason=str(error))
            else:
                logger.info("embedded_postgres_restarted", pid=self._postmaster.pid)

    async def _ends_within(self, patience_s: float) -> bool:
        assert self._postmaster is not None  # noqa: S101 # start made it, and stop ends the watch first
        try:
            await asyncio.wait_for(self._postmaster.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    def _release(self) -> None:
        if self._socket_folder is not None:
            self._folder.leave_socket_folder(self._socket_folder)
        self._socket_folder = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _explain(self, error: OSError) -> str:
        if is_disk_full(error):
            return disk_full(self._folder.root)
        return f"the data folder {self._folder.root} cannot be used: {error}"
