"""README's page "Moving here": its commands in their order, its snippet, its tables."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
from pycrdt import Doc, Text
from pycrdt.store import SQLiteYStore

from tests.interop.editors import Editors
from tests.interop.runbook import Operator
from tests.interop.stores import S3_CREDENTIALS, at_work, s3, states
from tests.interop.test_readme import README, block
from tests.interop.yjs_judge import require_npm_packages, shared_judge
from tests.service import Service, free_port, run

SECOND_EDITOR = """
provider.on('synced', () => doc.getText('text').insert(0, 'hello'))
provider.on('unsyncedChanges', ({ number }) => {
  if (number > 0 || doc.getText('text').length === 0) return
  const other = new Y.Doc()
  other.getText('text').observe(() => { console.log(other.getText('text').toString()); process.exit(0) })
  const { url } = provider.configuration.websocketProvider
  new HocuspocusProvider({ url, name: 'my-document', document: other, token: '' })
})
"""


def words() -> bytes:
    return Doc[Any]({"text": Text("words")}).get_update()


async def test_the_commands_bring_documents_here_and_back_in_the_order_of_the_page(
    service: Service, editors: Editors, database_url: str, tmp_path: Path
) -> None:
    """Stock editors on Hocuspocus, then here, then on Hocuspocus again: everything that anybody typed, once."""
    srv = tmp_path / "srv"
    (srv / "hocuspocus").mkdir(parents=True)
    database = srv / "hocuspocus/db.sqlite"
    operator = Operator({"YDOC_DATABASE_URL": database_url}, {"/srv/": f"{srv}/"})

    async def on_hocuspocus(path: Path, **documents: str) -> dict[str, bytes]:
        return states(await asyncio.to_thread(at_work, "hocuspocusSqlite", path=str(path), documents=documents))

    await on_hocuspocus(database, plan="first words", notes="others")
    look, moved = await operator.types("moving: before the switch")
    assert "plan: would import" in look.output
    assert "plan: imported" in moved.output

    # Somebody has the new URL already, somebody is still at the old one.
    url = service.url.removesuffix("/yjs") + "/hocuspocus"
    here = await editors.open_hocuspocus(url, "plan")
    await here.shows("first words")
    await here.type("typed here: ", at=0)
    await here.saved()
    await on_hocuspocus(database, plan="last words")
    last, verified = await operator.types("moving: after the switch")
    assert re.search(r"plan: imported, .* are new, seq 3, verified, with more that was written here", last.output)
    assert "notes: unchanged" in last.output
    assert "0 with something wrong" in verified.messages
    await here.shows("typed here: first wordslast words")

    (srv / "documents").mkdir()
    await operator.types("moving: back")
    back = await asyncio.to_thread(
        at_work, "readHocuspocusSqlite", path=str(srv / "hocuspocus/back.sqlite"), names=["plan", "notes"]
    )
    exported = tmp_path / "plan.update"
    assert (await operator.says(f"ydoc-store export plan -o {exported}")).exit_code == 0
    assert shared_judge().difference([exported.read_bytes()], [states(back)["plan"]]) is None
    doc = Doc[Any]()
    doc.apply_update(states(back)["plan"])
    assert str(doc.get("text", type=Text)) == "typed here: first wordslast words"


async def test_each_store_has_its_line(database_url: str, tmp_path: Path, service: Service) -> None:
    srv = tmp_path / "srv"
    for folder in ("hocuspocus", "jupyter", "y-websocket"):
        (srv / folder).mkdir(parents=True)

    def fill(endpoint: str) -> None:
        place = {"endpoint": endpoint, "bucket": "my-bucket", "prefix": "hocuspocus-documents/"}
        at_work("hocuspocusSqlite", path=str(srv / "hocuspocus/db.sqlite"), documents={"of sqlite": "words"})
        at_work("hocuspocusS3", **place, documents={"of s3": "words"})
        at_work("yWebsocket", path=str(srv / "y-websocket/db"), port=free_port(), documents={"of_y-websocket": "words"})
        at_work("yLeveldb", path=str(srv / "leveldb"), documents={"of y-leveldb": "words"})
        with closing(sqlite3.connect(srv / "application.db")) as connection:
            connection.execute("CREATE TABLE documents (name text, data blob)")
            connection.execute("INSERT INTO documents VALUES ('of sql', ?)", (words(),))
            connection.commit()

    async def fill_jupyter() -> None:
        class Store(SQLiteYStore):
            db_path = str(srv / "jupyter/.jupyter_ystore.db")

        async with Store("of jupyter") as store:
            await store.write(Doc({"text": Text("words")}).get_update())

    with s3("my-bucket") as endpoint:
        await asyncio.to_thread(fill, endpoint)
        await asyncio.to_thread(anyio.run, fill_jupyter)
        environment = {
            "YDOC_DATABASE_URL": database_url,
            "SOURCE_URL": f"sqlite:///{srv}/application.db",
            "AWS_ENDPOINT_URL": endpoint,
            **S3_CREDENTIALS,
        }
        ended = await Operator(environment, {"/srv/": f"{srv}/"}).types("moving: sources")
    for line, said in zip(block("moving: sources").splitlines(), ended, strict=True):
        assert re.search(r"^of.*: imported, .*, verified$", said.output, re.MULTILINE), (line, said)


async def test_the_snippet_connects_an_editor(service: Service, tmp_path: Path) -> None:
    require_npm_packages()
    (tmp_path / "node_modules").symlink_to(Path(__file__).parent / "node_modules")
    (tmp_path / "browser.mjs").write_text("import WebSocket from 'ws'\nglobalThis.WebSocket = WebSocket\n")
    lines = block("moved editor").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    (tmp_path / "editor.mjs").write_text(lines + SECOND_EDITOR)
    node = shutil.which("node")
    assert node is not None
    ended = await run(node, "--import", "./browser.mjs", "editor.mjs", cwd=tmp_path)
    assert (ended.exit_code, ended.output.strip()) == (0, "hello"), ended.messages


def test_every_hook_of_hocuspocus_is_mapped_or_refused_with_a_reason() -> None:
    readme = README.read_text()
    table = readme[readme.index("<!-- hooks -->") : readme.index("<!-- end of hooks -->")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert set(rows) == set(at_work("hooks")["hooks"])
    for hook, told in rows.items():
        assert re.match(r"here: |not here, (because|for the same reason)", told), hook
