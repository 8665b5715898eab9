"""A live list of documents in TanStack DB, by the stock State Protocol package on a running service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.interop.editors import Editors
from tests.interop.yjs_judge import require_npm_packages
from tests.service import Service
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.storage.epochs import delete_document, purge_document, recreate_document
from ydoc_store.storage.incarnation import bump_incarnation
from ydoc_store.storage.pool import Database

pytestmark = pytest.mark.least_rights

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
SERVER = "http://127.0.0.1:1234"
SHOWN = "console.log(db.collections.documents.toArray)"
# One line whenever the list changes, and one when it is there; and what a page has that Node has not.
SHOW = """
globalThis.location = { reload: () => { console.log('{"reloaded": []}'); process.exit() } }
function show() {
  console.log(JSON.stringify(Object.fromEntries(db.collections.documents.toArray.map(d => [d.name, [d.epoch, d.seq]]))))
}
show()
"""
WAIT_S = 60.0

# Epoch and seq by name.
Documents = dict[str, list[int]]


class Lister:
    """A Node process that holds the list, and shows it whenever it changes."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    async def shows(self, wanted: Callable[[Documents], bool]) -> Documents:
        """The first list that is as it should be; AssertionError with the last one where none comes."""
        last = "nothing"
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(WAIT_S):
                while line := await self._process.stdout.readline():
                    last = line.decode()
                    documents: Documents = json.loads(last)
                    if wanted(documents):
                        return documents
        except TimeoutError:
            pass
        raise AssertionError(f"the last list that it showed: {last}")


def example(service: Service, live: str) -> str:
    """README's own lines, that show what they hold as this test reads it."""
    found = re.search(r"<!-- live list -->\n```js\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    script = found[1]
    for text, instead in (
        (SERVER, f"http://127.0.0.1:{service.port}"),
        ("live: 'sse'", f"live: '{live}'"),
        (SHOWN, "show()"),
    ):
        assert text in script
        script = script.replace(text, instead)
    return script + SHOW


@contextlib.asynccontextmanager
async def listing(service: Service, live: str) -> AsyncIterator[Lister]:
    require_npm_packages()
    node = shutil.which("node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node,
        "--input-type=module",
        "--eval",
        example(service, live),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Lister(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_live_list_follows_creation_edits_and_deletion_and_a_restart_of_the_server(
    service: Service, database_url: str, editors: Editors
) -> None:
    ann = await editors.open_synced(service.url, "there before")
    await ann.type("x")
    async with listing(service, "sse") as by_events, listing(service, "long-poll") as by_polls:

        async def both_show(wanted: Callable[[Documents], bool]) -> Documents:
            shown, also = await asyncio.gather(by_events.shows(wanted), by_polls.shows(wanted))
            assert shown.keys() == also.keys()
            return shown

        await both_show(lambda documents: documents.keys() == {"there before"})
        ben = await editors.open_synced(service.url, "team/new")
        await ben.type("one")
        shown = await both_show(lambda documents: documents.keys() == {"there before", "team/new"})
        seq = shown["team/new"][1]
        await ben.type("two", at=0)
        await both_show(lambda documents: documents["team/new"][1] > seq)
        await service.stop()
        await service.restart()
        await ann.type("y")
        await both_show(lambda documents: documents["there before"][1] > shown["there before"][1])
        database = await Database.open(database_url)
        await delete_document(database, DEFAULT_TENANT, "team/new")
        await both_show(lambda documents: documents.keys() == {"there before"})
        # What is not in the list goes once more, and that does no harm.
        await purge_document(database, DEFAULT_TENANT, "team/new", replaced_only=False)
        await recreate_document(database, DEFAULT_TENANT, "team/new")
        await both_show(lambda documents: documents.get("team/new") == [2, 0])
        await database.close()


async def test_a_page_whose_offset_has_expired_is_reloaded_and_lists_what_is_there(
    service: Service, database_url: str, editors: Editors
) -> None:
    ann = await editors.open_synced(service.url, "there")
    await ann.type("x")
    async with listing(service, "sse") as by_events, listing(service, "long-poll") as by_polls:
        for page in (by_events, by_polls):
            await page.shows(lambda documents: documents.keys() == {"there"})
        database = await Database.open(database_url)
        await bump_incarnation(database)
        await database.close()
        for page in (by_events, by_polls):
            await page.shows(lambda documents: documents.keys() == {"reloaded"})
    async with listing(service, "sse") as again:
        await again.shows(lambda documents: documents.keys() == {"there"})
