"""The log of the postmaster stays within its bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from ydoc_store.embedded import postmaster
from ydoc_store.embedded.postmaster import bound_log


def test_a_log_over_its_bound_begins_anew_and_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postmaster, "LOG_BYTES_MAX", 10)
    log = tmp_path / "postgres.log"
    with log.open("ab") as writer:
        writer.write(b"0123456789ab")
        writer.flush()
        bound_log(log)
        writer.write(b"on it goes")
    assert log.read_bytes() == b"on it goes"
    assert (tmp_path / "postgres.log.1").read_bytes() == b"23456789ab"


def test_a_log_within_its_bound_and_no_log_are_left_alone(tmp_path: Path) -> None:
    bound_log(tmp_path / "postgres.log")
    (tmp_path / "postgres.log").write_text("few words")
    bound_log(tmp_path / "postgres.log")
    assert (tmp_path / "postgres.log").read_text() == "few words"
