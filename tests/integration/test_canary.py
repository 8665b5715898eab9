"""Tokens, cookies and the content of documents never reach a log, whatever is said and whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.interop.editors import editing
from tests.nodes import Editor, closed_at_once, connect_raw
from tests.service import serving
from tests.tokens import SECRET, token
from ydoc_store.yjs import messages

CANARY = "canary-7f3e19"


def signature_of(some_token: str) -> str:
    return some_token.rpartition(".")[2]


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_nothing_that_a_client_said_or_brought_stands_in_the_log(
    tmp_path: Path, database_url: str, log_format: str
) -> None:
    environment = {"YDOC_JWT_SECRET": SECRET, "YDOC_LOG_LEVEL": "debug", "YDOC_LOG_FORMAT": log_format}
    good = token("ann", name=CANARY)
    wrong = token("ann", {f"{CANARY}/*": "read"})
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        where = f"{service.url}/notes"
        cookies = {"Cookie": f"session={CANARY}"}
        editor = await Editor.open_synced(f"{where}?token={good}&note={CANARY}", additional_headers=cookies)
        await editor.type(CANARY)
        await editor.show(1, f'{{"user":{{"name":"{CANARY}"}}}}')
        await editor.say(messages.encode_update(CANARY.encode()))
        assert (await editor.closed())[0] == 4400
        await closed_at_once(f"{where}?token={wrong}")
        await closed_at_once(f"{where}?token={CANARY}")
        await closed_at_once(where, subprotocols=["ydoc", f"ydoc.token.{wrong}"])
        await closed_at_once(where, origin=f"https://{CANARY}.example")
        await closed_at_once(f"{service.url}/{CANARY}/../x?token={good}")
        raw = await connect_raw(f"{where}?token={good}")
        await raw.send(CANARY)
        await raw.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
            for headers in ({"Authorization": f"Bearer {wrong}"}, {"Authorization": CANARY}, cookies):
                await client.post("/v1/revocations", headers=headers, content=CANARY)
                await client.get(f"/{CANARY}?token={good}", headers=headers)
        async with editing() as editors:
            socket = service.url.removesuffix("/yjs") + "/hocuspocus"
            ann = await editors.open_hocuspocus(socket, "notes", tokens=[good])
            await ann.saved()
            await ann.ask("sendStateless", words=CANARY)
            denied = await editors.open_hocuspocus(socket, "notes", tokens=[wrong])
            await denied.ask("untilRefused")
    log = service.log.read_text()
    assert "serving" in log
    assert "connection closed" in log
    for secret in (CANARY, SECRET, signature_of(good), signature_of(wrong)):
        assert secret not in log
