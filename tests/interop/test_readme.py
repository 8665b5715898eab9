"""README is true: its commands run, its snippets work, its tables say what the code says."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import compactor.cli
import ydoc_store.cli
from tests.interop.yjs_judge import require_npm_packages
from tests.service import Ended, Program, Service, run, serving
from ydoc_store.setting_rows import describe
from ydoc_store.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BIN = Path(sys.executable).parent
INSTALL_TIMEOUT_S = 280

# Waits for the first provider, edits, and ends when a second editor shows the edit.
SECOND_EDITOR = """
provider.once('sync', () => {
  doc.getText('content').insert(0, 'hello')
  const other = new Y.Doc()
  other.getText('content').observe((event, transaction) => {
    console.log(other.getText('content').toString().slice(0, 5))
    process.exit(0)
  })
  new WebsocketProvider(provider.serverUrl, provider.roomname, other, { disableBc: true })
})
"""


# What a page has and Node has not; a reload loads the page's second life, with what the browser kept.
BROWSER = """
import 'fake-indexeddb/auto'
import WebSocket from 'ws'
globalThis.WebSocket = WebSocket
globalThis.location = { reload: () => { console.log('reloaded'); import('./again.mjs') } }
"""

# Types an update and then another, and says so when both are stored and kept.
KEPT_PAGE = """
import { storeState } from 'y-indexeddb'
provider.once('sync', () => {
  const other = new Y.Doc()
  const seen = new WebsocketProvider(provider.serverUrl, provider.roomname, other, { disableBc: true })
  other.on('update', async () => {
    const text = other.getText('content').toString()
    if (text === 'good') doc.getText('content').insert(4, ' and bad')
    if (text !== 'good and bad') return
    seen.destroy()
    await storeState(persistence)
    console.log('kept')
  })
  seen.once('sync', () => doc.getText('content').insert(0, 'good'))
})
"""

WITH_TOKEN = """
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import { HocuspocusProvider } from '@hocuspocus/provider'
const doc = new Y.Doc()
"""

UNTIL_SYNCED = """
const isIn = provider => new Promise(resolve => provider.on('synced', resolve))
await Promise.all([inUrl, inProtocol, inMessage].map(provider =>
  isIn(provider).then(() => console.log('in'))))
process.exit(0)
"""

SECOND_STREAM = """
provider.once('synced', () => {
  doc.getText('content').insert(0, 'hello')
  const other = new Y.Doc()
  other.getText('content').observe(() => {
    console.log(other.getText('content').toString())
    process.exit(0)
  })
  new YjsProvider({ doc: other, baseUrl: provider.baseUrl, docId: provider.docId })
})
"""

PAGE_AGAIN = """
await persistence.whenSynced
provider.once('sync', () => { console.log(doc.getText('content').toString()); process.exit(0) })
if (provider.synced) { console.log(doc.getText('content').toString()); process.exit(0) }
"""


def block(title: str) -> str:
    """The code block behind `<!-- title -->`."""
    found = re.search(rf"<!-- {title} -->\n```\w+\n(.*?)\n```", README.read_text(), re.DOTALL)
    assert found is not None, f"README has no block {title!r}"
    return found[1]


def shown(value: object, unit: str | None) -> str:
    if value is None or value == "":
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if unit in ("bytes", "bytes/s") and isinstance(value, int):
        for factor, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value % factor == 0:
                return f"{value // factor} {name}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    rows = ["| variable | default | unit | why |", "|---|---|---|---|"]
    for row in describe(Settings.load({})):
        default = "a folder of yours" if row.name == "data_dir" else shown(row.default, row.unit)
        rows.append(f"| `{row.variable}` | {default} | {row.unit or ''} | {row.reason} |")
    return "\n".join(rows)


async def edit_as_readme_says(service: Service, folder: Path) -> str:
    """What a second editor shows after the first one, made of README's four lines, has typed."""
    require_npm_packages()
    lines = block("editor").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    (folder / "node_modules").symlink_to(Path(__file__).parent / "node_modules")
    (folder / "editor.mjs").write_text(lines + SECOND_EDITOR)
    # What a browser has and Node before 22 has not.
    (folder / "browser.mjs").write_text("import WebSocket from 'ws'\nglobalThis.WebSocket = WebSocket\n")
    node = shutil.which("node")
    assert node is not None
    ended = await run(node, "--import", "./browser.mjs", "editor.mjs", cwd=folder)
    assert ended.exit_code == 0, ended.messages
    return ended.output.strip()


