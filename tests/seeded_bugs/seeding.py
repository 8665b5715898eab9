"""Puts each bug of `bugs.toml` into a copy of the tree, and runs the tests that must go red for it there.

`python -m tests.seeded_bugs.seeding [NAME…]` runs all or some of them and prints the table of the tests' README. A
bug counts as caught when each of its tests fails, one for the reason that is written down, and all pass without it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from os import environ
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
COPIED = ("ydoc_store", "compactor", "migrations", "tests", "pyproject.toml", "README.md")
# A test that waits for what never comes would wait for its time-out; the reason is told long before.
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Bug:
    """One patch, and what shows that it is there."""

    name: str
    promise: str
    what: str
    tests: list[str]
    because: str
    cheap: bool = False

    @property
    def patch(self) -> Path:
        return FOLDER / f"{self.name}.patch"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests said: `failed` with the first line of each reason; `errors` are tests that never began."""

    passed: int
    failed: dict[str, str]
    errors: list[str]


def bugs() -> list[Bug]:
    return [Bug(**entry) for entry in tomllib.loads((FOLDER / "bugs.toml").read_text())["bug"]]


def copy_tree(into: Path) -> Path:
    """The product and its tests, as they are now."""
    for name in COPIED:
        source, target = ROOT / name, into / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy(source, target)
    return into


def apply(bug: Bug, tree: Path, *, check: bool = False) -> str:
    """Patch the tree; what git has against it, "" where it applies."""
    command = ["git", "apply", "-C1", *(["--check"] if check else []), str(bug.patch)]
    outside = {**environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=outside, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def run_tests(tests: Iterable[str], tree: Path) -> Verdict:
    report = tree / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    ours = {name: value for name, value in environ.items() if not name.startswith("PYTEST")}
    # Child processes of a test must import the copy as well.
    done = subprocess.run(
        command,
        cwd=tree,
        env={**ours, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if not report.exists():
        return Verdict(0, {}, [done.stdout + done.stderr])
    passed, failed, errors = 0, {}, []
    for case in ElementTree.parse(report).iter("testcase"):
        failure, error = case.find("failure"), case.find("error")
        if error is not None:
            errors.append(f"{case.get('name')}: {error.get('message')}")
        elif failure is not None:
            failed[case.get("name") or ""] = (failure.get("message") or "") + "\n" + (failure.text or "")
        elif case.find("skipped") is None:
            passed += 1
    return Verdict(passed, failed, errors)


def catch(bug: Bug) -> str:
    """Seed the bug and run its tests. Returns the line that tells of it; AssertionError where nothing does."""
    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        tree = copy_tree(Path(folder))
        complaint = apply(bug, tree)
        assert not complaint, f"{bug.name} does not apply: {complaint}"
        verdict = run_tests(bug.tests, tree)
    assert not verdict.errors, f"{bug.name}: tests that never began: {verdict.errors}"
    for test in bug.tests:
        is_red = any(name.startswith(test.rpartition("::")[2]) for name in verdict.failed)
        assert is_red, f"{bug.name} is in the product, and {test} passes"
    # pytest marks what was raised; the other lines are the test's source.
    lines = [line for reason in verdict.failed.values() for line in reason.splitlines() if line.startswith("E ")]
    told = [line.removeprefix("E").strip() for line in lines if re.search(bug.because, line)]
    assert told, f"{bug.name}: red, and not because of {bug.because!r}: {list(verdict.failed.values())}"
    return told[0]


def check_sound(chosen: list[Bug]) -> None:
    """AssertionError unless all their tests pass where no bug is seeded."""
    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        verdict = run_tests(dict.fromkeys(test for bug in chosen for test in bug.tests), copy_tree(Path(folder)))
    assert not verdict.errors, verdict.errors
    assert not verdict.failed, f"red without any bug: {list(verdict.failed.values())}"
    assert verdict.passed, "no test ran"


def main() -> None:
    named = set(sys.argv[1:])
    chosen = [bug for bug in bugs() if not named or bug.name in named]
    check_sound(chosen)
    print("| bug | promise | caught by | its failure |\n|---|---|---|---|")
    for bug in chosen:
        line = catch(bug).replace("|", "\\|")
        tests = ", ".join(f"`{test.rpartition('::')[2]}`" for test in bug.tests)
        print(f"| `{bug.name}`: {bug.what} | {bug.promise} | {tests} | `{line[:150]}` |", flush=True)


if __name__ == "__main__":
    main()
