"""Real editing histories through the socket while everything is compacted at once and the server is killed.

Each is sent update by update as its editors made them, the server killed without warning half-way. Afterwards a
fresh Yjs client shows exactly the text that the history ends with, and the log holds every update once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pycrdt import Doc, Text
from websockets.exceptions import ConnectionClosed

from tests.integration.raw_editor import raw_editor
from tests.interop.editors import Editors, editing
from tests.log_rows import TRACES, trace
from tests.service import AT_FULL_SPEED, BUSIEST_COMPACTION, Service, serving, verify
from tests.stored import broken_seqs, compactions_of, connecting, head_of, is_compacted
from tests.waiting import until
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    from tests.stored import Connection

NAMES = ("automerge-paper", "friendsforever", "json-crdt-patch", "sveltecomponent")
ROOM = "traces/one"
END_CLIENT_ID = 77
CHUNKS = 400


async def send_until_killed(service: Service, updates: list[bytes], stored: Connection) -> list[bytes]:
    """Kill the server when another connection has been shown half of it; what that one was shown by then."""
    size = len(updates) // CHUNKS
    chunks = [updates[at : at + size] for at in range(0, len(updates) // 2, size)]
    sent, shown = Knowledge(), 0
    async with raw_editor(service.url, ROOM) as witness:
        async with raw_editor(service.url, ROOM) as sender:
            # One chunk is always under way while the one before it is waited for, so that something is when it dies.
            for number, chunk in enumerate(chunks):
                await sender.send(chunk)
                await witness.knows(shown)
                if number == len(chunks) // 4:
                    # The short histories would be through before the first sweep.
                    await until(lambda: is_compacted(stored))
                for update in chunk:
                    sent.add(walk(update))
                shown = sum(sent.state_vector().values())
            with contextlib.suppress(ConnectionClosed):
                await sender.send(updates[len(chunks) * size :])
            await service.kill()
        await witness.ended()
        return witness.updates


def the_end() -> bytes:
    """One more update, by another editor and to another root."""
    doc: Doc[Any] = Doc(client_id=END_CLIENT_ID)
    doc.get("end", type=Text).insert(0, "the end")
    return doc.get_update()


async def resend(service: Service, updates: list[bytes], shown: list[bytes]) -> None:
    """Everything once more, to a server that holds a part of it; returns when all of it is accepted."""
    async with raw_editor(service.url, ROOM) as sender:
        # What another person had seen is there.
        assert all(sender.knowledge.covers(walk(update)) for update in shown)
        await sender.send(updates)
        await sender.send([the_end()])
        async with editing() as editors:
            # One connection's updates are accepted in its order: with the last, all are.
            reader = await editors.open_synced(service.url, ROOM)
            await reader.shows("the end", root="end", timeout_s=200)


@pytest.mark.parametrize("name", NAMES)
async def test_a_history_survives_a_kill_while_it_is_compacted(tmp_path: Path, database_url: str, name: str) -> None:
    if not (TRACES / f"{name}.yupdates.gz").exists():
        pytest.skip(f"absent: the editing histories beside this checkout ({TRACES})")
    updates, text = trace(name)
    async with serving(tmp_path, database_url=database_url, environment=BUSIEST_COMPACTION | AT_FULL_SPEED) as service:
        async with connecting(database_url) as connection:
            shown = await send_until_killed(service, updates, connection)
            head = await head_of(connection, ROOM)
            assert 0 < head.seq < len(updates)
            compacted_before = await compactions_of(connection, head.document_id)
        await service.restart()
        await resend(service, updates, shown)
        async with editing() as editors:
            await shows_exactly(editors, service, text)
        async with connecting(database_url) as connection:
            await until(lambda: is_compacted(connection, compacted_before["done"] + 1))
        await service.stop()
    await holds_each_update_once(database_url, len(updates) + 1)


async def shows_exactly(editors: Editors, service: Service, text: str) -> None:
    fresh = await editors.open_synced(service.url, ROOM)
    assert await fresh.text() == text


async def holds_each_update_once(database_url: str, updates: int) -> None:
    async with connecting(database_url) as connection:
        head = await head_of(connection, ROOM)
        # What was sent twice was stored once.
        assert head.seq == updates
        assert await broken_seqs(connection) == []
        compacted = await compactions_of(connection, head.document_id)
        assert compacted.get("failed", 0) == 0
    verified = await verify(database_url)
    assert verified.exit_code == 0, verified
