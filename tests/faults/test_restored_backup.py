"""A database restored to an hour ago under live clients, in each way in which people restore (I11, I10, I12).

What was in the lost hour comes back from the tabs that hold it, once; what nobody holds is lost. Whoever carries a
history that the backup does not know is sent away with a reason; nothing is doubled, and what an open tab has seen
erased stays erased.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compactor.fold import fold_document
from tests.faults.agents import open_agent
from tests.faults.oracle import Scene, verify
from tests.interop.editors import Editor, Editors
from tests.nodes import Editor as StrictEditor
from tests.nodes import Node, running_node
from tests.postgres import TEMPLATE, Cluster
from ydoc_store.client import EpochChanged
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.epochs import Content, delete_document, replace_content
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.past import read_past
from ydoc_store.storage.pool import Database

Restore = Callable[[], Awaitable[None]]
Backup = Callable[[Cluster], Awaitable[Restore]]
TABLES = (
    "ydoc.documents, ydoc.updates, ydoc.snapshots, ydoc.segments, ydoc.compactions, ydoc.quarantines,"
    " ydoc.producers, ydoc.streams"
)
COMING_BACK = {1012, 1013}
EVERYTHING = "early of the lost hour one two three"


async def shell(*command: str | Path) -> None:
    done = await asyncio.to_thread(subprocess.run, [str(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


async def copy(source: Path, target: Path) -> None:
    """With owners and modes, in place of what is there."""
    await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
    await shell("cp", "-a", source, target)


# The ways to back up, each giving its way to restore


async def files_of_the_stopped_cluster(cluster: Cluster) -> Restore:
    data, kept = cluster.folder / "data", cluster.folder / "kept"
    await asyncio.to_thread(cluster.stop)
    await copy(data, kept)
    await asyncio.to_thread(cluster.start)

    async def restore() -> None:
        await asyncio.to_thread(cluster.stop)
        await copy(kept, data)
        await asyncio.to_thread(cluster.start)

    return restore


async def a_point_in_time(cluster: Cluster) -> Restore:
    """A base backup, and every WAL file from there on; what is restored is a new timeline."""
    data, base, lost = (cluster.folder / name for name in ("data", "base", "lost"))
    await asyncio.to_thread(cluster.stop)
    await copy(data, base)
    await asyncio.to_thread(cluster.start)
    await asyncio.to_thread(cluster.execute, "SELECT pg_create_restore_point('an hour ago')")

    async def restore() -> None:
        await asyncio.to_thread(cluster.stop)
        data.rename(lost)
        await copy(base, data)
        (data / "recovery.signal").touch()
        os.chown(data / "recovery.signal", cluster.account.uid, cluster.account.gid)
        cluster.settings |= {
            "restore_command": f"cp {lost}/pg_wal/%f %p",
            "recovery_target_name": "an hour ago",
            "recovery_target_action": "promote",
        }
        await asyncio.to_thread(cluster.start)

    return restore


async def pg_dump_and_pg_restore(cluster: Cluster) -> Restore:
    """Into the same cluster, while the nodes stay connected."""
    file, url, program = cluster.folder / "dump", cluster.url(TEMPLATE), cluster.binaries.program
    await shell(program("pg_dump"), "-Fc", "-n", "ydoc", "-f", file, url)

    async def restore() -> None:
        await shell(program("pg_restore"), "--clean", "--if-exists", "--single-transaction", "-d", url, file)

    return restore


async def rows_and_a_bump(cluster: Cluster) -> Restore:
    """Into the same tables: nothing of Postgres's own tells it, so an operator has to."""
    file, url, program = cluster.folder / "rows", cluster.url(TEMPLATE), cluster.binaries.program
    await shell(program("pg_dump"), "--data-only", "-n", "ydoc", "-T", "ydoc.migrations", "-f", file, url)

    async def restore() -> None:
        emptied = ("-c", f"TRUNCATE {TABLES}, ydoc.incarnation")
        await shell(program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-1", *emptied, "-f", file, url)
        database = await Database.open(url, pool_size=1)
        await bump_incarnation(database)
        await database.close()

    return restore


# The hour


@dataclass
class People:
    """Who is there: a tab by its name."""

    editors: Editors
    nodes: list[Node]
    tabs: dict[str, Editor] = field(default_factory=dict)

    async def opens(self, name: str, document: str, node: int = 0) -> Editor:
        tab = self.tabs[name] = await self.editors.open_synced(base_url(self.nodes[node]), document)
        return tab


def base_url(node: Node) -> str:
    return node.url("")[:-1]


@contextlib.asynccontextmanager
async def living(cluster: Cluster) -> AsyncIterator[list[Node]]:
    url = cluster.url(TEMPLATE)
    async with running_node(url, room_idle_s=0) as one, running_node(url, room_idle_s=0) as two:
        yield [one, two]


async def before_the_backup(people: People) -> None:
    ann = await people.opens("ann", "kept")
    ben = await people.opens("ben", "kept", 1)
    await ann.type("early secret ")
    await ben.shows("early secret ")
    for name in ("deleted", "repaired"):
        writer = await people.opens(f"of {name}", name)
        reader = await people.opens(f"reader of {name}", name, 1)
        await writer.type("good")
        await reader.shows("good")
        await writer.type(" bad")
        await reader.shows("good bad")
    await people.tabs["of repaired"].disconnect()


async def in_the_lost_hour(people: People) -> None:
    database = people.nodes[0].database
    ann, ben = people.tabs["ann"], people.tabs["ben"]
    await ben.synced()
    await ann.synced()
    await ann.erase(6, 7)
    await ben.shows("early ")
    await ben.type("late ")
    await ann.shows("early late ")
    await delete_document(database, DEFAULT_TENANT, "deleted")
    for name in ("of deleted", "reader of deleted"):
        assert (await people.tabs[name].ask("untilStopped"))["code"] == 4404
    past = await read_past(database, DEFAULT_TENANT, "repaired", 1)
    folded = fold_document(None, past.updates, past.keep_deleted)
    await replace_content(database, DEFAULT_TENANT, "repaired", Content(folded.snapshot, folded.way), epoch=1)
    assert (await people.tabs["reader of repaired"].ask("untilStopped"))["code"] == 4409
    cid = await people.opens("cid", "repaired")
    assert await cid.text() == "good"
    dan = await people.opens("dan", "created")
    await dan.type("new in the lost hour")
    await (await people.opens("reader of created", "created", 1)).shows("new in the lost hour")
    gone = await people.opens("gone", "quiet")
    await gone.type("held by nobody")
    await (await people.opens("gone too", "quiet")).shows("held by nobody")
    for name in ("gone", "gone too"):
        await people.tabs.pop(name).destroy()


@pytest.mark.parametrize(
    "backup",
    [
        pytest.param(files_of_the_stopped_cluster, marks=pytest.mark.long),
        a_point_in_time,
        pg_dump_and_pg_restore,
        pytest.param(rows_and_a_bump, marks=pytest.mark.long),
    ],
    ids=lambda way: way.__name__,
)
async def test_a_database_restored_to_an_hour_ago_under_live_clients(
    start_cluster: Callable[..., Cluster], editors: Editors, backup: Backup
) -> None:
    """I11: never doubled text, never a resurrection, a clear code and reason for everyone."""
    cluster = start_cluster(settings={"wal_level": "replica"})
    cluster.create_template()
    async with living(cluster) as nodes:
        people = People(editors, nodes)
        await before_the_backup(people)
        restore = await backup(cluster)
        await in_the_lost_hour(people)
        before = {name: len((await tab.ask("closes"))["closes"]) for name, tab in people.tabs.items()}
        await restore()

        # Whoever holds what the backup does not know is sent away, with a reason, and brings nothing.
        for name in ("cid", "dan", "reader of created"):
            stopped = await people.tabs[name].ask("untilStopped", timeout_s=60)
            assert stopped["code"] == 4409, name
            assert ("was recreated, repaired or restored" if name == "cid" else "does not exist") in stopped["reason"]
        # Who knew the document as it was comes back, with what the lost hour held: once, and what was erased stays so.
        for name in ("ann", "ben"):
            closes = (await people.tabs[name].ask("untilCloses", count=before[name] + 1, timeout_s=60))["closes"]
            assert {close["code"] for close in closes[before[name] :] if close} <= COMING_BACK
            await people.tabs[name].synced(timeout_s=60)
        fresh = await people.opens("fresh", "kept", 1)
        await fresh.shows("early late ")
        await people.tabs["ann"].type("and on")
        for name in ("ann", "ben", "fresh"):
            await people.tabs[name].shows("early late and on")
        # The repair of the lost hour is lost with it: who was offline before it is at home again, and doubles nothing.
        offline = people.tabs["of repaired"]
        await offline.connect()
        await offline.synced(timeout_s=60)
        again = await people.opens("again", "repaired", 1)
        await again.shows("good bad")
        await offline.shows("good bad")
        # So is the deletion, as the backup has it; and its tabs stay where they were.
        assert await (await people.opens("reader", "deleted")).text() == "good bad"
        assert (await people.tabs["of deleted"].ask("untilStopped"))["code"] == 4404
        # Seqs and ids of the lost hour are given again, to other content.
        for name in ("created", "quiet"):
            writer = await people.opens(f"new {name}", name)
            assert await writer.text() == ""
            await writer.type("anew")
            await (await people.opens(f"newer {name}", name, 1)).shows("anew")
        tabs = people.tabs
        clients = {
            "kept": [tabs["ann"], tabs["ben"], tabs["fresh"]],
            "repaired": [offline, again],
            "created": [tabs["new created"], tabs["newer created"]],
            "quiet": [tabs["new quiet"], tabs["newer quiet"]],
            "deleted": [tabs["reader"]],
        }
        await verify(Scene(cluster.url(TEMPLATE), clients=clients, nodes=nodes))


@pytest.mark.parametrize(
    "backup",
    [pytest.param(a_point_in_time, marks=pytest.mark.long), pg_dump_and_pg_restore],
    ids=lambda way: way.__name__,
)
async def test_a_database_restored_under_python_agents(start_cluster: Callable[..., Cluster], backup: Backup) -> None:
    """I11: they bring the lost hour back before `saved` says so again, or are told that theirs is another history."""
    cluster = start_cluster(settings={"wal_level": "replica"})
    cluster.create_template()
    async with living(cluster) as nodes:
        ann, ben = await open_agent(nodes[0], "kept"), await open_agent(nodes[1], "kept")
        await ann.type("early secret ")
        await ben.shows("early secret ")
        eve = await open_agent(nodes[0], "repaired")
        await eve.type("good")
        await eve.type(" bad")
        restore = await backup(cluster)

        del ann.root[6:13]
        await ann.type("late ")
        await ben.shows("early late ")
        past = await read_past(nodes[0].database, DEFAULT_TENANT, "repaired", 1)
        folded = fold_document(None, past.updates, past.keep_deleted)
        content = Content(folded.snapshot, folded.way)
        await replace_content(nodes[0].database, DEFAULT_TENANT, "repaired", content, epoch=1)
        assert isinstance(await eve.ended(), EpochChanged)
        cid, dan = await open_agent(nodes[1], "repaired"), await open_agent(nodes[0], "created")
        assert cid.text == "good"
        await dan.type("new in the lost hour")
        before = [ann.connects(), ben.connects()]
        await restore()

        for agent, connects in zip((ann, ben), before, strict=True):
            await agent.is_back(connects)
        await ann.document.saved(timeout_s=60)
        fresh = await open_agent(nodes[1], "kept")
        assert fresh.text == "early late "
        await ann.type("and on")
        for agent in (ben, fresh):
            await agent.shows("early late and on")
        for agent, copy_of in ((cid, "good"), (dan, "new in the lost hour")):
            assert isinstance(await agent.ended(), EpochChanged)
            with pytest.raises(EpochChanged):
                await agent.document.saved(timeout_s=60)
            assert agent.text == copy_of
            # Told once, it is not repeated.
            await agent.leave()
        with pytest.raises(EpochChanged):
            await eve.leave()
        again = await open_agent(nodes[0], "repaired")
        assert again.text == "good bad"
        clients = {"kept": [ann, ben, fresh], "repaired": [again]}
        await verify(Scene(cluster.url(TEMPLATE), clients=clients, nodes=nodes))


async def test_a_restore_that_was_written_over_is_noticed_all_the_same(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    """I11: the head is further on than the room's, so no seq tells; the poll compares what Postgres says it is."""
    program, file = cluster.binaries.program, tmp_path / "dump"
    never = {"poll_interval_s": 3_600, "room_idle_s": 0}
    async with running_node(database_url, **never) as here, running_node(database_url, **never) as there:
        ann = await StrictEditor.open_synced(here.url("notes"))
        await ann.type("early")
        await ann.until(lambda: ann.marker)
        await ann.leave()
        await shell(program("pg_dump"), "-Fc", "-n", "ydoc", "-f", file, database_url)
        ben = await StrictEditor.open_synced(there.url("notes"))
        for text in (" of", " the lost hour"):
            await ben.type(text)
        await until_head(there, 3)
        await shell(program("pg_restore"), "--clean", "--if-exists", "--single-transaction", "-d", database_url, file)
        cid = await StrictEditor.open_synced(here.url("notes"))
        assert cid.text == "early"
        for text in (" one", " two", " three"):
            await cid.type(text)
        await until_head(here, 4)
        await there.service.rooms.watch.poll()
        code, reason = await ben.closed()
        assert code == 1012
        assert "restored" in reason
        await here.service.rooms.watch.poll()
        assert (await cid.closed())[0] == 1012
        again = await StrictEditor.open_synced(there.url("notes"), ben.doc)
        other = await StrictEditor.open_synced(here.url("notes"), cid.doc)
        async with asyncio.timeout(60):
            while {len(again.root), len(other.root)} != {len(EVERYTHING)}:
                # Here a hint that comes while the room is still loading is lost for good: nobody else polls.
                for node in (here, there):
                    await node.service.rooms.watch.poll()
        fresh = await StrictEditor.open_synced(here.url("notes"))
        assert fresh.text == again.text
        for words in ("early", " of the lost hour", " one two three"):
            assert fresh.text.count(words) == 1
        await verify(Scene(database_url, clients={"notes": [again, other, fresh]}))


async def until_head(node: Node, head: int) -> None:
    async with asyncio.timeout(60):
        while node.room("notes").head < head:  # noqa: ASYNC110 # its own commit, a moment away
            await asyncio.sleep(0.01)
