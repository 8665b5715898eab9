"""What stock `y-websocket` clients keep when the server is killed, stopped in order, and started again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.interop.editors import Editors, editing
from tests.service import Service, serving, verify
from tests.stored import broken_seqs, connecting

pytestmark = pytest.mark.least_rights

SOON = {"YDOC_DRAIN_TIMEOUT_S": "10"}


async def test_what_another_person_saw_survives_kill_9(tmp_path: Path, data_dir: Path, editors: Editors) -> None:
    async with serving(tmp_path, data_dir=data_dir) as service:
        # In a process of their own, so that nobody can bring anything back after the restart.
        async with editing() as gone:
            ann = await gone.open_synced(service.url, "letters/to Ann")
            ben = await gone.open_synced(service.url, "letters/to Ann")
            await ann.type("Dear Ann, 😀")
            await ben.shows("Dear Ann, 😀")
            await ben.type("(draft) ", at=0)
            await ann.shows("(draft) Dear Ann, 😀")
            await service.kill()
            await gone.kill()
        await service.restart()
        late = await editors.open_synced(service.url, "letters/to Ann")
        assert await late.text() == "(draft) Dear Ann, 😀"
        await late.type("!")
        await (await editors.open_synced(service.url, "letters/to Ann")).shows("(draft) Dear Ann, 😀!")


async def test_a_killed_service_leaves_no_process_of_its_own_behind(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    # Large enough to be prepared in the worker, and to be compacted in the child.
    await ann.ask("paste", seed=1, bytes=3_000_000, pieceBytes=300_000)
    await editors.show_the_same(ann, await editors.open(service.url, "notes"))
    # Returns when nobody holds the killed service's output open any more.
    await service.kill()
    await service.restart()
    await ann.synced()


async def test_an_open_editor_comes_back_after_a_kill_and_brings_what_it_wrote_meanwhile(
    service: Service, editors: Editors
) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.type("before")
    await ben.shows("before")
    await service.kill()
    await ann.ask("untilDisconnected")
    await ann.type(", meanwhile")
    await service.restart()
    await ben.shows("before, meanwhile")
    await ben.type(", after")
    await ann.shows("before, meanwhile, after")


async def test_open_editors_come_back_after_a_restart_in_order(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.ask("setPresence", presence={"user": "Ann"})
    await ben.shows_others({"user": "Ann"})
    await ann.type("before")
    await ben.shows("before")
    await service.stop()
    closes = (await ann.ask("untilCloses", count=1))["closes"]
    assert closes[0]["code"] == 1001
    assert "stopping" in closes[0]["reason"]
    await ben.shows_others()
    await service.restart()
    await ann.synced()
    await ann.type(", after")
    await ben.shows("before, after")
    # Stock clients take no presence with a clock that they know; a cursor that moves, or 15 s, brings a newer one.
    await ann.ask("setPresence", presence={"user": "Ann", "cursor": 1})
    await ben.shows_others({"user": "Ann", "cursor": 1})


async def test_a_drain_while_people_type_loses_nothing_that_another_saw(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    async with serving(tmp_path, database_url=database_url, environment=SOON) as service:
        async with editing() as gone:
            writers = [await gone.open_synced(service.url, f"page {number}") for number in range(8)]
            readers = [await gone.open_synced(service.url, f"page {number}") for number in range(8)]
            for writer in writers:
                await writer.ask("keepTyping", everyMs=2)
            for reader in readers:
                await reader.ask("untilLength", length=200)
            service.signal(signal.SIGTERM)
            for reader in readers:
                await reader.ask("untilDisconnected")
            seen = [await reader.text() for reader in readers]
            # Nobody may come back with what was seen.
            await gone.kill()
        assert await service.ended() == 0
        await service.restart()
        for number, text in enumerate(seen):
            late = await editors.open_synced(service.url, f"page {number}")
            assert (await late.text()).startswith(text)
    async with connecting(database_url) as connection:
        assert await broken_seqs(connection) == []
    verified = await verify(database_url)
    assert verified.exit_code == 0, verified
    assert len(seen) == len(writers)


async def test_typing_goes_on_through_a_drain_and_everything_arrives(service: Service, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "notes")
    ben = await editors.open_synced(service.url, "notes")
    await ann.ask("keepTyping", everyMs=2)
    await ben.ask("untilLength", length=200)
    await service.stop()
    await service.restart()
    await ann.synced()
    await ben.ask("untilLength", length=2_000)
    await ann.ask("stopTyping")
    await ben.shows(await ann.text())
    late = await editors.open_synced(service.url, "notes")
    assert await late.text() == await ann.text()