async def shell(line: str, database_url: str) -> Ended:
    environment = {"YDOC_DATABASE_URL": database_url, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return await run("sh", "-c", line, environment=environment)


def test_every_setting_stands_in_readme_with_its_default_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("YDOC_") and not name.startswith("YDOC_TEST_")]:
        monkeypatch.delenv(name)
    # To write it anew: python -m tests.interop.test_readme
    assert f"<!-- settings -->\n{settings_table()}\n<!-- end of settings -->" in README.read_text()


PROGRAMS = {"ydoc-store": ydoc_store.cli.commands, "ydoc-compactor": compactor.cli.commands}


def test_every_command_in_readme_exists() -> None:
    second = "list|show|compactions|delete|undelete|recreate|purge|epochs|bump|new|remove"
    named = set(re.findall(rf"`(ydoc-store|ydoc-compactor) ([a-z-]+(?: (?:{second})\b)?)", README.read_text()))
    assert len(named) >= 10
    for program, words in sorted(named):
        told = CliRunner().invoke(PROGRAMS[program], [*words.split(), "--help"])
        assert told.exit_code == 0, (program, words, told.output)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_each_program_is_installed(program: str) -> None:
    ended = await run(BIN / program, "--help")
    assert ended.exit_code == 0, ended.messages
    assert f"Usage: {program} " in ended.output


async def test_the_four_lines_connect_an_editor(service: Service, tmp_path: Path) -> None:
    assert await edit_as_readme_says(service, tmp_path) == "hello"


async def test_the_provider_of_durable_streams_connects_as_written(service: Service, tmp_path: Path) -> None:
    require_npm_packages()
    (tmp_path / "node_modules").symlink_to(Path(__file__).parent / "node_modules")
    lines = block("durable streams").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    (tmp_path / "page.mjs").write_text(lines + SECOND_STREAM)
    ended = await run("node", "page.mjs", cwd=tmp_path)
    assert (ended.exit_code, ended.output.strip()) == (0, "hello"), ended.messages


@pytest.mark.parametrize(
    ("title", "shows"),
    [
        ("an agent", "Once upon a time"),
        ("an agent that answers", "Is anybody here? @agent\nYes."),
        ("a job", "100"),
        ("a notebook", "seen by all"),
        ("cells of a notebook", "3"),
        ("a stream", "tea\ncake"),
    ],
)
async def test_the_python_examples_run_as_written(service: Service, tmp_path: Path, title: str, shows: str) -> None:
    lines = block(f"python: {title}").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    (tmp_path / "example.py").write_text(lines)
    ended = await run(sys.executable, "-W", "error", tmp_path / "example.py", cwd=tmp_path)
    assert (ended.exit_code, ended.output.strip()) == (0, shows), ended.messages
    assert ended.messages == ""


async def test_the_python_examples_are_typed_as_strictly_as_their_reader_may_want(tmp_path: Path) -> None:
    titles = ("an agent", "an agent that answers", "a job", "a notebook", "cells of a notebook")
    for number, title in enumerate(titles):
        (tmp_path / f"example_{number}.py").write_text(block(f"python: {title}"))
    ended = await run(sys.executable, "-m", "mypy", "--strict", *sorted(tmp_path.glob("*.py")))
    assert ended.exit_code == 0, ended.output


