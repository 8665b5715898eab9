"""Settings: every one has a reason, none is taken silently, and a secret stays one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from ydoc_store.errors import SettingInvalid
from ydoc_store.setting_rows import SettingRow, describe
from ydoc_store.settings import Settings
from ydoc_store.units import GIB, KIB, MIB, parse_size

DURATIONS = ("_s", "_ms", "_days")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("YDOC_")]:
        monkeypatch.delenv(name)


def row(settings: Settings, name: str) -> SettingRow:
    return next(row for row in describe(settings) if row.name == name)


def test_every_setting_gives_a_reason_for_its_default() -> None:
    for one in describe(Settings.load()):
        assert len(one.reason) > 30, one.name
        assert one.reason.endswith("."), one.name


def test_every_number_has_a_unit_and_its_name_ends_in_it() -> None:
    for one in describe(Settings.load()):
        if isinstance(one.value, int | float) and not isinstance(one.value, bool):
            assert one.unit, one.name
        if one.unit == "bytes":
            assert "bytes" in one.name
        if one.unit in ("s", "ms"):
            assert one.name.endswith(f"_{one.unit}") or one.name.endswith(f"_{one.unit}_max"), one.name


def test_without_anything_set_every_value_is_its_default() -> None:
    for one in describe(Settings.load()):
        assert (one.source, one.value) == ("default", one.default), one.name


def test_a_flag_beats_a_variable_and_a_variable_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YDOC_PORT", "4000")
    monkeypatch.setenv("YDOC_POOL_SIZE", "3")
    settings = Settings.load({"port": "5000", "host": None})
    assert (settings.port, settings.pool_size, settings.host) == (5000, 3, "127.0.0.1")
    assert [row(settings, name).source for name in ("port", "pool_size", "host")] == [
        "flag",
        "environment",
        "default",
    ]


def test_an_unknown_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YDOC_POLL_SIZE", "3")
    with pytest.raises(SettingInvalid, match=r"YDOC_POLL_SIZE .*nearest is YDOC_POOL_SIZE"):
        Settings.load()


def test_a_lower_case_variable_is_no_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ydoc_databaze_url", "x")
    with pytest.raises(SettingInvalid, match="YDOC_DATABASE_URL"):
        Settings.load()


def test_variables_of_the_tests_are_not_ours_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YDOC_TEST_POSTGRES_BIN", "/usr/bin")
    Settings.load()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YDOC_DATABASE_URL", "")
    monkeypatch.setenv("YDOC_PORT", "")
    settings = Settings.load()
    assert settings.database_url is None
    assert row(settings, "port").source == "default"


@pytest.mark.parametrize(
    ("text", "value"),
    [("4096", 4096), ("256KiB", 256 * KIB), ("16 MiB", 16 * MIB), ("2gib", 2 * GIB), (" 7 B ", 7)],
)
def test_a_size_is_bytes_or_has_its_unit(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "16MB", "1.5MiB", "-1", "1e6", "KiB", "١٢"])
def test_a_size_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_every_wrong_value_is_told_at_once_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YDOC_POOL_SIZE", "many")
    monkeypatch.setenv("YDOC_UPDATE_BYTES_MAX", "16MB")
    with pytest.raises(SettingInvalid) as caught:
        Settings.load({"port": 70_000})
    told = str(caught.value)
    assert "YDOC_POOL_SIZE is 'many'" in told
    assert "YDOC_UPDATE_BYTES_MAX is '16MB': not a size" in told
    assert "--port is '70000'" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"update_bytes_max": 20, "document_bytes_max": 10},
        {"outbox_bytes_max": 10_000},
        {"lock_timeout_s": 40},
        {"keepalive_interval_s": 30},
        {"awareness_timeout_s": 10},
        {"document_bytes_max": 2 * GIB},
        {"notify_inline_bytes_max": 6_000},
        {"poll_interval_s": "inf"},
        {"port": -1},
        {"log_format": "xml"},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SettingInvalid):
        Settings.load(changes)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc] # the point of this test


# Secrets


def test_a_secret_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:hunter2@db/x\n")
    monkeypatch.setenv("YDOC_DATABASE_URL_FILE", str(secret))
    settings = Settings.load()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://u:hunter2@db/x"
    assert row(settings, "database_url")[2:4] == ("postgresql://u:********@db/x", "file")


def test_a_flag_beats_the_secret_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://of-the-file")
    monkeypatch.setenv("YDOC_DATABASE_URL_FILE", str(secret))
    settings = Settings.load({"database_url": "postgresql://of-the-flag"})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://of-the-flag"
    assert row(settings, "database_url").source == "flag"


def test_a_secret_that_comes_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YDOC_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("YDOC_DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingInvalid, match="both"):
        Settings.load()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_secret_file_that_cannot_be_used_is_named(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    if content is not None:
        secret.write_bytes(content)
    monkeypatch.setenv("YDOC_DATABASE_URL_FILE", str(secret))
    with pytest.raises(SettingInvalid, match=r"YDOC_DATABASE_URL_FILE.*url"):
        Settings.load()


def test_only_secrets_have_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YDOC_PORT_FILE", str(tmp_path))
    with pytest.raises(SettingInvalid, match="YDOC_PORT_FILE"):
        Settings.load()


def test_no_text_form_shows_a_secret() -> None:
    settings = Settings.load({"database_url": "postgresql://u:hunter2@db/x"})
    assert "hunter2" not in f"{settings!r}{settings}{describe(settings)}{settings.model_dump()}"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:hunter2@db:5432/x?sslmode=require", "postgresql://u:********@db:5432/x?sslmode=require"),
        ("postgresql://u@db,db2:5433/x", "postgresql://u@db,db2:5433/x"),
        ("postgresql://db", "postgresql://db"),
        ("postgresql:///x?host=/run&password=hunter2&user=u", "postgresql:///x?host=/run&password=********&user=u"),
        ("postgresql:///x?p%61ssword=hunter2", "postgresql:///x?p%61ssword=********"),
        ("postgresql://u:hun/ter2@db/x", "********"),
        ("postgresql://u:hun@ter2@db/x", "********"),
        ("postgresql://u:hun#ter2@db/x", "********"),
        ("host=db password=hunter2", "********"),
    ],
)
def test_of_a_database_url_only_the_password_is_masked(url: str, told: str) -> None:
    assert row(Settings.load({"database_url": url}), "database_url").value == told


@pytest.mark.parametrize("name", ["database_url", "data_dir", "host"])
def test_an_empty_flag_is_refused_and_not_taken_for_one_that_was_left_out(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"--{name.replace('_', '-')} is empty"):
        Settings.load({name: ""})


# What follows from others


def test_a_frame_holds_the_largest_update_and_its_header() -> None:
    assert Settings.load({"update_bytes_max": 1000}).frame_bytes_max == 1064


def test_a_folder_may_be_named_from_home() -> None:
    assert Settings.load({"data_dir": "~/documents"}).data_dir == Path.home() / "documents"
    assert Settings.load({"data_dir": "documents"}).data_dir == Path.cwd() / "documents"


def test_every_cap_on_memory_stands_in_the_inventory_of_what_can_grow() -> None:
    """I15: whoever adds one says what it bounds and which test goes over it."""
    is_cap = re.compile(
        r"process_\w+|rooms_max|\w*connections_max|\w+_at_once_max|\w*(outbox|cache|memory)_bytes_max|member_\w+"
    )
    caps = [row.variable for row in describe(Settings.load()) if is_cap.fullmatch(row.name)]
    inventory = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert len(caps) >= 13
    assert [variable for variable in caps if f"`{variable}`" not in inventory] == []
