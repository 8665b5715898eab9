"""Throw-away Postgres clusters for tests: started in well under a second, gone afterwards without a trace.

By default the programs of the embedded package run; YDOC_TEST_POSTGRES_BIN names another folder of programs
(Debian's PostgreSQL 15, for example). A cluster listens on a Unix socket in a short path only. Unless it is asked
to be durable it does not sync to disk, since it never outlives its test run, and where memory has room it lies there:
on a disk the files of each new database wait for what other tests sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from ydoc_store.embedded.account import Account, choose_account
from ydoc_store.embedded.binaries import Binaries, in_folder, packaged, reachable
from ydoc_store.embedded.liveness import processes_of
from ydoc_store.storage.migrate import migrate
from ydoc_store.storage.roles import Roles, grant_sql
from ydoc_store.units import GIB

USER = "ydoc"
TEMPLATE = "migrated"
START_TIMEOUT_S = 30.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # What the log of a cluster in memory takes of it.
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    # In its own folder, which goes with it: what is killed for good leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    # A test that leaves a transaction open fails at its own time-out, not at the next test's DROP DATABASE.
    "idle_in_transaction_session_timeout": "60s",
}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
MEMORY = Path("/dev/shm")
# Each worker of a test run has a cluster of some 0.4 GiB.
MEMORY_FREE_BYTES_MIN = 2 * GIB
# Programs under test then log in as members of the roles of `grant-sql`; the tests' own looks are the superuser's.
IS_LEAST_PRIVILEGE = os.environ.get("YDOC_TEST_LEAST_PRIVILEGE") == "1"
RELAY_LOGIN = "relay_login"
COMPACTOR_LOGIN = "compactor_login"
BOTH_LOGIN = "relay_and_compactor_login"
CREATE_LOGINS = f"""
CREATE ROLE {RELAY_LOGIN} LOGIN IN ROLE ydoc_relay;
CREATE ROLE {COMPACTOR_LOGIN} LOGIN IN ROLE ydoc_compactor;
CREATE ROLE {BOTH_LOGIN} LOGIN IN ROLE ydoc_relay, ydoc_compactor;
"""
# Ends when its stdin does, which is when the test run ends, however it ends; then it clears up what is left.
GUARDIAN = """
read -r _
[ -e "$0/data/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")"
rm -rf "$0"
"""

T = TypeVar("T")
_serial = itertools.count(1)


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, from a loop in a thread of its own: a fixture never meddles with a test's loop."""
    outcome: list[T] = []
    trouble: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return outcome[0]


def url_as(login: str, url: str) -> str:
    """A database's URL for this login, where the programs under test run with the least that they need."""
    if not IS_LEAST_PRIVILEGE:
        return url
    assert f"//{USER}@" in url or "_login@" in url, "neither the superuser's nor a login's of the roles"
    return url.replace(f"//{USER}@", f"//{login}@")


def chosen_binaries() -> Binaries:
    """The programs that this test run is about."""
    named = os.environ.get("YDOC_TEST_POSTGRES_BIN")
    return in_folder(Path(named)) if named else packaged()


def parent_folder(*, durable: bool) -> Path:
    """Where a cluster is made. Not below TMPDIR: a Unix socket's path may have 107 bytes (103 on macOS)."""
    if durable or not MEMORY.is_dir():
        return Path("/tmp")
    room = os.statvfs(MEMORY)
    # Postgres's own programs may have to be copied there to be run.
    is_fit = room.f_bavail * room.f_frsize >= MEMORY_FREE_BYTES_MIN and not room.f_flag & os.ST_NOEXEC
    return MEMORY if is_fit else Path("/tmp")


class Cluster:
    """One throw-away cluster: `start`, `kill`, `start` again, and `remove` at the end."""

    def __init__(
        self,
        binaries: Binaries,
        *,
        durable: bool = False,
        settings: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir=parent_folder(durable=durable)))
        self.account: Account = choose_account(self.folder / "data")
        if self.account.is_other:
            os.chown(self.folder, self.account.uid, self.account.gid)
        self.binaries = reachable(binaries, self.account, self.folder)
        self.settings = SETTINGS | ({} if durable else NOT_DURABLE) | (settings or {})
        # A copy of files costs half of what a copy through the log does, but for the checkpoint before it.
        self._copying = "wal_log" if durable else "file_copy"
        self.environment = {"LC_ALL": "C"} | (environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, str(self.folder)], stdin=subprocess.PIPE, cwd="/", start_new_session=True
        )
        self._initdb()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the postmaster ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Returns when connections are accepted."""
        command = [self.binaries.program("postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environment,
                start_new_session=True,
                **self.account.spawn_as(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Postgres did not start:\n{self.log()}")
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, SIGQUIT an immediate one (recovery follows), SIGKILL the worst case."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        self._process.wait(timeout=START_TIMEOUT_S)
        self._process = None

    def kill(self) -> None:
        """The postmaster at once, its processes after it; what was committed is on the disk of a durable cluster."""
        self.stop(signal.SIGKILL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while processes_of(self.folder / "data"):
            assert time.monotonic() < deadline, "a backend outlives its killed postmaster"
            time.sleep(0.01)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._guardian.communicate()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def create_template(self) -> None:
        """The database that `create_database` copies: migrated once."""
        run_apart(self._create_template())

    def create_database(self, template: str = TEMPLATE) -> str:
        """The name of a new database, a copy of the migrated one."""
        name = f"test_{next(_serial)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {self._copying}')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, sql: str, database: str = "postgres") -> None:
        run_apart(self._execute(sql, database))

    async def _execute(self, sql: str, database: str) -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def _create_template(self) -> None:
        await self._execute(f'CREATE DATABASE "{TEMPLATE}"', "postgres")
        connection = await asyncpg.connect(self.url(TEMPLATE))
        try:
            await migrate(connection)
            if IS_LEAST_PRIVILEGE:
                await connection.execute(grant_sql(Roles()))
                await connection.execute(CREATE_LOGINS)
        finally:
            await connection.close()

    def _initdb(self) -> None:
        command = [self.binaries.program("initdb"), "-D", str(self.folder / "data"), "-U", USER, "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"LC_ALL": "C"},
            **self.account.spawn_as(),
        )
        assert done.returncode == 0, done.stderr

    def _is_ready(self) -> bool:
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a killed predecessor may still say ready.
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


@contextlib.contextmanager
def running_cluster(
    *, durable: bool = False, settings: dict[str, str] | None = None, environment: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """A started cluster, removed at the end."""
    cluster = Cluster(chosen_binaries(), durable=durable, settings=settings, environment=environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
