"""The wheel, as somebody installs it: everything that it needs is in it or named by it, the migrations included."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.service import REPOSITORY, clean_environment
from tests.stored import connecting

INSTALL_TIMEOUT_S = 280


def call(*command: str | Path, cwd: Path) -> str:
    """What a command says on both its outputs; AssertionError unless it ends with 0."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        # No path of this checkout's may help out.
        env=clean_environment({"PYTHONPATH": ""}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT_S,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout by the backend that pyproject.toml names."""
    target = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--outdir", target, cwd=REPOSITORY)
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scripts in an environment that holds the wheel and its dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    call(scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=folder)
    return scripts


def test_the_wheel_holds_the_migrations_both_packages_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    migrations = {path.name for path in (REPOSITORY / "migrations").glob("*.sql")}
    assert migrations
    assert {Path(name).name for name in names if name.endswith(".sql")} == migrations
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ydoc_store", "compactor"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # Whoever checks types against the client is given them.
    assert "ydoc_store/py.typed" in names


async def test_an_empty_environment_runs_it_from_an_empty_folder(
    installed: Path, empty_database_url: str, tmp_path: Path
) -> None:
    for script in ("ydoc-store", "ydoc-compactor"):
        assert script in call(installed / script, "--version", cwd=tmp_path)
    call(installed / "ydoc-store", "migrate", "--database-url", empty_database_url, cwd=tmp_path)
    # A database that has everything is left as it is.
    call(installed / "ydoc-store", "migrate", "--database-url", empty_database_url, cwd=tmp_path)
    async with connecting(empty_database_url) as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ydoc'")
    assert {"documents", "updates", "snapshots", "segments", "compactions"} <= {row["tablename"] for row in tables}
    verified = call(installed / "ydoc-store", "verify", "--all", "--database-url", empty_database_url, cwd=tmp_path)
    assert "0 documents" in verified


def test_the_environment_is_really_an_empty_one(installed: Path, tmp_path: Path) -> None:
    listed = call(installed / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).lower()
    assert "ydoc-store==" in listed
    assert "pytest" not in listed
