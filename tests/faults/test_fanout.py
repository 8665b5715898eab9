"""Row "fan-out drops, doubles, reorders, delays; listener killed; NOTIFY queue full" (I5): appends do not notice.

A shim stands between a node's LISTEN and its rooms. Hints cost latency up to the poll interval, never data, never
order, over a change of epoch too: a hint of the old document means nothing to the room of the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.faults.journal import Journal, Known, marked, markers_in
from tests.faults.oracle import Scene, verify
from tests.faults.processes import LISTENING, backends
from tests.faults.test_vacuum import checks
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.nodes import Editor, Node, running_node
from tests.postgres import Cluster
from tests.service import serving
from tests.stored import connecting
from tests.waiting import until
from ydoc_store.fanout.hints import LogHint

Pair = tuple[Node, Node]

RECREATE = """
WITH old AS (
    UPDATE ydoc.documents SET replaced_at = now() WHERE name = 'doc' AND replaced_at IS NULL
    RETURNING tenant, name, epoch
)
INSERT INTO ydoc.documents (tenant, name, epoch, marker)
SELECT o.tenant, o.name, o.epoch + 1, 9007199237963776 + o.epoch FROM old AS o
"""


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[Pair]:
    async with running_node(database_url, room_idle_s=0) as here, running_node(database_url, room_idle_s=0) as there:
        yield here, there


def url_of(node: Node) -> str:
    return node.url("").rstrip("/")


class BadHints:
    """Between a node's listener and its rooms: loses, doubles, reorders hints, and holds each for up to `delay_s`."""

    def __init__(self, node: Node, seed: int, delay_s: float) -> None:
        self._real = node.service.fanout.on_log
        self._random = random.Random(seed)
        self._delay_s = delay_s
        self._timers: set[asyncio.TimerHandle] = set()
        self.heard = self.late = 0
        node.service.fanout.on_log = self

    def __call__(self, hint: LogHint) -> None:
        self.heard += 1
        for _ in range(self._random.choice((0, 1, 1, 2, 3))):
            # Its own delay for each: whatever was said later may come first.
            delay_s = self._random.random() ** 2 * self._delay_s
            self._timers.add(asyncio.get_running_loop().call_later(delay_s, self._say, hint))

    def _say(self, hint: LogHint) -> None:
        self.late += 1
        self._real(hint)

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()


async def type_under_bad_hints(
    nodes: Pair, database_url: str, journal: Journal, editors: Editors, *, seconds: float, delay_s: float
) -> None:
    here, there = nodes
    shims = [BadHints(node, seed, delay_s) for seed, node in enumerate(nodes)]
    async with writing(editors, url_of(here), journal, reader_url=url_of(there), count=2) as live:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await live.goes_on(20)
        await live.stop()
        for shim in shims:
            shim.stop()
        assert shims[1].heard > 10
        assert shims[1].late > 10
        await verify(Scene(database_url, journal.known(), live.clients, nodes=nodes))


