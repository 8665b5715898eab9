"""ElectricSQL's stock provider before two nodes, by whichever of them its requests happen to be answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.editors import Editors
from tests.interop.together import ANN, BEN, meet_and_type, part_and_merge
from tests.service import Service, serving


@contextlib.asynccontextmanager
async def balancing(*services: Service) -> AsyncIterator[str]:
    """A balancer without stickiness: each request goes to the next node. Connections end with their answer."""
    turns = itertools.cycle(services)
    carrying: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_node, to_node = await asyncio.open_connection("127.0.0.1", next(turns).port)
        ways: list[asyncio.Task[None]] = []
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            to_node.write(head.replace(b"connection: keep-alive", b"connection: close"))
            ways = [asyncio.create_task(pass_on(reader, to_node)), asyncio.create_task(pass_on(from_node, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, to_node):
                end.close()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(carry(reader, writer))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


@pytest.fixture
async def other(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    async with serving(tmp_path, database_url=database_url) as started:
        yield started


@pytest.mark.parametrize("sse", [False, True], ids=["long-poll", "events"])
async def test_editors_whose_requests_go_to_either_node_meet_type_part_and_merge(
    service: Service, other: Service, editors: Editors, sse: bool
) -> None:
    """Never told to read all again, and asking no more often than something happens."""
    async with balancing(service, other) as url:
        ann, cyd = [await editors.open_electric(url, "notes", sse=sse) for _ in range(2)]
        for editor in (ann, cyd):
            await editor.synced()
        await meet_and_type(ann, cyd)
        await part_and_merge(ann, cyd)
        ben = await editors.open_synced(other.url, "notes")
        await ann.ask("setPresence", presence=ANN)
        await cyd.ask("setPresence", presence=ANN)
        await ben.ask("setPresence", presence=BEN)
        await ben.shows_others(ANN, ANN)
        await cyd.shows_others(ANN, BEN)
        await ben.type("!")
        await editors.show_the_same(ann, ben, cyd)
        for editor in (ann, cyd):
            told = await editor.ask("answers")
            assert told["errors"] == []
            assert {answer["status"] for answer in told["answers"]} <= {200, 204}
            assert len(told["answers"]) < 100, "asked without a pause"
