"""Log lines: one form for ours and the libraries', with the connection, without bytes or secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ydoc_store import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out, err = capsys.readouterr()
    assert out == "", "results belong to stdout, logs do not"
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_is_an_event_with_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logs.logger("ydoc_store.relay").info("opened", rooms=3)
    (line,) = lines(capsys)
    assert (line["event"], line["rooms"], line["level"], line["logger"]) == (
        "opened",
        3,
        "info",
        "ydoc_store.relay",
    )
    assert str(line["timestamp"]).endswith("Z")


def test_bytes_are_told_by_their_number_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logs.logger("x").info(
        "refused", frame=b"secret text", frames=[b"ab", bytearray(3)], of={"update": memoryview(b"abc")}
    )
    (line,) = lines(capsys)
    assert (line["frame"], line["frames"]) == ("<11 bytes>", ["<2 bytes>", "<3 bytes>"])
    assert line["of"] == {"update": "<3 bytes>"}


@pytest.mark.parametrize(
    "name", ["token", "access_token", "Authorization", "password", "client_secret", "cookie", "database_url"]
)
def test_a_secret_is_masked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logs.logger("x").info("asked", **{name: "hunter2"}, inner={name: "hunter2"})
    assert "hunter2" not in capsys.readouterr().err


def test_what_the_level_leaves_out_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "warning")
    logs.logger("x").info("unseen")
    logs.logger("x").warning("seen")
    assert [line["event"] for line in lines(capsys)] == ["seen"]


def test_libraries_do_not_tell_each_connection(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    for name in ("uvicorn.access", "uvicorn.error", "websockets.server", "apscheduler.scheduler"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("uvicorn.error").error("trouble")
    assert [line["event"] for line in lines(capsys)] == ["trouble"]


def test_a_traceback_stands_in_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logs.logger("x").exception("failed")
    (line,) = lines(capsys)
    assert "RuntimeError: broken" in str(line["exception"])


def test_a_person_reads_the_console_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    logs.logger("ydoc_store.serve").info("serving", port=1234)
    told = capsys.readouterr().err
    assert "serving" in told
    assert "port=1234" in told
    assert "\x1b[" not in told, "colours are for terminals"


def test_connection_ids_are_short_and_differ() -> None:
    ids = {logs.new_connection_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(one) for one in ids} == {8}


def test_inside_somebody_elses_process_lines_go_where_its_logging_goes(caplog: pytest.LogCaptureFixture) -> None:
    structlog.reset_defaults()
    logs.through_standard_library()
    logs.logger("ydoc_store.relay").debug("below what the host wants to hear")
    logs.logger("ydoc_store.relay").warning("opened", frame=b"abc", token="t")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("ydoc_store.relay", "WARNING")
    assert record.getMessage() == "event='opened' frame='<3 bytes>' token='********'"


def test_a_process_that_has_configured_structlog_keeps_its_own_form(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def tell(_logger: object, _level: str, event: structlog.typing.EventDict) -> str:
        told.append(event["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[tell])
    logs.through_standard_library()
    logs.logger("ydoc_store.relay").warning("opened")
    assert told == ["opened"]
    assert not caplog.records
