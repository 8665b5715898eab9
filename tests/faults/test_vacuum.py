"""Row "a long transaction holds back vacuum": everything stays correct, and an operator is told.

Somebody's snapshot stays open while stock clients type and everything is compacted: no compaction waits for it, no
row comes back, and readiness says who holds vacuum back, for as long as that lasts and no longer.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.faults.journal import Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.service import BUSIEST_COMPACTION, Service, serving
from tests.stored import compactions_of, connecting, head_of
from tests.waiting import until

SOON = {
    "YDOC_ROOM_IDLE_S": "0",
    "YDOC_VACUUM_HELD_S_MAX": "0.5",
    "YDOC_METRICS_REFRESH_INTERVAL_S": "0.1",
    **BUSIEST_COMPACTION,
}


async def checks(service: Service) -> dict[str, tuple[str, str]]:
    """What readiness says, check by check: verdict and words; it must answer 200 all the while."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{service.port}/health/ready")
    assert answer.status_code == 200, answer.text
    return {check["name"]: (check["status"], check["detail"]) for check in answer.json()["checks"]}


async def test_long_transaction_that_holds_back_vacuum_is_told_and_changes_nothing(
    tmp_path: Path, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I7, I8: compactions go on under somebody's old snapshot; `degraded` names its process, and ends with it."""
    async with (
        serving(tmp_path, database_url=database_url, environment=SOON) as service,
        connecting(database_url) as somebody,
        connecting(database_url) as connection,
    ):
        watched = await watch(service)
        await somebody.execute("SET idle_in_transaction_session_timeout = 0")
        pid = somebody.get_server_pid()

        async def is_told() -> bool:
            verdict, words = (await checks(service))["vacuum"]
            return verdict == "degraded" and f"process {pid}" in words

        async def is_over() -> bool:
            return (await checks(service))["vacuum"][0] == "ready"

        async with writing(editors, service.url, journal, count=2) as live:
            await live.goes_on()
            document_id = (await head_of(connection, "doc")).document_id
            assert await is_over()
            async with somebody.transaction(isolation="repeatable_read"):
                rows = await somebody.fetch("SELECT seq FROM ydoc.updates ORDER BY seq")
                done = (await compactions_of(connection, document_id)).get("done", 0)
                await until(is_told)
                assert (await service.metrics())["ydoc_vacuum_held_seconds"] >= 0.5
                await live.goes_on(20)
                outcomes = await compactions_of(connection, document_id)
                assert (outcomes["done"] > done, outcomes.get("failed", 0)) == (True, 0)
                assert await somebody.fetch("SELECT seq FROM ydoc.updates ORDER BY seq") == rows
            await until(is_over)
            await live.stop()
            await verify(Scene(database_url, journal.known(), live.clients, services=[watched]))
