"""A network of its own for one peer: a cable that can be pulled, with nobody left at the other end to say so.

The peer's sockets are opened by this process inside the namespace and work like any other afterwards. Root's rights
are needed, and `ip` of iproute2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/run/netns")


class Namespace:
    """One host that is reached at `peer`, from this one at `here`."""

    def __init__(self, number: int) -> None:
        self.name = f"ydoc-{number}"
        self.device = f"ydoc{number}"
        self.here = f"10.213.{number % 250}.1"
        self.peer = f"10.213.{number % 250}.2"

    def make(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self.device, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _ip("address", "add", f"{self.here}/24", "dev", self.device)
        _ip("link", "set", self.device, "up")
        _ip("-n", self.name, "address", "add", f"{self.peer}/24", "dev", "cable")
        _ip("-n", self.name, "link", "set", "cable", "up")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self.device)
        _ip("netns", "delete", self.name)

    def pull_the_cable(self) -> None:
        """Nothing arrives from here on in either direction: no FIN, no reset, no answer of a router."""
        _ip("-n", self.name, "link", "set", "cable", "down")

    async def connect(self, port: int) -> socket.socket:
        """A socket of the peer, connected to this port of `here`."""
        return await asyncio.to_thread(self._connect, port)

    def _connect(self, port: int) -> socket.socket:
        made: list[socket.socket] = []

        def inside() -> None:
            # Of this thread alone, which ends with it.
            with (NAMESPACES / self.name).open() as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
            made.append(socket.create_connection((self.here, port), timeout=20))

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        made[0].settimeout(0)
        return made[0]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def a_network_of_its_own() -> Iterator[Namespace]:
    """A namespace with one host, until the block ends."""
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
    if shutil.which("ip") is None:
        pytest.skip("absent: ip (Debian's package iproute2)")
    # The process id, so that two runs on one machine do not meet.
    namespace = Namespace(os.getpid())
    namespace.make()
    try:
        yield namespace
    finally:
        namespace.remove()
