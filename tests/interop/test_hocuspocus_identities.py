"""Stock `@hocuspocus/provider` clients with tokens: denied without losing the socket, read-only, renewed while open,
and let in by an application's own endpoint."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.interop.editors import Editor, Editors
from tests.service import Service, serving
from tests.stored import connecting
from tests.tokens import SECRET, token

# `hi` in the root `text`, by client 1.

pytestmark = pytest.mark.least_rights

INITIAL_UPDATE = b"\x01\x01\x01\x00\x04\x01\x04text\x02hi\x00"


@pytest.fixture
async def guarded(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    """A service that asks for tokens."""
    environment = {"YDOC_JWT_SECRET": SECRET}
    async with serving(tmp_path, database_url=database_url, environment=environment) as started:
        yield started


def hocuspocus(service: Service) -> str:
    return service.url.removesuffix("/yjs") + "/hocuspocus"


async def open_with(editors: Editors, service: Service, room: str, *tokens: str, **options: Any) -> Editor:
    return await editors.open_hocuspocus(hocuspocus(service), room, tokens=tokens, **options)


async def test_a_denied_document_leaves_its_socket_to_the_others_and_may_be_asked_for_again(
    guarded: Service, editors: Editors
) -> None:
    mine = await open_with(editors, guarded, "mine", token(documents={"mine": "write"}), socket="shared")
    await mine.saved()
    other = await open_with(editors, guarded, "other", token(documents={"mine": "write"}), token(), socket="shared")
    assert "grants nothing" in (await other.ask("untilRefused"))["reason"]
    await other.type("dropped and kept here")
    await mine.type("goes on")
    await mine.saved()
    await other.ask("sendToken")
    assert (await other.ask("untilScopes", count=1))["scopes"] == ["read-write"]
    await other.ask("forceSync")
    reader = await open_with(editors, guarded, "other", token("ben"))
    await reader.shows("dropped and kept here")


async def test_a_reader_is_told_so_sees_everything_and_stores_nothing(guarded: Service, editors: Editors) -> None:
    writer = await open_with(editors, guarded, "notes", token())
    await writer.saved()
    await writer.type("written")
    await writer.saved()
    reader = await open_with(editors, guarded, "notes", token("eve", {"*": "read"}))
    await reader.saved()
    assert (await reader.ask("untilScopes", count=1))["scopes"] == ["readonly"]
    await reader.shows("written")
    await reader.erase(0, 7)
    await writer.type("!")
    await reader.shows("!")
    assert await writer.text() == "written!"
    assert (await reader.ask("unsynced"))["number"] == 1
    late = await open_with(editors, guarded, "notes", token("ben"))
    await late.shows("written!")


async def test_a_token_that_ends_is_renewed_without_a_new_socket(guarded: Service, editors: Editors) -> None:
    """I18."""
    first = token("ann", exp=time.time() + 16)
    ann = await open_with(editors, guarded, "notes", first, token("ann"))
    await ann.saved()
    scopes = (await ann.ask("untilScopes", count=2))["scopes"]
    assert scopes == ["read-write", "read-write"]
    await ann.type("goes on")
    await ann.saved()
    assert (await ann.ask("closes"))["closes"] == []


async def test_a_socket_never_changes_whose_it_is(guarded: Service, editors: Editors) -> None:
    ann = await open_with(editors, guarded, "notes", token("ann"), token("ben"))
    await ann.saved()
    await ann.ask("sendToken")
    assert "somebody else" in (await ann.ask("untilRefused"))["reason"]


class Application:
    """The application's own HTTP server, in a thread: it lets in whoever has a token, and counts."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.words: queue.Queue[dict[str, Any]] = queue.Queue()
        questions, words = self.questions, self.words

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/words":
                    words.put(asked)
                    self.send_response(204)
                    self.end_headers()
                    return
                questions.append(asked)
                if not asked["token"]:
                    self.send_response(401)
                    self.end_headers()
                    return
                answer = {
                    "access": "write",
                    "user": {"id": asked["token"], "name": asked["token"].title()},
                    "initial_update": base64.b64encode(INITIAL_UPDATE).decode(),
                }
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/authorize"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


async def test_the_application_says_who_may_and_what_an_empty_document_begins_with(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    """Fifty clients at once begin one document exactly once."""
    application = Application()
    environment = {"YDOC_AUTHORIZE_URL": application.url, "YDOC_AUTHORIZE_SECRET": "shared"}
    try:
        async with serving(tmp_path, database_url=database_url, environment=environment) as service:
            opened = await asyncio.gather(*(open_with(editors, service, "notes", f"user{n % 5}") for n in range(50)))
            for editor in opened:
                await editor.shows("hi")
            await opened[0].type(" there")
            await opened[49].shows("hi there")
            nobody = await open_with(editors, service, "notes", "")
            assert "does not know" in (await nobody.ask("untilRefused"))["reason"]
    finally:
        application.stop()
    async with connecting(database_url) as connection:
        rows = await connection.fetch("SELECT u.seq, u.count, u.actor FROM ydoc.updates AS u ORDER BY u.seq")
    assert [tuple(row) for row in rows] == [(1, 1, rows[0]["actor"]), (2, 1, "user0")]
    assert len([asked for asked in application.questions if asked["token"]]) == 5


async def test_stateless_words_reach_the_application_and_those_of_a_writer_the_others_on_every_node(
    tmp_path: Path, database_url: str, editors: Editors
) -> None:
    application = Application()
    environment = {
        "YDOC_JWT_SECRET": SECRET,
        "YDOC_STATELESS": application.url.replace("/authorize", "/words"),
        "YDOC_STATELESS_RELAY": "true",
    }
    try:
        async with (
            serving(tmp_path, database_url=database_url, environment=environment) as here,
            serving(tmp_path, database_url=database_url, environment=environment) as there,
        ):
            ann = await open_with(editors, here, "notes", token("ann"))
            ben = await open_with(editors, here, "notes", token("ben"))
            eve = await open_with(editors, there, "notes", token("eve", {"*": "read"}))
            for editor in (ann, ben, eve):
                await editor.saved()
            await eve.ask("sendStateless", words="from a reader")
            await ann.ask("sendStateless", words="from a writer")
            for editor in (ben, eve):
                assert (await editor.ask("untilWords", count=1))["words"] == ["from a writer"]
            heard = [await asyncio.to_thread(application.words.get, timeout=20) for _ in range(2)]
    finally:
        application.stop()
    assert {(words["actor"], words["document"], words["payload"]) for words in heard} == {
        ("eve", "notes", "from a reader"),
        ("ann", "notes", "from a writer"),
    }
