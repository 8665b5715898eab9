"""Taking the port: before anything else is started, so that a taken one is told at once and with its owner; and
the files that connections on it may take.

Who owns a port is asked of the system, as far as it tells this account; a wrong guess is worse than none. What is
served on the sockets is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ydoc_store.auth.open_mode import check_bind
from ydoc_store.errors import SettingInvalid
from ydoc_store.logs import logger

# Files beside the connections: the database's, the compactor's child, handshakes under way, the system's own.
FILES_KEPT = 512
# asyncio tries again after one second; two without a word mean that it was let in.
ACCEPTING_AGAIN_S = 2.5

_LISTENING = "0A"
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logger(__name__)


def bind(host: str, port: int, *, has_identities: bool) -> list[socket.socket]:
    """One bound socket for each address of `host`, all on the same port, none listening yet; close them yourself.

    Raises SettingInvalid: an address that an open server may not use, a name that means nothing here, or a port
    that is taken (with its owner, where the system tells) or needs privileges.
    """
    check_bind(host, has_identities=has_identities)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SettingInvalid(f"--host {host!r}: {error.strerror}") from None
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            # a name such as localhost may mean another machine where /etc/hosts was edited
            check_bind(str(address[0]), has_identities=has_identities)
            taken = socket.socket(family, kind, protocol)
            undo.callback(taken.close)
            _bind_one(taken, str(address[0]), port or (sockets[0].getsockname()[1] if sockets else 0))
            sockets.append(taken)
        undo.pop_all()
    return sockets


def _bind_one(taken: socket.socket, address: str, port: int) -> None:
    # Without it a restart would wait for the old connections' TIME_WAIT.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if taken.family == socket.AF_INET6:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        # SO_REUSEADDR lets two sockets bind, and only listening tells that the port is ours. Listening now for good
        # would take connections that nobody answers yet, so another socket tries it for a moment.
        with socket.socket(taken.family, taken.type) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if taken.family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind((address, port))
            trial.bind(taken.getsockname())
            trial.listen(1)
    except OSError as error:
        raise SettingInvalid(_explain(error, address, port)) from None


def _explain(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = owner_of(port)
        return f"port {port} is taken{' by ' + owner if owner else ''}: choose another with --port (YDOC_PORT)"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one from 1024 on with --port (YDOC_PORT)"
    return f"cannot listen on {address} port {port}: {error.strerror}"


def owner_of(port: int) -> str | None:
    """Who listens on this TCP port, as `name (process 123)`; None when the system does not tell this account."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        return _owner_by_proc(port) if sys.platform == "linux" else _owner_by_lsof(port)
    return None


def _owner_by_proc(port: int) -> str | None:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        # other accounts' processes are closed to us, and any may end while we look
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                if str(file.readlink()) in inodes:
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"{name} (process {process.name})"
    return "a process of another account"


def _owner_by_lsof(port: int) -> str | None:
    program = shutil.which("lsof")
    if program is None:
        return None
    answer = subprocess.run(  # noqa: S603 # a fixed program with a number as its only variable part
        [program, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],
        capture_output=True,
        text=True,
        timeout=3,
        check=False,
    )
    fields = {line[:1]: line[1:] for line in answer.stdout.splitlines()}
    return f"{fields['c']} (process {fields['p']})" if "c" in fields and "p" in fields else None


def raise_file_limit(connections_max: int) -> int:
    """Let this process open a file for each connection, as far as its hard limit allows.

    Returns how many connections that leaves room for: what goes beyond is told so (1013), and never takes the file
    with which the database is connected to again.
    """
    wanted = connections_max + FILES_KEPT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections_max
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # macOS refuses values above its own maximum, whatever the hard limit says
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = ceiling
    # Where so few files are allowed, a quarter of them is kept.
    return min(connections_max, max(1, soft - min(FILES_KEPT, soft // 4)))


class AcceptWatch:
    """An exception handler of the event loop that tells of a pause in accepting once, and once of its end.

    Without a free file asyncio leaves the connection in the kernel's queue and tries again every second, each time
    with a traceback. Members that are connected do not notice.
    """

    def __init__(self) -> None:
        self._quiet: asyncio.TimerHandle | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NONE_LEFT or "socket" not in context:
            loop.default_exception_handler(context)
            return
        if self._quiet is None:
            log.error("accepting is paused until a socket is closed", reason=error.strerror)
        else:
            self._quiet.cancel()
        self._quiet = loop.call_later(ACCEPTING_AGAIN_S, self._accepting_again)

    def _accepting_again(self) -> None:
        self._quiet = None
        log.info("accepting again")


def authority(sockets: list[socket.socket]) -> str:
    """`host:port` for a URL on this machine; an address that means every interface is shown as the loopback's."""
    address, port = sockets[0].getsockname()[:2]
    if address in ("0.0.0.0", "::"):  # noqa: S104 # compared, not bound
        address = "127.0.0.1" if sockets[0].family == socket.AF_INET else "::1"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
