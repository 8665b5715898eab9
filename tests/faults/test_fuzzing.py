"""I13, the long run: a fuzzer that follows coverage, over everything that takes bytes."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.fuzz_targets import TARGETS
from tests.service import REPOSITORY

MINUTES = float(os.environ.get("YDOC_TEST_FUZZ_MINUTES", "5"))


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 300)
@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_are_a_surprise(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("absent: the extra `fuzz`")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    command = [sys.executable, "-m", "tests.faults.fuzzer", target, str(round(MINUTES * 60)), str(corpus)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    fuzzed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert fuzzed.returncode == 0, fuzzed.stderr[-5_000:]
    executed = re.search(r"number_of_executed_units: (\d+)", fuzzed.stderr)
    assert executed is not None, fuzzed.stderr[-2_000:]
    assert int(executed[1]) > 1_000
    print(f"{target}: {executed[1]} inputs in {MINUTES:g} minutes")
