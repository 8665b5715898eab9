"""Producers of streams over HTTP whose server is killed under them: each message is stored once, in its order (I1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.service import serving

PRODUCERS = 6
MESSAGES = 60
KILLS = 2
WAIT_S = 120.0


async def test_each_message_is_stored_once_though_the_server_is_killed_under_its_producers(
    tmp_path: Path, database_url: str
) -> None:
    """I1, and no message twice: whoever got no answer asks again with the same number."""
    async with serving(tmp_path, database_url=database_url) as service:
        url = f"http://127.0.0.1:{service.port}/v1/stream/log"
        answered = 0
        has_moved = asyncio.Event()
        repeated: list[str] = []

        async def produce(name: str) -> None:
            nonlocal answered
            async with httpx.AsyncClient(timeout=10) as client:
                for seq in range(MESSAGES):
                    headers = {
                        "Content-Type": "text/plain",
                        "Producer-Id": name,
                        "Producer-Epoch": "0",
                        "Producer-Seq": str(seq),
                    }
                    while True:
                        try:
                            answer = await client.post(url, content=f"{name}/{seq}\n".encode(), headers=headers)
                        except httpx.TransportError:
                            await asyncio.sleep(0.05)
                            continue
                        if answer.status_code != 503:
                            break
                        await asyncio.sleep(0.05)
                    assert answer.status_code in (200, 204), answer.text
                    if answer.status_code == 204:
                        repeated.append(f"{name}/{seq}")
                    answered += 1
                    has_moved.set()

        async def reaches(count: int) -> None:
            while answered < count:
                has_moved.clear()
                await has_moved.wait()

        async with httpx.AsyncClient() as client:
            assert (await client.put(url, headers={"Content-Type": "text/plain"})).status_code == 201
        names = [f"p{number}" for number in range(PRODUCERS)]
        async with asyncio.timeout(WAIT_S):
            producing = [asyncio.create_task(produce(name)) for name in names]
            for kill in range(1, KILLS + 1):
                await reaches(PRODUCERS * MESSAGES * kill // (KILLS + 1))
                await service.kill()
                await service.restart()
            await asyncio.gather(*producing)
        async with httpx.AsyncClient() as client:
            log = (await client.get(url)).text.splitlines()
    assert len(log) == PRODUCERS * MESSAGES
    for name in names:
        assert [line for line in log if line.startswith(f"{name}/")] == [f"{name}/{seq}" for seq in range(MESSAGES)]
    # Told apart from what was new: a commit whose answer the kill swallowed.
    assert set(repeated) <= set(log)
