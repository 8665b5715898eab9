"""The coverage-guided fuzzer of one target: `python -m tests.faults.fuzzer TARGET SECONDS CORPUS_FOLDER`.

Needs the extra `fuzz` (atheris). Exits with 0 when the time is over; a finding ends it with another code, its input
written to a file in the working directory and shown as hex. The corpus of the tests is where it begins.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ydoc_store.yjs"]):
    from tests.faults.fuzz_targets import TARGETS

from tests.properties.test_any_bytes import SEEDS

INPUT_BYTES_MAX = 16_384
ONE_INPUT_S_MAX = 20
MEMORY_MIB_MAX = 2_048


def main(target: str, seconds: str, folder: str) -> None:
    for number, seed in enumerate(SEEDS):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={ONE_INPUT_S_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, folder], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:4])
