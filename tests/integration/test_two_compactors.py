"""Two `ydoc-compactor run` and eight writers on one document: nothing lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.interop.editors import editing
from tests.service import BUSIEST_COMPACTION, compacting, serving, verify
from tests.stored import broken_seqs, compactions_of, connecting, head_of, log_of
from ydoc_store.yjs.walker import walk

WRITERS = 8
ROOM = "busy"


@pytest.mark.parametrize("seconds", [20, pytest.param(60, marks=pytest.mark.long)])
async def test_eight_writers_while_two_compactors_run(tmp_path: Path, database_url: str, seconds: int) -> None:
    async with (
        serving(tmp_path, database_url=database_url, arguments=["--no-compactor"]) as service,
        compacting(tmp_path, database_url, BUSIEST_COMPACTION) as one,
        compacting(tmp_path, database_url, BUSIEST_COMPACTION) as two,
        editing() as editors,
    ):
        writers = [await editors.open_synced(service.url, ROOM) for _ in range(WRITERS)]
        names = [writer.name for writer in writers]
        told = await editors.ask("converse", names=names, seconds=seconds, seed=11, timeout_s=seconds + 60)
        await editors.show_the_same(*writers, timeout_s=60)
        fresh = await editors.open_synced(service.url, ROOM)
        await editors.show_the_same(*writers, fresh)
        await asyncio.gather(one.stop(), two.stop())
        sweeps = [program.log.read_text().count("compacted=1") for program in (one, two)]
    sent = [[base64.b64decode(update) for update in updates] for updates in told["sent"]]
    await is_stored_once_and_in_order(database_url, sent)
    assert all(sweeps), "both compactors did some of the work"


async def is_stored_once_and_in_order(database_url: str, sent: list[list[bytes]]) -> None:
    async with connecting(database_url) as connection:
        head = await head_of(connection, ROOM)
        log = await log_of(connection, head.document_id)
        assert await broken_seqs(connection) == []
        compacted = await compactions_of(connection, head.document_id)
    assert all(len(updates) > 100 for updates in sent)
    assert len(log) == head.seq
    is_each_update_in_order(sent, log)
    assert compacted.get("failed", 0) == 0
    assert compacted["done"] > 10
    verified = await verify(database_url)
    assert verified.exit_code == 0, verified


def is_each_update_in_order(sent: list[list[bytes]], log: list[bytes]) -> None:
    """What two people erase at the same time is sent twice and may be stored once; all else is there exactly once."""
    times_sent, times_stored = Counter(chain.from_iterable(sent)), Counter(log)
    assert times_stored <= times_sent
    assert all(holds_deletes_alone(update) for update in times_sent - times_stored)
    stored_once = [update for update in log if times_sent[update] == 1]
    for updates in sent:
        its = set(updates)
        assert [update for update in stored_once if update in its] == [
            update for update in updates if times_sent[update] == 1 and update in times_stored
        ]


def holds_deletes_alone(update: bytes) -> bool:
    return not walk(update).structs
