"""README's lines for ElectricSQL's provider: what a page that is made of them does when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from pycrdt import Text

from tests.interop.editors import Editors
from tests.interop.test_readme import block
from tests.interop.yjs_judge import require_npm_packages
from tests.service import STORE, Program, Service, run, serving, verify
from tests.stored import LOSE_LAST_ROW, connecting
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.client import connect
from ydoc_store.storage.incarnation import BUMP

HERE = Path(__file__).parent
NAME = "my-document"
# What a page has and Node has not. Whoever is told that it is over ends, unless something is still going on.
BEFORE = """
globalThis.document = { addEventListener () {}, removeEventListener () {} }
globalThis.window = { addEventListener () {}, removeEventListener () {}, setTimeout, clearTimeout, fetch }
// The client writes to a browser's storage each minute; that keeps nobody here.
const inTime = globalThis.setTimeout
globalThis.setTimeout = (call, ms, ...rest) => {
  const timer = inTime(call, ms, ...rest)
  return ms > 5000 ? timer.unref() : timer
}
globalThis.location = { reload: () => console.log('reloads') }
console.error = told => { console.log(`is told ${told}`); globalThis.ends() }
console.warn = told => console.log(`asks again: ${told}`)
"""
# Types a word at each signal.
AFTER = """
const text = doc.getText('text')
let words = 0
globalThis.ends = () => awareness.destroy()
process.on('SIGUSR2', () => text.insert(text.length, `word ${++words} `))
text.observe(() => { if (text.length < 100) console.log(`shows ${text}`) })
provider.on('synced', () => console.log(`synced with ${text.length} characters`))
"""
BROWSER = """
provider.once('synced', () => {
  console.log(`begins with ${doc.getText('text')}`)
  if (doc.getText('text').length === 0) doc.getText('text').insert(0, 'hello')
})
doc.getText('text').observe(() => console.log(`shows ${doc.getText('text')}`))
"""


@contextlib.asynccontextmanager
async def page(folder: Path, port: int, ready: str, **changes: str) -> AsyncIterator[Program]:
    """README's lines in Node, each of `changes` made; returned when the page has said what `ready` matches."""
    require_npm_packages()
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    lines = block("electric").replace("127.0.0.1:1234", f"127.0.0.1:{port}")
    for written, here in changes.items():
        assert written in lines, written
        lines = lines.replace(written, here)
    (folder / "before.mjs").write_text(BEFORE)
    (folder / "page.mjs").write_text(lines + AFTER)
    command = ("sh", "-c", f"cd {folder} && exec node --import ./before.mjs page.mjs")
    program = Program(command, re.compile(ready, re.MULTILINE), folder / "page.log")
    try:
        await program.start()
        yield program
    finally:
        await program.clear_away()


async def shows(program: Program, line: str) -> None:
    await until(lambda: f"{line}\n" in program.log_text())


async def test_what_a_restored_database_has_lost_comes_back_from_the_page(
    service: Service, editors: Editors, tmp_path: Path, database_url: str
) -> None:
    """I11: the provider itself sends only what is new, and nobody would see what is typed behind what was lost."""
    async with page(tmp_path, service.port, "^synced") as tab:
        for number in (1, 2):
            tab.signal(signal.SIGUSR2)
            await stored(database_url, number)
        async with connecting(database_url) as connection, connection.transaction():
            assert await connection.execute(LOSE_LAST_ROW, NAME) == "UPDATE 1"
            await connection.execute(BUMP)
        await stored(database_url, 2)
        tab.signal(signal.SIGUSR2)
        ben = await editors.open_synced(service.url, NAME)
        await ben.shows("word 1 word 2 word 3 ")
        await ben.type("!")
        await shows(tab, "shows word 1 word 2 word 3 !")
    ended = await verify(database_url)
    assert ended.exit_code == 0, ended.messages
    assert "pending" not in ended.output


