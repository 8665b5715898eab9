"""Somebody at night with README in hand: types its commands, word for word but for the ports and places named there."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.test_readme import BIN, block
from tests.service import Ended, Program, run
from ydoc_store.embedded.binaries import packaged

READY = re.compile(r"^ +health +(\S+/health/ready)", re.MULTILINE)


@dataclass
class Operator:
    """`places` are what README names, each with what it is in this test; `environment` what was exported before."""

    environment: dict[str, str]
    places: dict[str, str] = field(default_factory=dict)

    def read(self, title: str) -> list[str]:
        """The lines of a block of README, with this test's places in them."""
        return [self.placed(line) for line in block(title).splitlines()]

    def placed(self, text: str) -> str:
        # The longest first: one may be the beginning of another.
        for named in sorted(self.places, key=len, reverse=True):
            text = text.replace(named, self.places[named])
        return text

    async def types(self, title: str, **expected: int) -> list[Ended]:
        """What each line of a block came to. AssertionError unless it ended with 0, or as `line_N` expects."""
        ended = []
        for number, line in enumerate(self.read(title), start=1):
            ended.append(await self.says(line))
            wanted = expected.get(f"line_{number}", 0)
            assert ended[-1].exit_code == wanted, (line, ended[-1])
        return ended

    async def says(self, line: str) -> Ended:
        return await run("sh", "-c", line, environment=self._environment())

    async def until_ready(self, title: str, *, timeout_s: float = 120) -> None:
        """Repeats the block's first line until it says `"ready"`, as a person does."""
        async with asyncio.timeout(timeout_s):
            while True:
                if '"status":"ready","checks"' in (await self.says(self.read(title)[0])).output:
                    return
                await asyncio.sleep(0.2)

    def serving(self, line: str, log: Path) -> Program:
        """A `serve` that was typed: a program of its own, to be started and cleared away."""
        return Program(("sh", "-c", f"exec env {line}"), READY, log, self._environment())

    def _environment(self) -> Mapping[str, str]:
        path = f"{BIN}:{packaged().folder}:{os.environ['PATH']}"
        return {**self.environment, "PATH": path}
