"""Much at once for stock `y-websocket` clients: a document of 20 MB, slow lines, a thousand rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.editors import Editor, Editors, editing
from tests.interop.slow_link import slow_link
from tests.service import STORE, Service, run, serving
from tests.stored import broken_seqs, connecting

MIB = 1024 * 1024
LARGE_BYTES = 20 * 1000 * 1000
PIECE_BYTES = 256 * 1024
SYNC, STEP2, UPDATE = 0, 1, 2
ROOMS = 1_000


async def write_large(service: Service, editors: Editors, room: str) -> dict[str, object]:
    """Length and digest of a document of 20 MB that another editor has seen as well."""
    ann = await editors.open_synced(service.url, room)
    ben = await editors.open_synced(service.url, room)
    await ann.ask("paste", seed=7, bytes=LARGE_BYTES, pieceBytes=MIB)
    await ben.ask("untilLength", length=LARGE_BYTES, timeout_s=120)
    digest = await ann.ask("digest")
    assert await ben.ask("digest") == digest
    await ann.destroy()
    await ben.destroy()
    return digest


async def sync_frames(editor: Editor) -> list[tuple[int, int]]:
    """The sync messages that an editor got, as (step, bytes), without the server's own first step."""
    received = (await editor.ask("received"))["received"]
    return [(step, size) for kind, step, size in received if kind == SYNC and step in (STEP2, UPDATE)]


@pytest.mark.parametrize("state", ["as it was typed", "compacted"])
async def test_a_document_of_20_mb_opens_in_several_frames(
    tmp_path: Path, database_url: str, editors: Editors, state: str
) -> None:
    async with serving(tmp_path, database_url=database_url, arguments=["--no-compactor"]) as service:
        digest = await write_large(service, editors, "large")
        # From a room that remembers nothing.
        await service.stop()
        if state == "compacted":
            compacted = await run(*STORE, "compact", "large", "--database-url", database_url)
            assert compacted.exit_code == 0, compacted
        await service.restart()
        late = await editors.open_synced(service.url, "large", timeout_s=120)
        assert await late.ask("digest") == digest
        frames = await sync_frames(late)
        assert len(frames) > LARGE_BYTES // (2 * PIECE_BYTES)
        assert [step for step, _ in frames] == [UPDATE] * (len(frames) - 1) + [STEP2]
        assert max(size for _, size in frames) <= PIECE_BYTES + 1024


@pytest.mark.parametrize(
    "mbit_per_s",
    [8, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
async def test_a_document_of_20_mb_opens_over_a_slow_line_while_others_type(
    service: Service, editors: Editors, mbit_per_s: int
) -> None:
    await write_large(service, editors, "large")
    ben = await editors.open_synced(service.url, "large", timeout_s=120)
    async with slow_link(service.port, mbit_per_s * 1_000_000) as port:
        late = await editors.open(f"ws://127.0.0.1:{port}/yjs", "large")
        await late.ask("untilLength", length=LARGE_BYTES // 4, timeout_s=400)
        await ben.ask("keepTyping", everyMs=20)
        await late.synced(timeout_s=400)
        await ben.ask("stopTyping")
        length = (await ben.ask("digest"))["length"]
        assert length > LARGE_BYTES
        await late.ask("untilLength", length=length)
        assert await late.ask("digest") == await ben.ask("digest")
        closes = [(await editor.ask("closes"))["closes"] for editor in (late, ben)]
        counts = {name: count for name, count in (await service.metrics()).items() if "closes" in name}
        assert closes == [[], []], (counts, service.log_text())


async def test_a_thousand_rooms_at_once(service: Service, editors: Editors, database_url: str) -> None:
    await editors.ask("openRooms", url=service.url, prefix="room ", count=ROOMS, write=True, timeout_s=120)
    async with editing() as others:
        await others.ask("openRooms", url=service.url, prefix="room ", count=ROOMS, write=False, timeout_s=120)
        await others.ask("untilRoomsShow", prefix="room ", count=ROOMS, timeout_s=60)
        assert (await service.metrics())["ydoc_rooms"] == ROOMS
    # And once more from the database alone.
    await service.kill()
    await service.restart()
    async with editing() as others:
        await others.ask("openRooms", url=service.url, prefix="room ", count=ROOMS, write=False, timeout_s=120)
        await others.ask("untilRoomsShow", prefix="room ", count=ROOMS, timeout_s=60)
    async with connecting(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM ydoc.documents WHERE head = 1") == ROOMS
        assert await broken_seqs(connection) == []
