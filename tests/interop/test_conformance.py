"""The Durable Streams base protocol, judged by its own suite: every core test passes, and forks say that they are none.

The suite's tests of forks are left out by name, and what they ask for is answered 501, here. Results are quoted by
group (`-s` shows them).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service import Service, serving
from ydoc_store.auth.access import Access, Asked, Granted
from ydoc_store.names import DEFAULT_TENANT

pytestmark = pytest.mark.least_rights

HERE = Path(__file__).parent
CORE_TESTS = 250
SUITE_TIMEOUT_S = 300.0
OPTIONAL_GROUPS = ("Fork - ", "Reserved subscription APIs")
# Every group of the suite but those; the lookahead is over the names of the groups that a test stands in.
CORE = f"^(?!.*({'|'.join(OPTIONAL_GROUPS)}))"


async def everyone(_asked: Asked) -> Granted:
    """The suite brings no token, and asks as a page of another origin, which an open server answers nothing."""
    return Granted(DEFAULT_TENANT, "suite", Access.ADMIN)


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    environment = {
        "YDOC_AUTHORIZE": f"{__name__}:everyone",
        "YDOC_ORIGINS": "https://example.com",
        "YDOC_LONG_POLL_TIMEOUT_S": "0.5",
    }
    async with serving(tmp_path, database_url=database_url, environment=environment) as started:
        yield started


async def run_suite(url: str, report: Path) -> dict[str, Any]:
    node = shutil.which("node")
    assert node is not None, "the suite needs Node.js"
    process = await asyncio.create_subprocess_exec(
        node,
        str(HERE / "node_modules" / "vitest" / "vitest.mjs"),
        "run",
        "conformance.test.mjs",
        "--testNamePattern",
        CORE,
        # A busy machine takes its time over a hundred thousand assertions.
        "--testTimeout=60000",
        "--reporter=json",
        f"--outputFile={report}",
        "--root",
        str(HERE),
        env=os.environ | {"DURABLE_STREAMS_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SUITE_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert report.exists(), said.decode(errors="replace")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


async def test_every_core_test_of_the_suite_passes(service: Service, tmp_path: Path) -> None:
    report = await run_suite(f"http://127.0.0.1:{service.port}", tmp_path / "conformance.json")
    results = [result for file in report["testResults"] for result in file["assertionResults"]]
    core = [result for result in results if not result["ancestorTitles"][0].startswith(OPTIONAL_GROUPS)]
    groups = Counter((result["ancestorTitles"][0], result["status"]) for result in core)
    for (group, status), count in groups.items():
        print(f"{count:>4} {status:<7} {group}")
    failed = [result for result in core if result["status"] != "passed"]
    assert not failed, "\n".join(
        f"{result['status']}: {result['fullName']}\n{''.join(result['failureMessages'])[:2_000]}" for result in failed
    )
    assert len(core) == CORE_TESTS


NOT_HERE = [
    ("PUT", "fork", {"Stream-Forked-From": "/v1/stream/a"}),
    ("PUT", "fork", {"Stream-Forked-From": "/v1/stream/a", "Stream-Fork-Offset": "-1"}),
    ("PUT", "fork", {"Stream-Forked-From": "/v1/stream/a", "Stream-Fork-Sub-Offset": "0"}),
    ("PUT", "__ds/subscriptions/s", {}),
    ("GET", "__ds/subscriptions/s", {}),
]


async def test_forks_and_subscriptions_are_not_there_and_never_an_empty_stream(service: Service) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}/v1/stream/") as client:
        await client.put("a", content=b"text")
        for method, path, headers in NOT_HERE:
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented")
            assert (await client.get("fork")).status_code == 404
