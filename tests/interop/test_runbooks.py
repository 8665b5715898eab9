"""README's runbooks, each against a real fault: its commands, word for word, by somebody who has only README."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.interop.editors import Editors
from tests.interop.runbook import Operator
from tests.interop.test_readme import README
from tests.postgres import Cluster
from tests.service import STORE, Service, free_port, run, serving
from tests.standby import caught_up, running_standby
from tests.stored import connecting
from tests.waiting import until
from ydoc_store import __version__
from ydoc_store.metrics import BacklogTotals, Metrics
from ydoc_store.postgres import running_address

RUNBOOKS = (
    "The disk is full",
    "The database is down",
    "A document is quarantined",
    "Text has vanished",
    "A document does not open",
    "A node is hot",
    "A client reconnects in a loop",
    "A release is rolled back",
)
MIB = 2**20
FUTURE = """
ALTER TABLE ydoc.documents ADD COLUMN colour text NOT NULL DEFAULT 'blue';
CREATE TABLE ydoc.shades (id bigint PRIMARY KEY);
INSERT INTO ydoc.migrations (number, name, checksum) SELECT max(number) + 1, '9999_colours', 'x' FROM ydoc.migrations;
"""


@pytest.fixture
def operator(service: Service, database_url: str) -> Operator:
    """Of a service on this test's database."""
    return Operator({"YDOC_DATABASE_URL": database_url}, {"127.0.0.1:1234": f"127.0.0.1:{service.port}"})


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until the disk takes nothing more."""
    with file.open("wb", buffering=0) as ballast:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while ballast.write(b"\1" * size) == size:
                    pass


def test_there_are_eight_runbooks_and_each_alert_leads_to_one() -> None:
    readme = README.read_text()
    section = readme[readme.index("## Runbooks") : readme.index("## Alerts")]
    assert tuple(re.findall(r"^### (.*)$", section, re.MULTILINE)) == RUNBOOKS


def test_every_alert_is_on_a_metric_that_exists() -> None:
    readme = README.read_text()
    table = readme[readme.index("<!-- alerts -->") : readme.index("<!-- end of alerts -->")]
    named = re.findall(r"^\| `([a-z_]+)(?:\{result=\"(\w+)\"\})?`", table, re.MULTILINE)
    assert len(named) >= 8
    metrics = Metrics()
    metrics.backlog, metrics.vacuum_held_s, metrics.changes_held_s = BacklogTotals(0, 0, 0.0, 0, 0), 0.0, 0.0
    told = metrics.render().decode()
    for name, result in named:
        assert re.search(rf"^{name}(_count)?(\{{.*{result}.*\}})? ", told, re.MULTILINE), name
    assert "process_max_fds " in told


async def test_the_disk_is_full(open_folder: Path, tmp_path: Path, editors: Editors) -> None:
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
    with small_disk(open_folder / "disk", "420m") as disk:
        data_dir = disk / "ydoc-store"
        async with serving(tmp_path, data_dir=data_dir, arguments=["--no-compactor"]) as service:
            operator = Operator(
                {"YDOC_DATA_DIR": str(data_dir)},
                {"127.0.0.1:1234": f"127.0.0.1:{service.port}", "/var/lib/ydoc-store": str(data_dir), "1G": "120M"},
            )
            advice = re.search(r"`(fallocate .*?)`", README.read_text())
            assert advice is not None
            assert (await operator.says(operator.placed(advice[1]))).exit_code == 0
            ann = await editors.open_synced(service.url, "notes")
            await ann.type("before ")
            ben = await editors.open_synced(service.url, "notes")
            await ben.shows("before ")

            fill(disk / "ballast")
            # The table has to grow for it; when they come back, an editor's edits are one update of 16 MiB at most.
            await ann.ask("paste", seed=1, bytes=8 * MIB, pieceBytes=MIB)
            await ann.ask("untilCloses", count=1, timeout_s=120)
            _, space, log = await operator.types("disk full: look")
            assert "100%" in space.output
            assert "No space left on device" in log.output

            await operator.types("disk full: do")
            await operator.until_ready("disk full: over")
            late = await editors.open_synced(service.url, "notes", timeout_s=120)
            await late.ask("untilLength", length=8 * MIB + len("before "), timeout_s=120)
            assert await late.ask("digest") == await ann.ask("digest")
            await operator.types("disk full: over")


async def test_the_database_is_down(start_cluster: Callable[..., Cluster], tmp_path: Path, editors: Editors) -> None:
    primary = start_cluster()
    primary.create_template()
    name = primary.create_database()
    with running_standby(primary) as standby:
        async with serving(tmp_path, database_url=primary.url(name)) as service:
            port = free_port()
            operator = Operator(
                {"YDOC_DATABASE_URL": primary.url(name), "STANDBY_DATABASE_URL": standby.url(name)},
                {"127.0.0.1:1234": f"127.0.0.1:{service.port}", "1235": str(port)},
            )
            ann = await editors.open_synced(service.url, "notes")
            await ann.type("before")
            await caught_up(primary.url(name), standby.url(name))

            primary.stop()
            await ann.ask("untilCloses", count=1)
            await ann.type(" and meanwhile")
            health, asked = await operator.types("database down: look", line_2=2)
            assert '"degraded"' in health.output
            assert "no response" in asked.output
            (line,) = operator.read("database down: do")
            reader = operator.serving(line, tmp_path / "reader.log")
            try:
                await reader.start()
                ben = await editors.open_synced(f"ws://127.0.0.1:{port}/yjs", "notes")
                await ben.shows("before")
            finally:
                await reader.clear_away()

            primary.start()
            await operator.until_ready("database down: over")
            late = await editors.open_synced(service.url, "notes", timeout_s=60)
            await late.shows("before and meanwhile", timeout_s=60)
            await operator.types("database down: over")
            assert "rooms discarded" in service.log_text()
            for event in ("poll failed", "poll works again"):
                assert service.log_text().count(event) == 1, f"{event}: told once an outage"


@pytest.fixture
async def notes(service: Service, editors: Editors) -> str:
    """The document that README calls my-document: ten words, a row each, and nobody there any more."""
    ann = await editors.open_synced(service.url, "my-document")
    ben = await editors.open_synced(service.url, "my-document")
    text = ""
    for number in range(10):
        await ann.type(f"word{number} ")
        text += f"word{number} "
        await ben.shows(text)
    await ann.destroy()
    await ben.destroy()
    return text


async def test_a_document_is_quarantined(operator: Operator, service: Service, notes: str, editors: Editors) -> None:
    hurry = {**operator.environment, "YDOC_COMPACT_TIMEOUT_S": "0.000001"}
    for _ in range(3):
        failed = await run(*STORE, "compact", "my-document", environment=hurry)
        assert failed.exit_code == 1, failed
    listed, explained, verified = await operator.types("quarantined: look")
    assert json.loads(listed.output)["name"] == "my-document"
    assert "quarantined after 3 failures" in explained.output
    assert "ok" in verified.output
    # It stays editable all the while.
    ann = await editors.open_synced(service.url, "my-document")
    await ann.type("more")
    await operator.types("quarantined: do")
    await operator.types("quarantined: over")
    ben = await editors.open_synced(service.url, "my-document")
    await ben.shows(notes + "more")


async def test_text_has_vanished(operator: Operator, service: Service, notes: str, editors: Editors) -> None:
    ann = await editors.open_synced(service.url, "my-document")
    await ann.erase(6, len(notes) - 12)
    await ann.type("typed since")
    ben = await editors.open_synced(service.url, "my-document")
    await ben.shows(notes[:6] + notes[-6:] + "typed since")
    listed = await operator.says("ydoc-store history my-document --limit 1000 --json")
    rows = [json.loads(line) for line in listed.output.splitlines()]
    worst = max(rows, key=lambda row: row["deleted"])
    assert worst["deleted"] == len(notes) - 12
    operator.places["41"] = str(worst["seq"] - worst["count"])
    history, before = await operator.types("text vanished: look")
    assert len(history.output.splitlines()) == len(rows) + 1
    assert json.loads(before.output) == {"text": notes}
    await operator.types("text vanished: do")
    (after,) = await operator.types("text vanished: over")
    assert json.loads(after.output) == {"text": notes}
    assert (await ann.ask("untilStopped"))["code"] == 4409
    cem = await editors.open_synced(service.url, "my-document")
    await cem.shows(notes)


async def test_a_document_does_not_open_and_a_client_reconnects_in_a_loop(
    operator: Operator, service: Service, notes: str, editors: Editors, database_url: str
) -> None:
    # Rooms are loaded from the log alone.
    await service.stop()
    async with connecting(database_url) as connection:
        seqs = [row["seq"] for row in await connection.fetch("SELECT seq FROM ydoc.updates ORDER BY seq")]
        assert len(seqs) >= 3
        await connection.execute("DELETE FROM ydoc.updates WHERE seq = $1", seqs[-2])
    await service.restart()
    ann = await editors.open(service.url, "my-document")
    await until(lambda: "reconnect loop" in service.log_text())
    (counted,) = await operator.types("reconnect loop: look")
    assert "ydoc_reconnect_loops 1" in counted.output
    assert 'code="1011"' in counted.output
    told = service.log_text()
    assert "my-document" in next(line for line in told.splitlines() if "reconnect loop" in line)
    for event in ("reconnect loop", "a document could not be opened", "connection closed"):
        assert told.count(event) == 1, f"{event}: told once, not once a connection"

    (verified,) = await operator.types("does not open: look", line_1=1)
    hole = re.search(r"begins at \d+ and not at (\d+)", verified.output)
    assert hole is not None, verified.output
    operator.places["41"] = hole[1]
    assert int(hole[1]) == seqs[-3]
    await operator.types("does not open: do")
    await operator.types("does not open: over")
    await ann.synced()
    await ann.shows(notes[: len("word0 ") * seqs[-3]])
    closes = (await ann.ask("closes"))["closes"]
    late = await editors.open_synced(service.url, "my-document")
    await late.shows(await ann.text())
    assert (await ann.ask("closes"))["closes"] == closes


async def test_a_node_is_hot(
    operator: Operator, service: Service, editors: Editors, tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, database_url=database_url) as other:
        ann = await editors.open_synced(service.url, "notes")
        ben = await editors.open_synced(service.url, "notes")
        pid = re.search(r"serving .*\bpid=(\d+)", re.sub(r"\x1b\[\d*m", "", service.log_text()))
        assert pid is not None, service.log_text()
        assert int(pid[1]) == service.pid
        operator.places |= {"4711": pid[1], "127.0.0.1:1235": f"127.0.0.1:{other.port}"}
        (seen,) = await operator.types("hot node: look")
        assert 'ydoc_connections{dialect="y-websocket"} 2.0' in seen.output
        assert "process_cpu_seconds_total" in seen.output
        for editor in (ann, ben):
            await editor.ask("moveTo", url=other.url)
        await ann.ask("keepTyping", everyMs=5)
        await ben.ask("untilLength", length=100)
        await operator.types("hot node: do")
        assert await service.ended() == 0
        for editor in (ann, ben):
            await editor.ask("untilCloses", count=1)
            await editor.synced(timeout_s=60)
        await ann.ask("stopTyping")
        await ben.shows(await ann.text())
        (over,) = await operator.types("hot node: over")
        assert 'ydoc_connections{dialect="y-websocket"} 2.0' in over.output


async def test_a_release_is_rolled_back(open_folder: Path, tmp_path: Path, editors: Editors) -> None:
    data_dir = open_folder / "ydoc-store"
    async with serving(tmp_path, data_dir=data_dir) as service:
        operator = Operator(
            {"YDOC_DATA_DIR": str(data_dir)},
            {"127.0.0.1:1234": f"127.0.0.1:{service.port}", "/mnt/backup": str(tmp_path)},
        )
        ann = await editors.open_synced(service.url, "notes")
        await ann.type("by the new release")
        url = await asyncio.to_thread(running_address, data_dir)
        assert url is not None
        connection = await asyncpg.connect(url)
        await connection.execute(FUTURE)
        await connection.close()
        version, _ = await operator.types("roll back: look")
        assert __version__ in version.output
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0

        *_, line = operator.read("roll back: do")
        assert line == ".venv/bin/ydoc-store serve"
        old = operator.serving(f"ydoc-store serve --port {service.port}", tmp_path / "old.log")
        try:
            await old.start()
            await ann.synced(timeout_s=60)
            await ann.type(", and by the old")
            ben = await editors.open_synced(service.url, "notes")
            await ben.shows("by the new release, and by the old")
            await operator.until_ready("roll back: over")
            await operator.types("roll back: over")
            refused = await operator.says("ydoc-store migrate")
            assert (refused.exit_code, "migrated by a newer release" in refused.messages) == (2, True)
        finally:
            await old.clear_away()
