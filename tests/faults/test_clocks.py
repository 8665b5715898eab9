"""Row "clock ±1 h": the relay's, the compactor's and Postgres's wall clocks jump, in turn, under load (I20).

The clock goes an hour ahead and then an hour behind the true time while stock clients type and everything is being
compacted. Order is the log's, and history is whole: the oracle reads every seq from the segments and the tail.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.clock import Clock
from tests.faults.journal import Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.nodes import closed_at_once
from tests.postgres import Cluster
from tests.service import BUSIEST_COMPACTION, compacting, serving
from tests.stored import compactions_of, connecting, head_of
from tests.waiting import until

AN_HOUR_OFF = timedelta(minutes=55)
STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


def farthest_off(log: str) -> timedelta:
    """How far the times of a log are from the true one, at most."""
    now = datetime.fromtimestamp(time.time(), UTC)
    stamps = (datetime.fromisoformat(stamp.replace(" ", "T")).replace(tzinfo=UTC) for stamp in STAMP.findall(log))
    return max((abs(now - stamp) for stamp in stamps), default=timedelta())


@pytest.fixture
def clock(open_folder: Path) -> Clock:
    return Clock(open_folder)


@pytest.mark.parametrize("whose", ["relay", "compactor", "postgres"])
async def test_clock_an_hour_ahead_and_behind_changes_no_order_and_loses_no_history(
    whose: str,
    tmp_path: Path,
    clock: Clock,
    start_cluster: Callable[..., Cluster],
    journal: Journal,
    editors: Editors,
) -> None:
    """I20: every update is where its commit put it, whatever time anybody believes it is."""
    of = {name: clock.environment if name == whose else {} for name in ("relay", "compactor", "postgres")}
    cluster = start_cluster(environment=of["postgres"], settings={"log_timezone": "UTC", "log_checkpoints": "on"})
    cluster.create_template()
    url = cluster.url("migrated")
    relay = {"YDOC_ROOM_IDLE_S": "0", **of["relay"]}
    async with (
        serving(tmp_path, database_url=url, arguments=["--no-compactor"], environment=relay) as service,
        compacting(tmp_path, url, BUSIEST_COMPACTION | of["compactor"]) as compactor,
        connecting(url) as connection,
    ):
        watched = await watch(service)
        async with writing(editors, service.url, journal, count=2) as live:
            await live.goes_on()
            document_id = (await head_of(connection, "doc")).document_id
            for offset in ("+1h", "-1h", "+0"):
                clock.set(offset)
                done = (await compactions_of(connection, document_id)).get("done", 0)

                async def compacted_more(done: int = done) -> bool:
                    return (await compactions_of(connection, document_id)).get("done", 0) > done + 1

                await live.goes_on(20)
                # A line in the relay's log, with its time.
                await closed_at_once(f"{service.url}/no//name")
                await until(compacted_more)
                if whose == "postgres":
                    told = await connection.fetchval("SELECT clock_timestamp()")
                    assert (abs(told - datetime.now(UTC)) > AN_HOUR_OFF) == (offset != "+0")
            if whose != "postgres":
                logs = {"relay": service.log_text, "compactor": compactor.log_text}
                assert farthest_off(logs[whose]()) > AN_HOUR_OFF, "its clock was not moved"
            await live.stop()
            await verify(Scene(url, journal.known(), live.clients, services=[watched]))