async def test_fanout_that_drops_doubles_and_reorders_costs_latency_alone(
    nodes: Pair, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I5: hints up to two poll intervals late."""
    await type_under_bad_hints(nodes, database_url, journal, editors, seconds=3, delay_s=2)


@pytest.mark.long
async def test_fanout_that_is_up_to_30_s_late_costs_latency_alone(
    nodes: Pair, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I5: for a minute, so that most hints come after the poll has long found what they tell of."""
    await type_under_bad_hints(nodes, database_url, journal, editors, seconds=60, delay_s=30)


async def test_fanout_hints_of_an_old_epoch_reach_no_room_of_the_new_one(
    nodes: Pair, database_url: str, journal: Journal
) -> None:
    """I5, I10: held until the document was recreated and is open again: the new room neither takes nor shows them."""
    here, there = nodes
    held: list[LogHint] = []
    real, there.service.fanout.on_log = there.service.fanout.on_log, held.append
    ann, ben = await Editor.open_synced(here.url("doc")), await Editor.open_synced(there.url("doc"))
    for number in range(5):
        await ann.type(marked(f"old.{number}"))
    await ben.until(lambda: len(list(markers_in(ben.text))) == 5)
    await until(lambda: sum(hint.count for hint in held) >= 5)
    async with connecting(database_url) as connection:
        await connection.execute(RECREATE)
    assert {(await editor.closed())[0] for editor in (ann, ben)} == {4409}
    new_ann, new_ben = await Editor.open_synced(here.url("doc")), await Editor.open_synced(there.url("doc"))
    await new_ann.type(marked("new.0"))
    await new_ben.shows(marked("new.0"))
    room = there.room("doc")
    for hint in [*held, *reversed(held)]:
        real(hint)
    await new_ann.type(marked("new.1"))
    await new_ben.shows(marked("new.0") + marked("new.1"))
    assert there.room("doc") is room
    known = {"doc": Known({"new.0", "new.1"}, {"new.0", "new.1"})}
    await verify(Scene(database_url, known, {"doc": [new_ann, new_ben]}, nodes=nodes))


async def test_fanout_listener_whose_backend_is_killed_is_replaced_and_nothing_is_missed(
    nodes: Pair, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I5, I21: both nodes lose their listeners three times, while everyone types."""
    here, there = nodes
    async with (
        connecting(database_url) as connection,
        writing(editors, url_of(here), journal, reader_url=url_of(there), count=2) as live,
    ):
        await live.goes_on()
        failed_before = here.count('ydoc_updates_total{dialect="y-websocket",result="failed"}')
        for _ in range(3):
            await until(lambda: has_listeners(connection, 2))
            await connection.execute(END_LISTENERS, LISTENING)
            await live.goes_on()
        assert here.count('ydoc_updates_total{dialect="y-websocket",result="failed"}') == failed_before
        await live.stop()
        await verify(Scene(database_url, journal.known(), live.clients, nodes=nodes))


END_LISTENERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'ydoc-store' AND query LIKE $1
"""


async def has_listeners(connection: asyncpg.Connection, count: int) -> bool:
    return len(await backends(connection, LISTENING)) >= count


FILL = "SELECT pg_notify('anything', repeat(n::text, 1900)) FROM generate_series(1000, 1020) AS n"


async def test_fanout_with_a_full_notification_queue_leaves_hints_out_and_says_so(
    tmp_path: Path, start_cluster: Callable[..., Cluster], journal: Journal, editors: Editors
) -> None:
    """I5, I21: somebody listens in an open transaction until nothing fits: appends go on, readiness is degraded."""
    cluster = start_cluster()
    cluster.create_template()
    async with connecting(cluster.url()) as connection:
        if not await connection.fetchval("SELECT count(*) FROM pg_settings WHERE name = 'max_notify_queue_pages'"):
            pytest.skip("absent: max_notify_queue_pages (this Postgres's queue takes 8 GiB to fill)")
    cluster.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    cluster.stop()
    cluster.start()
    url = cluster.url("migrated")
    nodes = {"database_url": url, "environment": {"YDOC_ROOM_IDLE_S": "0"}, "arguments": ["--no-compactor"]}
    async with (
        serving(tmp_path, **nodes) as here,
        serving(tmp_path, **nodes) as there,
        connecting(url) as laggard,
        writing(editors, here.url, journal, reader_url=there.url) as live,
    ):
        await live.goes_on()
        await laggard.execute("LISTEN anything")
        transaction = laggard.transaction()
        await transaction.start()
        await laggard.execute("SELECT 1")
        async with connecting(url) as filler:
            for filling in (FILL, "SELECT pg_notify('anything', 'x')"):
                with contextlib.suppress(asyncpg.ProgramLimitExceededError):
                    while True:
                        await filler.execute(filling)

        async def is_told() -> bool:
            return (await checks(here))["fan-out"][0] == "degraded"

        async def is_over() -> bool:
            return (await checks(here))["fan-out"][0] == "ready"

        await until(is_told)
        assert (await here.metrics())["ydoc_notification_queue_usage"] > 0.9
        assert here.log_text().count("hints are left out: the notification queue fills") == 1
        failed = (await here.metrics())['ydoc_updates_total{dialect="y-websocket",result="failed"}']
        assert failed == 0
        await live.goes_on(20)
        await transaction.rollback()
        await laggard.execute("UNLISTEN *")
        await until(is_over)
        await live.goes_on()
        await live.stop()
        await verify(Scene(url, journal.known(), live.clients))
