"""Taking the port: whose it is when it is taken, and which addresses an open server may have."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ydoc_store import listening
from ydoc_store.errors import SettingInvalid


@contextmanager
def bound(host: str, port: int, *, open_to_network: bool = False) -> Iterator[list[socket.socket]]:
    sockets = listening.bind(host, port, open_to_network=open_to_network)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


def test_a_port_of_the_systems_choice_is_one_port_for_every_address() -> None:
    with bound("localhost", 0) as sockets:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert listening.authority(sockets).endswith(f":{sockets[0].getsockname()[1]}")


def test_a_taken_port_is_named_with_its_owner_and_the_flag(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(SettingInvalid) as caught:
        listening.bind("127.0.0.1", free_port, open_to_network=False)
    told = str(caught.value)
    assert f"port {free_port} is taken by " in told
    assert f"(process {os.getpid()})" in told
    assert "--port" in told


def test_a_port_that_nobody_has_has_no_owner(free_port: int) -> None:
    assert listening.owner_of(free_port) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_open_server_takes_no_address_of_the_network(host: str) -> None:
    with pytest.raises(SettingInvalid, match="--open-to-network"):
        listening.bind(host, 0, open_to_network=False)


def test_an_address_of_another_machine_is_told_as_such() -> None:
    with pytest.raises(SettingInvalid, match=r"192\.0\.2\.1"):
        listening.bind("192.0.2.1", 0, open_to_network=True)


def test_a_host_that_means_nothing_is_told_as_such() -> None:
    with pytest.raises(SettingInvalid, match="--host"):
        listening.bind("no such host", 0, open_to_network=True)


def test_every_interface_is_shown_as_this_machine() -> None:
    with bound("0.0.0.0", 0, open_to_network=True) as sockets:
        assert listening.authority(sockets).startswith("127.0.0.1:")


def test_nothing_stays_bound_after_a_refusal(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(SettingInvalid):
        listening.bind("127.0.0.1", free_port, open_to_network=False)
    with bound("127.0.0.1", free_port):
        pass


def test_a_bound_port_takes_no_connection_before_somebody_answers_it(free_port: int) -> None:
    with bound("127.0.0.1", free_port), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port))


def test_the_file_limit_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        listening.raise_file_limit(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 612
        listening.raise_file_limit(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 612, "a limit is never lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
