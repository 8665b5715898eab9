"""A wall clock that a test moves under a running process, by libfaketime; monotonic clocks go on as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

LIBRARIES = "lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """Give `environment` to the process; `set` moves its clock from the true time from the next look on."""

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr").glob(LIBRARIES), None)
        if library is None:
            pytest.skip("absent: libfaketime (Debian's package of that name)")
        folder.chmod(0o755)
        self._file = folder / "clock"
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """`+1h`, `-1h` or `+0`, at once for every process that has this clock."""
        # Renamed into place, or somebody would read an empty file and believe in no offset.
        new = self._file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.chmod(0o644)
        new.replace(self._file)