async def stored(database_url: str, seq: int) -> None:
    async def is_stored() -> bool:
        async with connecting(database_url) as connection:
            return await connection.fetchval("SELECT head FROM ydoc.documents WHERE name = $1", NAME) == seq

    await until(is_stored)


async def test_an_answer_that_is_cut_off_is_asked_for_again(service: Service, tmp_path: Path) -> None:
    """A client of ElectricSQL gives up where a body ends too early, unless it is told not to."""
    async with connect(f"ws://127.0.0.1:{service.port}/hocuspocus", NAME) as document:
        document.ydoc.get("text", type=Text).insert(0, "0123456789" * 100_000)
        await document.saved(timeout_s=60)
    async with cutting_once(service.port, 500_000) as port, page(tmp_path, port, "^asks again") as tab:
        await shows(tab, "synced with 1000000 characters")


@contextlib.asynccontextmanager
async def cutting_once(port: int, after_bytes: int) -> AsyncIterator[int]:
    """A network that ends the first connection over which so many bytes come, and never another."""
    has_cut = False
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_cut: bool) -> None:
        nonlocal has_cut
        passed = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                passed += len(piece)
                if may_cut and passed > after_bytes and not has_cut:
                    has_cut = True
                    break
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_service, to_service = await asyncio.open_connection("127.0.0.1", port)
        for way in (carry(reader, to_service, may_cut=False), carry(from_service, writer, may_cut=True)):
            task = asyncio.create_task(way)
            carrying.add(task)
            task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def test_a_write_that_is_refused_for_good_ends_the_page_once_and_tells_why(
    tmp_path: Path, database_url: str
) -> None:
    """It would try again each second, and show everybody else's edits only in between."""
    readers = token("ann", documents={"*": "read"})
    async with serving(tmp_path, database_url=database_url, environment={"YDOC_JWT_SECRET": SECRET}) as service:
        changes = {"'my-document'": f"'my-document', token: '{readers}'"}
        async with page(tmp_path, service.port, "^synced", **changes) as tab:
            tab.signal(signal.SIGUSR2)
            assert await tab.ended() == 0, "nothing goes on in it any more"
            assert tab.log_text().count('"forbidden"') == 1, tab.log_text()
            assert "reloads" not in tab.log_text()


async def test_it_edits_in_a_browser_and_reloads_over_a_repair(
    editors: Editors, tmp_path: Path, database_url: str, free_port: int
) -> None:
    """A page of another site, with its token in a header: its browser asks before each request that it sends, and hides
    what is not exposed."""
    site = f"http://app.example.com:{free_port}"
    environment = {"YDOC_JWT_SECRET": SECRET, "YDOC_ORIGINS": site}
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    command = ("node", str(HERE / "chromium.mjs"), str(tmp_path / "page.mjs"), site)
    tab = Program(command, re.compile(r"^shows hello$", re.MULTILINE), tmp_path / "page.log")
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        shown = f"const freshToken = async () => '{token('ann', name='Ann A.')}'\n{block('electric with a token')}\n"
        lines = block("electric").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
        for place in ("parser: parseToDecoder,", "  doc,\n"):
            assert place in lines
            lines = lines.replace(place, f"{place} fetchClient,")
        (tmp_path / "page.mjs").write_text(shown + lines + BROWSER)
        ben = await editors.open_synced(service.url, NAME, params={"token": token("ben")})
        try:
            await tab.start()
            await ben.shows("hello")
            await ben.shows_others({"user": {"name": "Ann A.", "id": "ann"}})
            await ben.type("!")
            await shows(tab, "shows hello!")
            ended = await run(*STORE, "repair", NAME, "--to-seq", "1", "--database-url", database_url)
            assert ended.exit_code == 0, ended.messages
            await shows(tab, "begins with hello")
            assert "error" not in tab.log_text()
            assert "Falling back" not in tab.log_text(), "its events were long polls"
        finally:
            await tab.clear_away()
