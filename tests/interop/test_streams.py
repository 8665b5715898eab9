"""Stock clients of Durable Streams on `/v1/stream`: npm `@durable-streams/client`, PyPI `durable-streams`."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import durable_streams
import pytest
from durable_streams import AsyncDurableStream, astream

from tests.interop.yjs_judge import require_npm_packages
from tests.service import Service

pytestmark = pytest.mark.least_rights

HERE = Path(__file__).parent
WAIT_S = 120.0
MESSAGES = 300


def url_of(service: Service, name: str) -> str:
    return f"http://127.0.0.1:{service.port}/v1/stream/{name}"


async def test_what_the_stock_client_writes_is_read_once_and_in_order(service: Service) -> None:
    require_npm_packages()
    node = shutil.which("node")
    assert node is not None
    url = url_of(service, "log")
    writing = await asyncio.create_subprocess_exec(
        node,
        str(HERE / "streams.mjs"),
        url,
        str(MESSAGES),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert writing.stdout is not None
        async with asyncio.timeout(WAIT_S):
            found = json.loads(await writing.stdout.readline())
            assert await writing.wait() == 0
    finally:
        if writing.returncode is None:
            writing.kill()
            await writing.wait()
    everything = list(range(MESSAGES))
    assert found["errors"] == []
    assert found["longPoll"] == everything
    assert found["sse"] == everything
    async with astream(url) as response:
        assert [message["n"] for message in await response.read_json()] == everything


async def test_the_python_client_creates_appends_and_follows(service: Service) -> None:
    url = url_of(service, "events")
    async with await AsyncDurableStream.create(url, content_type="application/json", ttl_seconds=600) as stream:
        await stream.append({"n": 0}, seq="a")
        await asyncio.gather(*(stream.append({"n": number}) for number in range(1, 20)))
        with pytest.raises(durable_streams.SeqConflictError):
            await stream.append({"n": -1}, seq="a")
        async with await AsyncDurableStream.connect(url) as other:
            head = await other.head()
            assert head.content_type == "application/json"
        seen: list[int] = []

        async def follow(live: durable_streams.LiveMode) -> None:
            async with astream(url, offset="-1", live=live) as response:
                async for message in response.iter_json():
                    seen.append(message["n"])
                    if message["n"] == 20:
                        return

        async with asyncio.timeout(WAIT_S):
            following = [asyncio.create_task(follow(live)) for live in ("long-poll", "sse")]
            await stream.append({"n": 20})
            await asyncio.gather(*following)
        assert sorted(seen) == sorted([*range(21), *range(21)])
        with pytest.raises(durable_streams.StreamExistsError):
            await AsyncDurableStream.create(url, content_type="text/plain")
        await stream.delete()
        with pytest.raises(durable_streams.StreamNotFoundError):
            await AsyncDurableStream.connect(url)
