"""What tests with real processes may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_dir(open_folder: Path) -> Path:
    """Where an embedded Postgres may make its data folder; nothing is there yet."""
    return open_folder / "data"


@pytest.fixture
def as_root() -> None:
    """For tests of what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