async def test_the_closed_handler_clears_what_the_browser_kept_and_reloads(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    """I10: over a repair; the page that is loaded anew shows the repaired document and nothing of the old copy."""
    require_npm_packages()
    (tmp_path / "node_modules").symlink_to(Path(__file__).parent / "node_modules")
    (tmp_path / "browser.mjs").write_text(BROWSER)
    lines = f"{block('editor')}\n{block('closed handler')}".replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    (tmp_path / "page.mjs").write_text(lines + KEPT_PAGE)
    (tmp_path / "again.mjs").write_text(lines + PAGE_AGAIN)
    command = ("sh", "-c", f"cd {tmp_path} && exec node --import ./browser.mjs page.mjs")
    page = Program(command, re.compile(r"^kept$", re.MULTILINE), tmp_path / "page.log")
    try:
        await page.start()
        repaired = await shell("ydoc-store repair my-document --to-seq 1", database_url)
        assert repaired.exit_code == 0, repaired.messages
        assert await page.ended() == 0, page.log_text()
    finally:
        await page.clear_away()
    assert page.log_text().splitlines()[-2:] == ["reloaded", "good"]


async def test_a_token_made_as_written_lets_editors_in_wherever_they_show_it(tmp_path: Path, database_url: str) -> None:
    require_npm_packages()
    made = await shell(f'{block("a token")}\necho "$YDOC_JWT_SECRET"', database_url)
    assert made.exit_code == 0, made.messages
    token, secret = made.output.split()
    async with serving(tmp_path, database_url=database_url, environment={"YDOC_JWT_SECRET": secret}) as service:
        places = {"url": service.url, "hocuspocusUrl": service.url.replace("/yjs", "/hocuspocus"), "token": token}
        (tmp_path / "node_modules").symlink_to(Path(__file__).parent / "node_modules")
        (tmp_path / "browser.mjs").write_text("import WebSocket from 'ws'\nglobalThis.WebSocket = WebSocket\n")
        here = "".join(f"const {name} = {json.dumps(value)}\n" for name, value in places.items())
        (tmp_path / "page.mjs").write_text(WITH_TOKEN + here + block("editor with a token") + UNTIL_SYNCED)
        ended = await run("node", "--import", "./browser.mjs", "page.mjs", cwd=tmp_path)
    assert (ended.exit_code, ended.output.split()) == (0, ["in", "in", "in"]), ended.messages


async def test_the_look_at_what_is_stored_works_as_written(service: Service, database_url: str, tmp_path: Path) -> None:
    await edit_as_readme_says(service, tmp_path)
    for line in block("a look at what is stored").splitlines():
        ended = await shell(line, database_url)
        assert ended.exit_code == 0, (line, ended.messages)
        assert "my-document" in ended.output or "verify" in line or "hello" in ended.output, line


async def test_documents_are_written_and_read_over_http_as_written(service: Service, tmp_path: Path) -> None:
    lines = block("documents over HTTP").replace("127.0.0.1:1234", f"127.0.0.1:{service.port}")
    ended = await run("sh", "-e", "-c", lines, cwd=tmp_path)
    assert ended.exit_code == 0, ended.output + ended.messages
    assert 'Hello, world{"name":"team/notes"' in ended.output
    assert '"meta":{"tags":["draft","new"],"title":"Notes"}' in ended.output
    assert ended.output.endswith('{"name":"notes","epoch":1,"seq":2}')


async def test_a_given_database_is_migrated_and_served_as_written(empty_database_url: str, free_port: int) -> None:
    export, migrate, serve = block("own database").splitlines()
    assert export.startswith("export YDOC_DATABASE_URL=")
    refused = await shell(f"{serve} --port {free_port}", empty_database_url)
    assert refused.exit_code == 2, refused.messages
    assert migrate in refused.messages
    assert (await shell(migrate, empty_database_url)).exit_code == 0
    assert (await shell("ydoc-store documents list", empty_database_url)).exit_code == 0


async def test_the_first_command_brings_up_the_service_on_an_empty_machine(
    open_folder_on_disk: Path, free_port: int
) -> None:
    clone = open_folder_on_disk / "clone"
    tracked = await run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in tracked.output.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith("tests/"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    environment = {"YDOC_PORT": str(free_port), "YDOC_DATA_DIR": str(open_folder_on_disk / "data")}
    install, serve = block("first command").rsplit(" && ", 1)
    installed = await run("sh", "-c", install, cwd=clone, environment=environment, timeout_s=INSTALL_TIMEOUT_S)
    assert installed.exit_code == 0, installed.messages
    command = ("sh", "-c", f"cd {clone} && exec {serve}")
    service = Program(command, re.compile(r"^ +data +(.+)$", re.MULTILINE), open_folder_on_disk / "log", environment)
    try:
        said = (await service.start()).string
        assert f"ws://127.0.0.1:{free_port}/yjs/NAME" in said
        assert str(open_folder_on_disk / "data") in said
        await service.stop()
    finally:
        await service.clear_away()


if __name__ == "__main__":
    text = README.read_text()
    start = text.index("<!-- settings -->\n") + len("<!-- settings -->\n")
    README.write_text(text[:start] + settings_table() + "\n" + text[text.index("<!-- end of settings -->") :])
