"""How a command ends, and how results are shown: exit codes, one object a line, columns for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click
import pytest

from ydoc_store.commands.ending import run_to_exit_code
from ydoc_store.commands.options import DocumentName
from ydoc_store.commands.output import counted, emit_json, emit_row, emit_rows, readable, size
from ydoc_store.errors import (
    CorruptDocument,
    InvalidUpdate,
    NoSuchDocument,
    SettingInvalid,
    StorageBusy,
    StorageUnavailable,
    TooLarge,
)


def ends(raised: BaseException | None = None, returned: object = None) -> int:
    @click.group()
    def group() -> None: ...

    @group.command("act")
    def act() -> object:
        if raised is not None:
            raise raised
        return returned

    return run_to_exit_code(group, "ydoc-store", ["act"])


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (CorruptDocument("a hole"), 1),
        (SettingInvalid("no such setting"), 2),
        (click.UsageError("name one document"), 2),
        (StorageUnavailable("refused"), 3),
        (StorageBusy("locked"), 3),
        (TimeoutError(), 3),
        (ConnectionRefusedError("refused"), 3),
        (NoSuchDocument("none"), 4),
        (InvalidUpdate("truncated"), 5),
        (TooLarge("17 MiB"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_went_wrong_is_an_exit_code_and_a_line_on_stderr(
    raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(raised) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip()
    assert "Traceback" not in err


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (1, 1), (None, 0)])
def test_a_command_says_how_it_went(returned: object, code: int) -> None:
    assert ends(returned=returned) == code


def test_a_fault_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError())


def test_a_name_on_the_command_line_follows_the_rule_and_is_not_decoded() -> None:
    assert DocumentName()("a%20b") == "a%20b"
    with pytest.raises(click.BadParameter):
        DocumentName()("a/../b")


def test_json_is_one_object_a_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"name": "a\nb", "at": datetime(2024, 5, 1, tzinfo=UTC), "bytes": b"secret"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"name": "a\nb", "at": "2024-05-01T00:00:00+00:00", "bytes": "<6 bytes>"}


def test_a_table_has_a_heading_and_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "plan", "tail_bytes": 2048, "more": 1}, {"name": "a longer name", "tail_bytes": 3}]
    emit_rows(rows, as_json=False, columns=("name", "tail_bytes"))
    assert capsys.readouterr().out.splitlines() == [
        "name           tail bytes",
        "plan           2 KiB",
        "a longer name  3 B",
    ]


def test_json_rows_keep_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    emit_rows([{"name": "plan", "tail_bytes": 2048, "more": None}], as_json=True, columns=("name",))
    assert json.loads(capsys.readouterr().out) == {"name": "plan", "tail_bytes": 2048, "more": None}


def test_one_thing_is_a_line_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    emit_row({"name": "plan", "near_limit": False}, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["name        plan", "near limit  no"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tail_bytes", None, "-"),
        ("quarantined", True, "yes"),
        ("bytes", 1536, "1.5 KiB"),
        ("age_s", 12.5, "12.5 s"),
        ("age_s", 3_725.0, "1:02:05"),
        ("head", 1_234_567, "1,234,567"),
        ("through_seq", 1_234_567, "1234567"),
        ("system_identifier", 7_712_337_920_734, "7712337920734"),
        ("tags", ["a", "b"], "a, b"),
        ("changed_at", datetime(2024, 5, 1, 10, 0, 0, 999, tzinfo=UTC), "2024-05-01 10:00:00+00:00"),
    ],
)
def test_a_person_reads_units(name: str, value: object, text: str) -> None:
    assert readable(name, value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (1_000, "1,000 rows")])
def test_one_thing_is_not_told_as_many(count: int, text: str) -> None:
    assert counted(count, "row") == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (256 * 1024, "256 KiB"), (3 * 2**40, "3072 GiB")]
)
def test_a_size_is_told_in_the_largest_fitting_unit(count: int, text: str) -> None:
    assert size(count) == text
