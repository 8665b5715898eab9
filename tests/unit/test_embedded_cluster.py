"""What a failed program of Postgres means for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from ydoc_store.embedded.cluster import explain
from ydoc_store.embedded.folder import DataFolder


@pytest.mark.parametrize("sign", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_is_called_by_its_name(tmp_path: Path, sign: str) -> None:
    told = explain("Postgres did not start", f"FATAL:  could not write lock file: {sign}", DataFolder(tmp_path))
    assert "is full" in told
    assert str(tmp_path) in told
    assert "make room" in told


def test_the_last_telling_words_are_told_and_where_the_rest_is(tmp_path: Path) -> None:
    said = "LOG:  starting\nFATAL:  could not map memory\nHINT:  Reduce it.\nLOG:  database system is shut down\n"
    told = explain("Postgres did not start", said, DataFolder(tmp_path))
    assert "could not map memory / HINT:  Reduce it." in told
    assert "starting /" not in told
    assert "postgres.log" in told


def test_silence_is_told_as_such(tmp_path: Path) -> None:
    assert "it said nothing" in explain("initdb failed", "", DataFolder(tmp_path))
