"""`YDOC_READ_ONLY=1`: readers are served from a database that takes no writes, and no editor loses what it typed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.interop.editors import Editor, Editors
from tests.interop.test_runbooks import fill, small_disk
from tests.postgres import Cluster
from tests.service import STORE, Service, run, serving
from tests.standby import caught_up, running_standby
from tests.stored import connecting, head_of, names

READ_ONLY = {"YDOC_READ_ONLY": "1"}
DENIED = 2


async def ready(service: Service) -> tuple[int, str, dict[str, str]]:
    """The status code of /health/ready, its verdict, and what each check says."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{service.port}/health/ready")
    body = answer.json()
    return answer.status_code, body["status"], {check["name"]: check["detail"] for check in body["checks"]}


async def closes(editor: Editor) -> int:
    """How often its socket was closed so far, or could not be opened."""
    return len((await editor.ask("closes"))["closes"])


async def test_an_editor_that_types_meanwhile_stays_connected_and_brings_it_afterwards(
    service: Service, editors: Editors, database_url: str
) -> None:
    ann = await editors.open_synced(service.url, "notes")
    await ann.type("hello")
    ben = await editors.open_synced(service.url, "notes")
    await ben.shows("hello")
    await service.stop()
    service.environment |= READ_ONLY
    await service.restart()
    for editor in (ann, ben):
        await editor.ask("untilCloses", count=1)
        await editor.synced(timeout_s=60)
    before = [await closes(ann), await closes(ben)]

    await ann.ask("setPresence", presence={"name": "Ann"})
    await ben.shows_others({"name": "Ann"})
    for word in (" to", " the", " world"):
        await ann.type(word)
    # A reader who comes behind what Ann typed: the server has heard all of it.
    cem = await editors.open_synced(service.url, "notes")
    await cem.ask("untilPresence", presence=[{"name": "Ann"}])
    assert (await cem.text(), await ben.text()) == ("hello", "hello")
    new = await editors.open_synced(service.url, "unheard of")
    await new.type("a title")
    await new.ask("untilDenied")
    await ann.ask("untilDenied")
    assert [await closes(editor) for editor in (ann, ben, cem, new)] == [*before, 0, 0], "nobody was sent away"
    denied = [kind for kind, _, _ in (await ann.ask("received"))["received"] if kind == DENIED]
    assert denied == [DENIED], "the reason is told once a connection"
    status, verdict, checks = await ready(service)
    assert (status, verdict) == (200, "degraded")
    assert "YDOC_READ_ONLY" in checks["writes"]
    counted = await service.metrics()
    assert counted["ydoc_read_only"] == 1
    assert counted['ydoc_updates_total{dialect="y-websocket",result="read_only"}'] >= 4
    async with connecting(database_url) as connection:
        assert await names(connection) == {"notes"}
        assert (await head_of(connection, "notes")).seq == 1

    await service.stop()
    del service.environment["YDOC_READ_ONLY"]
    await service.restart()
    for editor in (ann, ben, cem):
        await editor.shows("hello to the world", timeout_s=60)
    titled = await editors.open_synced(service.url, "unheard of")
    await titled.shows("a title", timeout_s=60)


async def test_a_hot_standby_serves_readers_what_the_primary_stores(
    start_cluster: Callable[..., Cluster], editors: Editors, tmp_path: Path
) -> None:
    primary = start_cluster()
    primary.create_template()
    name = primary.create_database()
    with running_standby(primary) as standby:
        written, read = primary.url(name), standby.url(name)
        await caught_up(written, read)
        async with (
            serving(tmp_path, database_url=written) as writer,
            serving(tmp_path, database_url=read, environment=READ_ONLY) as reader,
        ):
            ben = await editors.open_synced(reader.url, "notes")
            await ben.ask("setPresence", presence={"name": "Ben"})
            cem = await editors.open_synced(reader.url, "notes")
            await cem.shows_others({"name": "Ben"})
            # The document comes into being on the primary; here the poll finds it.
            ann = await editors.open_synced(writer.url, "notes")
            await ann.type("hello")
            for editor in (ben, cem):
                await editor.shows("hello")
            await ann.erase(0, 4)
            await ben.shows("o")
            await ben.type("lost?")
            await ben.ask("untilDenied")
            assert await ann.text() == "o"
            assert [await closes(editor) for editor in (ann, ben, cem)] == [0, 0, 0]
            verified = await run(*STORE, "verify", "--all", "--database-url", read, environment=READ_ONLY)
            assert verified.exit_code == 0, verified.messages
            # Without the setting such a server is refused at start, and told why.
            refused = await run(*STORE, "serve", "--port", "0", "--database-url", read)
            assert refused.exit_code == 3
            assert "takes no writes" in refused.messages


async def test_readers_are_served_from_a_database_whose_disk_is_full(
    start_cluster: Callable[..., Cluster], editors: Editors, open_folder: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("absent: root's rights")
    cluster = start_cluster()
    cluster.create_template()
    url = cluster.url(cluster.create_database())
    async with serving(tmp_path, database_url=url) as service:
        ann = await editors.open_synced(service.url, "notes")
        await ann.type("hello")
        ben = await editors.open_synced(service.url, "notes")
        await ben.shows("hello")
    cluster.stop()
    with small_disk(open_folder / "disk", "256m") as disk:
        data = cluster.folder / "data"
        moved = await run("sh", "-c", f"cp -a {data} {disk}/data && rm -r {data} && ln -s {disk}/data {data}")
        assert moved.exit_code == 0, moved
        cluster.start()
        try:
            # It fills while the database is in use: one that nobody has connected to since its start lets nobody in.
            async with connecting(url):
                fill(disk / "ballast")
            async with serving(tmp_path, database_url=url, environment=READ_ONLY) as reader:
                cem = await editors.open_synced(reader.url, "notes")
                assert await cem.text() == "hello"
                await cem.type("lost?")
                await cem.ask("untilDenied")
                assert await closes(cem) == 0
        finally:
            cluster.stop(signal.SIGQUIT)


async def test_commands_that_write_are_refused_before_they_begin(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "empty.update").write_bytes(b"\0\0")
    environment = {**READ_ONLY, "YDOC_DATABASE_URL": database_url}
    for command in (("import", "notes", str(tmp_path / "empty.update")), ("compact", "--all"), ("migrate",)):
        refused = await run(*STORE, *command, environment=environment)
        assert refused.exit_code == 2, refused
        assert "YDOC_READ_ONLY" in refused.messages
