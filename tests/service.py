"""The real programs as processes of their own: `ydoc-store serve`, `ydoc-compactor run`, and commands that end.

A service is started, stopped in order, killed without warning and started again on the same port. Whatever it
leaves behind (an orphaned Postgres in its data folder) ends with the test. Each process is ready when it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.postgres import BOTH_LOGIN, COMPACTOR_LOGIN, RELAY_LOGIN, url_as
from ydoc_store.embedded.folder import DataFolder
from ydoc_store.embedded.liveness import processes_of

REPOSITORY = Path(__file__).parents[1]
STORE = (sys.executable, "-m", "ydoc_store")
COMPACTOR = (sys.executable, "-c", "from compactor.cli import main; main()")
PORTS_FROM = 20_000
PORTS_A_WORKER = 800
WORKERS_MAX = 15
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
SAMPLE = re.compile(r"^([^#\s].*) (\S+)$", re.MULTILINE)

BUSIEST_COMPACTION = {
    "YDOC_COMPACT_TAIL_ROWS": "1",
    "YDOC_SWEEP_INTERVAL_S": "0.05",
    "YDOC_SWEEP_JITTER_S": "0",
}
"""Every sweep merges whatever is worth it, and sweeps follow each other."""

AT_FULL_SPEED = {"YDOC_CONNECTION_MESSAGES_PER_S": "1000000", "YDOC_CONNECTION_BYTES_PER_S": "1GiB"}
"""One connection may bring a whole history as fast as it is taken."""


def free_port() -> int:
    """A TCP port on the loopback that nobody uses, of those that this worker has to itself: below what Linux gives to
    whoever asks for any, so that nobody is given it before it is listened on."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _ports_of_this_worker() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS_MAX
    first = PORTS_FROM + worker * PORTS_A_WORKER
    return itertools.cycle(range(first, first + PORTS_A_WORKER))


_ports = _ports_of_this_worker()


def clean_environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of ours, and `added`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("YDOC_")}
    return {**inherited, **added}


@dataclass
class Program:
    """One long-running process that says on a line of its output that it is ready."""

    command: Sequence[str]
    ready: re.Pattern[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    async def start(self) -> re.Match[str]:
        """Returns the match of `ready` in what it said; AssertionError, with its log, when it ends before."""
        assert self.process is None, "it runs already"
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=clean_environment(self.environment),
                cwd=REPOSITORY,
                start_new_session=True,
            )
        said = ""
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_TIMEOUT_S):
            while (match := self.ready.search(said)) is None:
                line = await self.process.stdout.readline()
                assert line, f"it ended before it was ready:\n{said}\n{self.log_text()}"
                said += line.decode()
        self._reading = asyncio.create_task(self._read_on(self.process.stdout))
        return match

    async def _read_on(self, output: asyncio.StreamReader) -> None:
        """Into the log, because a process whose pipe is full stands still."""
        with self.log.open("ab") as log:
            while line := await output.readline():
                log.write(line)
                log.flush()

    @property
    def pid(self) -> int:
        assert self.process is not None, "it does not run"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None, "it does not run"
        async with asyncio.timeout(END_TIMEOUT_S):
            code = await self.process.wait()
            if self._reading is not None:
                await self._reading
        self.process = self._reading = None
        return code

    async def stop(self) -> None:
        """SIGTERM, as a supervisor does it; AssertionError unless it ends with 0."""
        self.signal(signal.SIGTERM)
        code = await self.ended()
        assert code == 0, f"it ended with {code}:\n{self.log_text()}"

    async def kill(self) -> None:
        """kill -9, of this process alone."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def clear_away(self) -> None:
        """For a test's end, whatever happened: nothing that it started is left."""
        if self.is_running:
            with contextlib.suppress(TimeoutError):
                self.signal(signal.SIGTERM)
                await self.ended()
        if self.process is not None:
            await self.kill()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")[-20_000:] if self.log.exists() else ""


class Service(Program):
    """A running `ydoc-store serve`, on one port for all its lives."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        super().__init__(
            (*STORE, "serve", "--port", str(self.port), *arguments),
            re.compile(r"^ +health +(\S+/health/ready)", re.MULTILINE),
            log,
            dict(environment or {}),
        )

    async def start(self) -> re.Match[str]:
        """Returns once it says that it serves and its own health check agrees."""
        match = await super().start()
        async with httpx.AsyncClient() as client:
            answer = await client.get(match[1])
        assert answer.status_code == 200, answer.text
        return match

    @property
    def url(self) -> str:
        """What a provider is given: the room's name comes behind it."""
        return f"ws://127.0.0.1:{self.port}/yjs"

    async def restart(self) -> None:
        """Start it again after `stop` or `kill`."""
        await self.start()

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, by its name with labels."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}/metrics")
        answer.raise_for_status()
        return {name: float(value) for name, value in SAMPLE.findall(answer.text)}


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    *,
    database_url: str | None = None,
    data_dir: Path | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Service]:
    """A started service on a given database, or on a data folder of its own; its log goes to `folder`."""
    login = RELAY_LOGIN if "--no-compactor" in arguments else BOTH_LOGIN
    where = ["--database-url", url_as(login, database_url)] if database_url else ["--data-dir", str(data_dir)]
    service = Service([*where, *arguments], folder / f"serve-{os.urandom(4).hex()}.log", environment)
    try:
        await service.start()
        yield service
    finally:
        await service.clear_away()
        if data_dir is not None:
            end_orphans(data_dir)


@contextlib.asynccontextmanager
async def compacting(
    folder: Path, database_url: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """A started `ydoc-compactor run`."""
    log = folder / f"compactor-{os.urandom(4).hex()}.log"
    # It speaks on stderr, which here is the same pipe as stdout.
    database_url = url_as(COMPACTOR_LOGIN, database_url)
    command = ("sh", "-c", 'exec "$@" 2>&1', "sh", *COMPACTOR, "run", "--database-url", database_url)
    program = Program(command, re.compile(r"\bsweeping\b"), log, dict(environment or {}))
    try:
        await program.start()
        yield program
    finally:
        await program.clear_away()


def end_orphans(data_dir: Path) -> None:
    """End the Postgres that a killed service left in its data folder."""
    cluster = DataFolder(data_dir.resolve()).cluster
    if cluster.exists():
        for pid in processes_of(cluster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command came to."""

    exit_code: int
    output: str
    messages: str


async def run(
    *command: str | Path, cwd: Path = REPOSITORY, environment: Mapping[str, str] | None = None, timeout_s: float = 120
) -> Ended:
    """A command that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=clean_environment(environment or {}),
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, messages = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), messages.decode())


async def verify(database_url: str) -> Ended:
    """`ydoc-store verify --all` on a database."""
    return await run(*STORE, "verify", "--all", "--database-url", database_url)
