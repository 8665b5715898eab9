"""The oracle sees what it is there to see: each thing that it checks, broken on purpose, is told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import oracle
from tests.faults.journal import Journal, Known, marked
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.interop.editors import Editors
from tests.log_rows import Writer, append, create_document
from tests.nodes import Editor, Node
from tests.service import serving
from ydoc_store.names import DEFAULT_TENANT

if TYPE_CHECKING:
    from tests.stored import Connection

AT_ONCE = {"YDOC_ROOM_IDLE_S": "0"}
MARKERS = ["w.1", "w.2", "w.3"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broken for good need not be waited for."""
    monkeypatch.setattr(oracle, "SETTLE_TIMEOUT_S", 0.5)


async def stored(connection: Connection, *texts: str) -> int:
    document_id = await create_document(connection, "doc", tenant=DEFAULT_TENANT)
    writer = Writer()
    await append(connection, document_id, [writer.type(text) for text in texts])
    return document_id


def of(acked: list[str], attempted: list[str]) -> dict[str, Known]:
    return {"doc": Known(set(attempted), set(acked))}


async def test_a_sound_document_with_live_clients_of_both_kinds_passes(
    tmp_path: Path, database_url: str, journal: Journal, editors: Editors
) -> None:
    async with serving(tmp_path, database_url=database_url, environment=AT_ONCE) as service:
        watched = await watch(service)
        ann = await editors.open_synced(service.url, "doc")
        ben = await editors.open_synced(service.url, "doc")
        cid = await Editor.open_synced(f"{service.url}/doc")
        await ben.note_seen(journal.path)
        await ann.keep_marking(journal.path, "ann", 2)
        await cid.until(lambda: len(cid.text) > 500)
        journal.attempted("doc", "cid.0")
        await cid.type(marked("cid.0"))
        await ann.stop_typing()
        scene = Scene(database_url, journal.known(), {"doc": [ann, ben, cid]}, services=[watched])
        await verify(scene, clients_leave=False)
        scene.known = journal.known()
        assert len(scene.known["doc"].acked) > 50
        await verify(scene)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("texts", "acked", "attempted", "told"),
    [
        (["<w.1>"], ["w.1", "w.2"], MARKERS, r"I1: acked and not stored: 1 \(w.2\)"),
        (["<w.1>", "<w.4>"], [], MARKERS, r"stored and never attempted: 1 \(w.4\)"),
        (["<w.1>", "<w.1>"], [], MARKERS, r"stored more than once: 1 \(w.1\)"),
        (["<w.1>"], ["w.1"], [], "as the journal has it"),
    ],
)
async def test_what_the_journal_and_the_store_do_not_agree_on_is_told(
    database_url: str, connection: Connection, texts: list[str], acked: list[str], attempted: list[str], told: str
) -> None:
    await stored(connection, *texts)
    with pytest.raises(AssertionError, match=told):
        await verify(Scene(database_url, of(acked, attempted)))


async def test_a_document_that_is_not_there_may_have_no_acks(database_url: str) -> None:
    await verify(Scene(database_url, of([], MARKERS)))
    with pytest.raises(AssertionError, match="there is no such document"):
        await verify(Scene(database_url, of(["w.1"], MARKERS)))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DELETE FROM ydoc.updates WHERE seq = 2", "a hole, or a seq twice"),
        ("UPDATE ydoc.documents SET head = head + 1", "I6: "),
        ("UPDATE ydoc.documents SET accepted_bytes = accepted_bytes + 1", "I3: "),
    ],
)
async def test_a_log_that_does_not_hold_together_is_told(
    database_url: str, connection: Connection, harm: str, told: str
) -> None:
    await stored(connection, *map(marked, MARKERS))
    await connection.execute(harm)
    with pytest.raises(AssertionError, match=told):
        await verify(Scene(database_url, of(MARKERS, MARKERS)))


async def test_what_is_pending_is_told(database_url: str, connection: Connection) -> None:
    document_id = await create_document(connection, "doc", tenant=DEFAULT_TENANT)
    writer = Writer()
    first, second = writer.type("<w.1>"), writer.type("<w.2>")
    await append(connection, document_id, [second])
    with pytest.raises(AssertionError, match="I22: something is pending: waiting"):
        await verify(Scene(database_url, of([], MARKERS)))
    await append(connection, document_id, [first])
    await verify(Scene(database_url, of(["w.1", "w.2"], MARKERS)))


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_shows_something_else_is_told(node: Node, database_url: str) -> None:
    ann = await Editor.open_synced(node.url("doc"))
    await ann.type("<w.1>")
    await ann.leave()
    ann.root.insert(0, "never sent")
    with pytest.raises(AssertionError, match="client 1 shows something else than is stored"):
        await verify(Scene(database_url, of([], MARKERS), {"doc": [ann]}, nodes=[node]))


@pytest.mark.usefixtures("impatient")
async def test_a_transaction_that_idles_is_told(database_url: str, connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("SELECT 1")
        with pytest.raises(AssertionError, match=r"an idle transaction: process .* after 'SELECT 1'"):
            await verify(Scene(database_url))
    await verify(Scene(database_url))


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_stays_is_told_as_its_room_and_its_connection(node: Node, database_url: str) -> None:
    ann = await Editor.open_synced(node.url("doc"))
    with pytest.raises(AssertionError, match=r"1 rooms\n.*1 rooms without a document\n.*1 connections"):
        await verify(Scene(database_url, nodes=[node]))
    await ann.leave()


@pytest.mark.usefixtures("impatient")
async def test_what_a_service_is_left_with_is_told(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, database_url=database_url, environment=AT_ONCE) as service:
        watched = await watch(service)
        ann = await Editor.open_synced(f"{service.url}/doc")
        with pytest.raises(AssertionError, match=r"1 rooms\n.*1 connections\n.*1 open sockets on its port"):
            await verify(Scene(database_url, services=[watched]))
        await ann.leave()


async def test_the_journal_outlives_whoever_writes_it(journal: Journal) -> None:
    writing = (
        "import sys; from pathlib import Path; from tests.faults.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); number = 0\n"
        "while True: journal.attempted('doc', f'w.{number}'); print(number, flush=True); number += 1\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", writing, str(journal.path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    while (line := await process.stdout.readline()) != b"100\n":
        assert line, "the writer ended by itself"
    os.kill(process.pid, signal.SIGKILL)
    told = (await process.stdout.read()).split()
    await process.wait()
    last = int(told[-1]) if told else 100
    attempted = journal.known()["doc"].attempted
    assert {f"w.{number}" for number in range(last + 1)} <= attempted
