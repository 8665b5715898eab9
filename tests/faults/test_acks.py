"""What stock Hocuspocus providers were told is saved, held against what is stored, under `kill -9` of everything.

Here a marker counts as acked when its own editor says that nothing is unsynced: the real ack, nobody else has to see
it. The editors of a round go with it, so that nobody can bring back what was lost.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.journal import Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import start_again, watch
from tests.interop.editors import Editor, Editors, editing
from tests.postgres import Cluster
from tests.service import Service, serving
from tests.waiting import until

AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
EVERY_MS = 3
# Slow enough that everything is saved between two of them.
SLOWLY_MS = 25
# Each round types for up to so long before everything dies.
ROUND_S = (0.3, 1.2)


async def mark(
    editors: Editors,
    service: Service,
    journal: Journal,
    document: str,
    version: int,
    prefix: str,
    every_ms: int = EVERY_MS,
) -> Editor:
    """An editor that marks what it types, and notes what it was told is saved."""
    url = service.url.removesuffix("/yjs") + "/hocuspocus"
    editor = await editors.open_hocuspocus(url, document, version=version)
    await editor.note_saved(journal.path)
    await editor.saved()
    await editor.keep_marking(journal.path, prefix, every_ms)
    return editor


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])])
async def test_what_was_called_saved_outlives_the_end_of_the_relay_and_of_postgres_under_load(
    tmp_path: Path, mortal_cluster: Cluster, journal: Journal, rounds: int
) -> None:
    """I1: acked ⊆ stored ⊆ attempted, and nothing twice."""
    url = mortal_cluster.url("migrated")
    async with serving(tmp_path, database_url=url, environment=AT_ONCE) as service:
        for number in range(rounds):
            async with editing() as editors:
                for who, (document, version) in enumerate((("both", 3), ("both", 4), ("alone", 4), ("alone", 2))):
                    await mark(editors, service, journal, document, version, f"r{number}-{who}")
                await asyncio.sleep(random.uniform(*ROUND_S))
                await service.kill()
                mortal_cluster.kill()
                await editors.kill()
            await start_again(mortal_cluster)
            await service.restart()
            await verify(Scene(url, journal.known()))
        await verify(Scene(url, journal.known(), services=[await watch(service)]))
    acked = sum(entry.kind == "acked" for entry in journal.entries())
    attempted = sum(entry.kind == "attempted" for entry in journal.entries())
    print(f"{rounds} rounds: {attempted} markers typed, {acked} called saved, 0 lost")
    assert acked > 20 * rounds


@pytest.mark.parametrize("version", [3, 4])
async def test_what_was_called_saved_after_a_reconnect_outlives_the_next_end(
    tmp_path: Path, mortal_cluster: Cluster, journal: Journal, version: int
) -> None:
    """I1: edits typed while there was no connection come one by one, and the first is not everything."""
    url = mortal_cluster.url("migrated")
    async with serving(tmp_path, database_url=url, environment=AT_ONCE) as service:
        async with editing() as editors:
            editor = await mark(editors, service, journal, "notes", version, "r", SLOWLY_MS)
            await service.kill()
            await editor.ask("untilCloses", count=1)
            await service.restart()
            begin = journal.end

            def is_called_saved() -> bool:
                return any(entry.kind == "acked" for entry in journal.entries(begin))

            await until(is_called_saved)
            await service.kill()
            mortal_cluster.kill()
            await editors.kill()
        await start_again(mortal_cluster)
        await service.restart()
        await verify(Scene(url, journal.known()))
