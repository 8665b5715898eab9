"""Restore drills: what a backup holds, taken while editors type, is what was accepted; Yjs judges every document.

One drill for each way that README describes, with README's own commands: our own Postgres, a dump, a point in time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.interop.editors import Editor, Editors
from tests.interop.runbook import Operator
from tests.interop.yjs_judge import shared_judge
from tests.postgres import Cluster
from tests.service import BUSIEST_COMPACTION, STORE, Service, run, serving
from tests.standby import base_backup
from tests.stored import connecting, is_compacted, log_of
from tests.waiting import until
from ydoc_store.commands.transfer import whole_update
from ydoc_store.postgres import running_address
from ydoc_store.storage.incarnation import read_incarnation
from ydoc_store.storage.loader import StoredDocument, load
from ydoc_store.storage.pool import Database

DOCUMENTS = ("one", "two", "three")
Logs = dict[str, list[bytes]]


async def logs_at(url: str) -> Logs:
    """Every update ever accepted, of every document."""
    async with connecting(url) as connection:
        rows = await connection.fetch("SELECT id, name FROM ydoc.documents WHERE replaced_at IS NULL")
        return {row["name"]: await log_of(connection, row["id"]) for row in rows}


async def judge(restored_url: str, *, at_least: Logs, at_most: Logs) -> None:
    """What was restored is a beginning of what was accepted, not behind `at_least`; and it loads as that."""
    restored = await logs_at(restored_url)
    assert restored.keys() >= at_least.keys()
    database = await Database.open(restored_url, pool_size=1)
    try:
        for name, log in restored.items():
            assert len(log) >= len(at_least.get(name, [])), f"{name}: what was accepted before the backup is missing"
            assert log == at_most[name][: len(log)], f"{name}: not what was accepted, in its order"
            stored = await load(database, "default", name)
            assert isinstance(stored, StoredDocument)
            assert stored.head == len(log)
            difference = shared_judge().difference([whole_update(stored)], log)
            assert difference is None, f"{name}: {difference}"
    finally:
        await database.close()


async def typing(editors: Editors, service: Service) -> list[Editor]:
    """An editor in each document, who types on and on; something is compacted by then, so that backups hold it all."""
    typists = [await editors.open_synced(service.url, name) for name in DOCUMENTS]
    for seed, typist in enumerate(typists):
        await typist.ask("everyKind")
        await typist.ask("applyHistory", seed=seed)
        await typist.ask("keepTyping", everyMs=5)
    return typists


async def compacted_and_typed_on(url: str) -> None:
    async with connecting(url) as connection:
        await until(lambda: is_compacted(connection, len(DOCUMENTS)))


async def test_our_own_postgres_is_restored_from_a_backup_that_was_made_while_it_served(
    open_folder: Path, tmp_path: Path, editors: Editors
) -> None:
    """I11: and who was connected to what was lost brings it to what was restored, once."""
    data_dir, restored_dir = open_folder / "ydoc-store", open_folder / "ydoc-store-restored"
    operator = Operator(
        {"YDOC_DATA_DIR": str(data_dir)}, {"/mnt/backup": str(tmp_path), "/var/lib/ydoc-store": str(data_dir)}
    )
    backup, restore, serve = operator.read("backup")
    async with serving(tmp_path, data_dir=data_dir, environment=BUSIEST_COMPACTION) as service:
        url = await asyncio.to_thread(running_address, data_dir)
        assert url is not None
        typists = await typing(editors, service)
        await compacted_and_typed_on(url)
        before = await logs_at(url)
        made = await operator.says(backup)
        assert made.exit_code == 0, made
        again = await operator.says(backup)
        assert (again.exit_code, "nothing is overwritten" in again.messages) == (5, True)
        for typist in typists:
            await typist.ask("stopTyping")
        # Behind the backup for certain: what only a client still has when the backup is restored.
        ben = await editors.open_synced(service.url, "one")
        await typists[0].type("after the backup")
        await editors.show_the_same(typists[0], ben)
        afterwards = await logs_at(url)
        async with connecting(url) as connection:
            lost = await read_incarnation(connection)

    restored = await operator.says(restore)
    assert restored.exit_code == 0, restored
    assert f"{len(DOCUMENTS)} documents" in restored.output
    assert not (restored_dir / "restoring").exists()
    assert serve == f"ydoc-store serve --data-dir {restored_dir}"
    async with serving(tmp_path, data_dir=restored_dir) as service:
        url = await asyncio.to_thread(running_address, restored_dir)
        assert url is not None
        async with connecting(url) as connection:
            assert (await read_incarnation(connection)).bump != lost.bump
        await judge(url, at_least=before, at_most=afterwards)
        for editor in (typists[0], ben):
            await editor.ask("moveTo", url=service.url)
        await editors.show_the_same(typists[0], ben, timeout_s=60)
        late = await editors.open_synced(service.url, "one")
        await editors.show_the_same(typists[0], ben, late, timeout_s=60)
        assert (await late.text()).count("after the backup") == 1


async def test_a_given_database_is_restored_from_a_dump_that_was_made_while_it_served(
    start_cluster: Callable[..., Cluster], tmp_path: Path, editors: Editors
) -> None:
    cluster = start_cluster()
    cluster.create_template()
    url, restored_url = (cluster.url(cluster.create_database()), cluster.url(cluster.create_database("template1")))
    operator = Operator(
        {"YDOC_DATABASE_URL": url, "RESTORED_DATABASE_URL": restored_url}, {"ydoc.dump": str(tmp_path / "ydoc.dump")}
    )
    async with serving(tmp_path, database_url=url, environment=BUSIEST_COMPACTION) as service:
        typists = await typing(editors, service)
        await compacted_and_typed_on(url)
        before = await logs_at(url)
        await operator.types("dump")
        for typist in typists:
            await typist.ask("stopTyping")
        ben = await editors.open_synced(service.url, "one")
        await editors.show_the_same(typists[0], ben)
    await judge(restored_url, at_least=before, at_most=await logs_at(url))


async def test_a_given_database_is_restored_to_a_point_in_time(
    start_cluster: Callable[..., Cluster], tmp_path: Path, editors: Editors
) -> None:
    """To the moment before somebody deleted everything."""
    cluster = start_cluster(settings={"archive_mode": "on", "wal_level": "replica"})
    cluster.create_template()
    name = cluster.create_database()
    url = cluster.url(name)
    places = {place: cluster.folder / place for place in ("archive", "base", "restored")}
    for place in places.values():
        place.mkdir(mode=0o700)
        if cluster.account.is_other:
            os.chown(place, cluster.account.uid, cluster.account.gid)
    # What a test's cluster is told on its command line, and an ordinary one in its configuration.
    for setting in (
        f'archive_command = \'cp "%p" "{places["archive"]}/%f"\'',
        f"unix_socket_directories = '{cluster.folder}'",
        "listen_addresses = ''",
        "max_connections = 200",
    ):
        cluster.execute(f"ALTER SYSTEM SET {setting}")
    cluster.execute("SELECT pg_reload_conf()")
    async with serving(tmp_path, database_url=url, environment=BUSIEST_COMPACTION) as service:
        typists = await typing(editors, service)
        await compacted_and_typed_on(url)
        base_backup(cluster, str(places["base"]))
        await asyncio.gather(*(typist.ask("stopTyping") for typist in typists))
        ben = await editors.open_synced(service.url, "one")
        await editors.show_the_same(typists[0], ben)
        before = await logs_at(url)
        async with connecting(url) as connection:
            moment = str(await connection.fetchval("SELECT clock_timestamp()"))
        await typists[0].erase(0, len(await typists[0].text()))
        await editors.show_the_same(typists[0], ben)
        accident = await logs_at(url)
        async with connecting(url) as connection:
            await connection.execute("SELECT pg_switch_wal()")
    # A fast shutdown archives what is left.
    cluster.stop()

    operator = Operator({})
    variables = {"BASE": str(places["base"]), "ARCHIVE": str(places["archive"]), "PGDATA": str(places["restored"])}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-euc", "\n".join(operator.read("point in time"))],
        env={"PATH": f"{cluster.binaries.folder}:/usr/bin:/bin", "LC_ALL": "C", "MOMENT": moment, **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **cluster.account.spawn_as(),
    )
    try:
        assert done.returncode == 0, done.stdout
        verified = await run(*STORE, "verify", "--all", "--json", "--database-url", url)
        assert verified.exit_code == 0, verified
        assert all(json.loads(line)["ok"] for line in verified.output.splitlines())
        await judge(url, at_least=before, at_most=accident)
        assert len((await logs_at(url))["one"]) == len(before["one"]) < len(accident["one"])
    finally:
        stop = [str(cluster.binaries.folder / "pg_ctl"), "stop", "-m", "immediate", "-D", variables["PGDATA"]]
        subprocess.run(stop, check=False, cwd="/", capture_output=True, **cluster.account.spawn_as())
        shutil.rmtree(places["restored"])
