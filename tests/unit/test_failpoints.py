"""Failpoints: a mistyped one is told, and each acts when it is meant to."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ydoc_store.errors import SettingInvalid
from ydoc_store.failpoints import STEPS, WITHOUT_WAITING, FailpointReached, Failpoints
from ydoc_store.settings import Settings

ROOT = Path(__file__).parents[2]


def parsed(text: str) -> Failpoints:
    found = Failpoints.parse(text)
    assert found is not None
    return found


def test_nothing_set_is_nothing_held() -> None:
    assert Failpoints.parse("") is None
    assert Failpoints.parse(" , ") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("append.before-sent=kill", "'append.before-sent' is no step; the nearest is append.before-send"),
        ("compaction.after_fold", "'compaction.after_fold' is no step; the nearest is compaction.after-fold"),
        ("=kill", "'' is no step; the nearest is "),
        ("append.before-send=die", "append.before-send=die: an action is kill, raise, kill:TIME, "),
        ("append.before-send=pause", "append.before-send=pause: an action is "),
        ("append.before-send=pause:soon", "append.before-send=pause:soon: an action is "),
        ("append.before-send=pause:-1", "append.before-send=pause:-1: an action is "),
        ("append.before-send=pause:inf", "append.before-send=pause:inf: an action is "),
        ("append.before-send=kill:0", "append.before-send=kill:0: an action is "),
        ("append.before-send=kill:-1", "append.before-send=kill:-1: an action is "),
        ("append.before-send=kill,append.before-send=raise", "append.before-send is named twice"),
        ("append.after-ack=pause:1", "append.after-ack is inside code that cannot wait: its action is kill or raise"),
    ],
)
def test_a_mistyped_failpoint_is_refused_with_what_is_wrong(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Failpoints.parse(text)
    monkeypatch.setenv("YDOC_FAILPOINTS", text)
    with pytest.raises(SettingInvalid, match="YDOC_FAILPOINTS is .*: " + re.escape(told)):
        Settings.load()


def test_a_step_of_a_test_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"nearest is append\.after-tell"):
        Failpoints({"append.after-told": lambda: None})


async def test_raise_is_raised_at_every_time_or_at_the_one_that_was_named() -> None:
    always = parsed("append.before-send=raise")
    third = parsed("append.before-send=raise:3, append.after-ack=raise:2")
    for _ in range(2):
        with pytest.raises(FailpointReached, match=r"append\.before-send"):
            await always.reach("append.before-send")
        await third.reach("append.before-send")
    with pytest.raises(FailpointReached):
        await third.reach("append.before-send")
    await third.reach("append.before-send")
    await third.reach("append.before-take")
    third.reach_at_once("append.after-ack")
    with pytest.raises(FailpointReached):
        third.reach_at_once("append.after-ack")


async def test_pause_lets_others_run() -> None:
    started_s = time.monotonic()
    pausing = asyncio.create_task(parsed("append.before-send=pause:0.05").reach("append.before-send"))
    await asyncio.sleep(0)
    assert not pausing.done()
    await pausing
    assert time.monotonic() - started_s >= 0.05


@pytest.mark.parametrize("action", ["", "=kill", "=kill:2"])
def test_kill_takes_the_process_without_a_word(action: str) -> None:
    program = (
        "import asyncio, sys; from ydoc_store.failpoints import Failpoints\n"
        "async def main():\n"
        "    failpoints = Failpoints.parse(sys.argv[1])\n"
        "    for number in range(3):\n"
        "        print(number, flush=True); await failpoints.reach('compaction.after-fold')\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, f"compaction.after-fold{action}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (-9, "")
    assert done.stdout == ("0\n1\n" if action.endswith(":2") else "0\n")


def test_every_step_that_the_code_reaches_is_named_and_every_named_one_is_reached_somewhere() -> None:
    sources = [path.read_text() for package in ("ydoc_store", "compactor") for path in (ROOT / package).rglob("*.py")]
    reached = set()
    for source in sources:
        reached |= set(re.findall(r'failpoints\.reach(?:_at_once)?\("([\w.-]+)"\)', source))
        reached |= {f"append.{step}" for step in re.findall(r'self\._reach\("([\w-]+)"\)', source)}
        reached |= {f"compaction.{step}" for step in re.findall(r'_reach\(terms, "([\w-]+)"\)', source)}
    assert reached == set(STEPS)
    at_once = {step for source in sources for step in re.findall(r'reach_at_once\("([\w.-]+)"\)', source)}
    assert at_once == WITHOUT_WAITING
