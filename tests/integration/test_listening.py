"""Taking the port: whose it is when it is taken, and which addresses an open server may have."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from tests.waiting import until
from ydoc_store import listening
from ydoc_store.errors import SettingInvalid


@contextmanager
def bound(host: str, port: int, *, has_identities: bool = False) -> Iterator[list[socket.socket]]:
    sockets = listening.bind(host, port, has_identities=has_identities)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


ASK_UNDER_LIMIT = """
import resource, sys
from ydoc_store.listening import raise_file_limit
files = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 256), files))
print(raise_file_limit(10_000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_port_of_the_systems_choice_is_one_port_for_every_address() -> None:
    with bound("localhost", 0) as sockets:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert listening.authority(sockets).endswith(f":{sockets[0].getsockname()[1]}")


def test_a_taken_port_is_named_with_its_owner_and_the_flag(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(SettingInvalid) as caught:
        listening.bind("127.0.0.1", free_port, has_identities=False)
    told = str(caught.value)
    assert f"port {free_port} is taken by " in told
    assert f"(process {os.getpid()})" in told
    assert "--port" in told


def test_a_port_that_nobody_has_has_no_owner(free_port: int) -> None:
    assert listening.owner_of(free_port) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_open_server_takes_no_address_of_the_network(host: str) -> None:
    with pytest.raises(SettingInvalid, match="YDOC_JWT_SECRET"):
        listening.bind(host, 0, has_identities=False)


def test_an_address_of_another_machine_is_told_as_such() -> None:
    with pytest.raises(SettingInvalid, match=r"192\.0\.2\.1"):
        listening.bind("192.0.2.1", 0, has_identities=True)


def test_a_host_that_means_nothing_is_told_as_such() -> None:
    with pytest.raises(SettingInvalid, match="--host"):
        listening.bind("no such host", 0, has_identities=True)


def test_every_interface_is_shown_as_this_machine() -> None:
    with bound("0.0.0.0", 0, has_identities=True) as sockets:
        assert listening.authority(sockets).startswith("127.0.0.1:")


def test_nothing_stays_bound_after_a_refusal(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(SettingInvalid):
        listening.bind("127.0.0.1", free_port, has_identities=False)
    with bound("127.0.0.1", free_port):
        pass


def test_a_bound_port_takes_no_connection_before_somebody_answers_it(free_port: int) -> None:
    with bound("127.0.0.1", free_port), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port))


def test_the_file_limit_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert listening.raise_file_limit(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 612
        assert listening.raise_file_limit(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 612, "a limit is never lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("files", "connections"), [(256, 192), (1_024, 768), (4_096, 3_584)])
def test_a_hard_file_limit_leaves_fewer_connections_and_keeps_files_for_the_database(
    files: int, connections: int
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", ASK_UNDER_LIMIT, str(files)], check=True, capture_output=True, text=True
    )
    assert told.stdout.split() == [str(connections), str(files)]


async def test_a_pause_in_accepting_is_told_once_and_other_trouble_is_left_to_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "ACCEPTING_AGAIN_S", 0.05)
    loop = asyncio.get_running_loop()
    left: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "default_exception_handler", left.append)
    watch = listening.AcceptWatch()
    none_left = {"message": "", "socket": None, "exception": OSError(errno.EMFILE, "Too many open files")}
    with structlog.testing.capture_logs() as told:
        for _ in range(100):
            watch(loop, none_left)
        watch(loop, {"message": "another"})
        await until(lambda: len(told) == 2)
        watch(loop, none_left)
    assert [line["event"] for line in told] == [
        "accepting is paused until a socket is closed",
        "accepting again",
        "accepting is paused until a socket is closed",
    ]
    assert left == [{"message": "another"}]
    await until(lambda: watch._quiet is None)
