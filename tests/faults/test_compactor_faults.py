"""Compactors killed at each step, paused and overtaken, and several at once, while people edit (I7, I8, I9, I21).

The compactors are processes of their own. Editors type, erase and disagree meanwhile, and one update waits all the
time for a predecessor that comes last: what a compaction changed would show in Yjs, in pycrdt, or in what is pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.journal import Known, marked
from tests.faults.oracle import Scene, verify
from tests.faults.processes import paused
from tests.log_rows import Writer
from tests.nodes import Editor, Node, running_node
from tests.service import BUSIEST_COMPACTION, compacting
from tests.stored import compactions_of, connecting, head_of
from tests.waiting import until
from ydoc_store.failpoints import STEPS
from ydoc_store.yjs.messages import encode_update

if TYPE_CHECKING:
    from tests.stored import Connection

COMPACTION_STEPS = [step for step in STEPS if step.startswith("compaction.")]
ROOM = "doc"
TYPED_EVERY_S = 0.005
# A compactor that is away for longer is found out by Postgres, by the idle time-out of its transaction.
IMPATIENT = {"YDOC_COMPACT_TIMEOUT_S": "1"}
SERVED_WITHIN_S = 5.0
GOES_ON_TIMEOUT_S = 90.0
# Between the last thing that a compactor says before its fold and the first behind it.
FOLDING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction'
    AND query LIKE 'SET LOCAL idle_in_transaction_session_timeout%'
"""


class Editing:
    """Two editors of one document: one types markers and notes, the other erases what is no marker."""

    def __init__(self, node: Node, ann: Editor, ben: Editor) -> None:
        self.node = node
        self.clients = [ann, ben]
        self.known = Known()
        self.slowest_s = 0.0
        self._typing = asyncio.create_task(self._type(ann, ben))
        self._late = Writer()
        self._first, self._second = self._late.type(marked("late.0")), self._late.type(marked("late.1"))

    async def begin(self, late: Editor) -> None:
        """One update that waits for its predecessor, from here to `end`."""
        self.known.attempted |= {"late.0", "late.1"}
        await late.say(encode_update(self._second))

    async def _type(self, ann: Editor, ben: Editor) -> None:
        number = 0
        while True:
            marker = f"ann.{number}"
            self.known.attempted.add(marker)
            started_s = time.monotonic()
            await ann.type(f"{marked(marker)}note")
            await ben.until(partial(_shows, ben, marker))
            self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
            self.known.acked.add(marker)
            await ben.erase(ben.text.index("note"), 4)
            number += 1
            await asyncio.sleep(TYPED_EVERY_S)

    async def end(self, late: Editor) -> None:
        self._typing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._typing
        await late.say(encode_update(self._first))
        for client in self.clients:
            await client.until(partial(_shows, client, "late.1"))
        self.known.acked |= {"late.0", "late.1"}

    async def stop(self) -> None:
        self._typing.cancel()
        await asyncio.gather(self._typing, return_exceptions=True)


def _shows(editor: Editor, marker: str) -> bool:
    return marked(marker) in editor.text


@contextlib.asynccontextmanager
async def editing(database_url: str) -> AsyncIterator[Editing]:
    """People edit while the block runs; the oracle has the last word."""
    async with running_node(database_url, room_idle_s=0) as node:
        late = await Editor.open_synced(node.url(ROOM))
        ann, ben = await Editor.open_synced(node.url(ROOM)), await Editor.open_synced(node.url(ROOM))
        edited = Editing(node, ann, ben)
        try:
            await edited.begin(late)
            yield edited
            await edited.end(late)
            await late.leave()
        finally:
            await edited.stop()
        await verify(Scene(database_url, {ROOM: edited.known}, {ROOM: edited.clients}, nodes=[node]))


async def compacted(connection: Connection, results: str = "done") -> int:
    statement = "SELECT count(*) FROM ydoc.compactions WHERE result = $1"
    count: int = await connection.fetchval(statement, results)
    return count


