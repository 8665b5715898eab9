"""A peer that vanishes without a word: a laptop that sleeps, a cable that is pulled. No FIN ever comes.

The kernel would keep such a socket for a quarter of an hour. The keepalives find it out, and nobody is shown as
present for longer than stock clients show each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.journal import Journal, marked
from tests.faults.namespace import Namespace, a_network_of_its_own
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.faults.writing import until_within
from tests.nodes import Editor
from tests.service import Service, serving
from tests.tokens import SECRET, token
from tests.waiting import until

# Other addresses than loopback are listened on only where somebody decides who may.
AT_ONCE = {"YDOC_ROOM_IDLE_S": "0", "YDOC_JWT_SECRET": SECRET}
SLOW_MEMBER_S = 1.5
KEEPALIVE_S = 0.5
AWARENESS_S = 15.5
# For ticks of a second, and for what a machine that runs other tests takes on top.
SLACK_S = 6.0
PRESENT = '{"name":"Ann","user":{"id":"ann"}}'


@pytest.fixture
def far() -> Iterator[Namespace]:
    with a_network_of_its_own() as namespace:
        yield namespace


def url(host: str, service: Service) -> str:
    return f"ws://{host}:{service.port}/yjs/doc?token={token('ann')}"


async def connected(service: Service) -> float:
    return (await service.metrics())['ydoc_connections{dialect="y-websocket"}']


async def test_vanished_peer_is_noticed_within_twice_slow_member_s_and_the_others_type_on(
    tmp_path: Path, database_url: str, journal: Journal, far: Namespace
) -> None:
    """I15, I16: its socket ends, its presence goes with it; what it had sent is stored, and nobody waited for it."""
    settings = {
        **AT_ONCE,
        "YDOC_SLOW_MEMBER_S": str(SLOW_MEMBER_S),
        "YDOC_KEEPALIVE_INTERVAL_S": str(KEEPALIVE_S),
    }
    # Every address, because the watching member and the metrics come over the loopback.
    arguments = ["--host", "0.0.0.0", "--no-compactor"]
    async with serving(tmp_path, database_url=database_url, arguments=arguments, environment=settings) as service:
        watched = await watch(service)
        ben = await Editor.open_synced(url("127.0.0.1", service))
        ann = await open_far(far, service)
        journal.attempted("doc", "ann.0")
        await ann.type(marked("ann.0"))
        await ann.show(1)
        await ben.shows(marked("ann.0"))
        journal.acked("doc", "ann.0")
        await ben.sees(ann.doc.client_id, PRESENT)
        assert await connected(service) == 2
        vanished_s = time.monotonic()
        far.pull_the_cable()
        journal.attempted("doc", "ben.0")
        await ben.type(marked("ben.0"))
        await ben.sees(ann.doc.client_id, None)
        took_s = time.monotonic() - vanished_s
        assert SLOW_MEMBER_S < took_s < 2 * SLOW_MEMBER_S + 2 * KEEPALIVE_S + SLACK_S, f"noticed after {took_s:.1f} s"
        await until(lambda: is_alone(service))
        await ann.vanish()
        await verify(Scene(database_url, journal.known(), {"doc": [ben]}, services=[watched]))


async def is_alone(service: Service) -> bool:
    return await connected(service) == 1


async def open_far(far: Namespace, service: Service) -> Editor:
    editor = await Editor.open(url(far.here, service), sock=await far.connect(service.port))
    await editor.synced()
    return editor


async def test_vanished_peers_presence_goes_after_awareness_timeout_s_though_its_socket_is_there_still(
    tmp_path: Path, database_url: str, far: Namespace
) -> None:
    """I15: the others see it leave when it did not renew its presence, however long the socket takes to be noticed."""
    settings = {**AT_ONCE, "YDOC_AWARENESS_TIMEOUT_S": str(AWARENESS_S), "YDOC_DRAIN_TIMEOUT_S": "1"}
    arguments = ["--host", "0.0.0.0", "--no-compactor"]
    async with serving(tmp_path, database_url=database_url, arguments=arguments, environment=settings) as service:
        ben, ann = await Editor.open_synced(url("127.0.0.1", service)), await open_far(far, service)
        await ann.show(1)
        shown_s = time.monotonic()
        await ben.sees(ann.doc.client_id, PRESENT)
        far.pull_the_cable()
        await until_within(AWARENESS_S + SLACK_S, lambda: is_gone(ben, ann))
        took_s = time.monotonic() - shown_s
        assert took_s > AWARENESS_S - 1, f"forgotten after {took_s:.1f} s"
        assert await connected(service) == 2, "its socket was noticed first: nothing was tested"
        await ann.vanish()
        # The service is not asked what it is left with: it keeps the vanished socket for 2 x YDOC_SLOW_MEMBER_S.
        await verify(Scene(database_url, {}, {"doc": [ben]}))


def is_gone(ben: Editor, ann: Editor) -> bool:
    return ben.presence[ann.doc.client_id].state_json is None