async def goes_on(connection: Connection, times: int = 2) -> None:
    """So many compactions more are done."""
    wanted = await compacted(connection) + times
    async with asyncio.timeout(GOES_ON_TIMEOUT_S):
        while await compacted(connection) < wanted:  # noqa: ASYNC110 # in another process
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("step", COMPACTION_STEPS)
async def test_a_compactor_killed_at_any_step_has_no_effect_or_the_whole_and_the_next_one_succeeds(
    tmp_path: Path, durable_url: str, step: str
) -> None:
    """I7, I8: under live editors, with Yjs as the judge."""
    failing = BUSIEST_COMPACTION | {"YDOC_FAILPOINTS": f"{step}=kill:3"}
    async with editing(durable_url), connecting(durable_url) as connection:
        async with compacting(tmp_path, durable_url, failing) as killed:
            assert await killed.ended() == -9
        # Of the third nothing is there, or all of it.
        assert await compacted(connection) == (3 if step == "compaction.after-commit" else 2)
        async with compacting(tmp_path, durable_url, BUSIEST_COMPACTION) as next_one:
            await goes_on(connection)
            await next_one.stop()
        assert await compacted(connection, "failed") == 0


@pytest.mark.parametrize("ended_by", ["an operator", pytest.param("the idle time-out", marks=[pytest.mark.long])])
async def test_a_paused_compactor_is_overtaken_and_changes_nothing_when_it_resumes(
    tmp_path: Path, durable_url: str, ended_by: str
) -> None:
    """I8, I21: nobody overtakes it before Postgres has ended its transaction, and with that all that it could do."""
    waiting = BUSIEST_COMPACTION | IMPATIENT | {"YDOC_FAILPOINTS": "compaction.after-fold=pause:1"}
    async with editing(durable_url) as edited, connecting(durable_url) as connection:
        async with compacting(tmp_path, durable_url, waiting) as first:
            backend = await in_the_middle(connection)
            with paused(first.pid):
                async with compacting(tmp_path, durable_url, BUSIEST_COMPACTION) as second:
                    if ended_by == "an operator":
                        assert await connection.fetchval("SELECT pg_terminate_backend($1)", backend)
                    await goes_on(connection)
                    await second.stop()
                document_id = (await head_of(connection, ROOM)).document_id
                before = await compactions_of(connection, document_id)
            # It is alone now: what goes on is its doing, behind the attempt that came to nothing.
            await goes_on(connection)
            await first.stop()
        after = await compactions_of(connection, document_id)
        assert before.keys() == after.keys() == {"done"}
    assert edited.slowest_s < SERVED_WITHIN_S


async def in_the_middle(connection: Connection) -> int:
    """The backend of a compactor that has folded and written nothing, its transaction open."""
    found: list[int] = []

    async def is_idle() -> bool:
        found[:] = [row["pid"] for row in await connection.fetch(FOLDING)]
        return bool(found)

    await until(is_idle)
    return found[0]


async def test_several_compactors_waste_work_at_most(tmp_path: Path, durable_url: str) -> None:
    """I7, I8, I21: also after a pause in which all of them missed their moments."""
    async with editing(durable_url), connecting(durable_url) as connection:
        async with contextlib.AsyncExitStack() as stack:
            all_of_them = [
                await stack.enter_async_context(compacting(tmp_path, durable_url, BUSIEST_COMPACTION)) for _ in range(3)
            ]
            await goes_on(connection, times=10)
            with paused(*(program.pid for program in all_of_them)):
                await asyncio.sleep(1)
            await goes_on(connection, times=10)
            for program in all_of_them:
                await program.stop()
        head = await head_of(connection, ROOM)
        results = await compactions_of(connection, head.document_id)
    print(f"three compactors: {results}")
    assert results.get("failed", 0) == 0
