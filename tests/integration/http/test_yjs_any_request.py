"""Whatever is asked of the Yjs protocol's paths is answered in its words and changes nothing that was not said well."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from tests.integration.http.stream_copies import Copy, created, path_of, typed
from tests.nodes import count_stored
from tests.sites import running_site
from ydoc_store.http.tokens import SnapshotAt, Token
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import join_frames

REQUESTS = 300
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "TRACE")
OFFSETS = ("-1", "now", "snapshot", "", "0", "x" * 300, "-1_snapshot", "\u00e9", "1_1")
TOKENS = (Token(1, 0), Token(1, 1), Token(1, 2), Token(1, 99), Token(2, 1), Token(10**15, 10**15 // 3))
LIVES = ("long-poll", "sse", "true", "false", "", "x")
STREAMS = ("default", "mods", "", ".", "a/b", "x" * 65, "%00")
NUMBERS = ("0", "1", "7", "-1", "", "x", "9007199254740991", "9" * 30, "1e3", "+1")


def any_body(dice: random.Random) -> bytes:
    """No update among them."""
    kind = dice.randrange(6)
    good = join_frames([typed("never"), b""])
    if kind == 0:
        return b""
    if kind == 1:
        return dice.randbytes(dice.randrange(1, 60))
    if kind == 2:
        return good[: dice.randrange(1, len(good) - 1)]
    if kind == 3:
        flipped = bytearray(join_frames([dice.randbytes(dice.randrange(3, 30)) for _ in range(3)]))
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        return bytes(flipped)
    if kind == 4:
        return join_frames([encode_awareness_entries([AwarenessEntry(dice.randrange(9), dice.randrange(9), "{}")])])
    return join_frames([b"\0\0"] * dice.randrange(1, 4))


def any_request(dice: random.Random, client: httpx.AsyncClient) -> httpx.Request:
    offset = dice.choice([*OFFSETS, *map(str, TOKENS), *(str(SnapshotAt(token)) for token in TOKENS)])
    params = [("offset", offset)] if dice.random() < 0.8 else []
    if dice.random() < 0.3:
        params.append(("live", dice.choice(LIVES)))
    if dice.random() < 0.3:
        params.append(("awareness", dice.choice(STREAMS)))
    if dice.random() < 0.2:
        params.append(("cursor", dice.choice(NUMBERS)))
    if dice.random() < 0.1:
        params.append(dice.choice(params or [("offset", "now")]))
    headers = {
        name: dice.choice(NUMBERS)
        for name in ("Producer-Id", "Producer-Epoch", "Producer-Seq", "Stream-Seq", "Stream-TTL", "If-None-Match")
        if dice.random() < 0.15
    }
    if dice.random() < 0.1:
        headers["Stream-Closed"] = dice.choice(("true", "True", "false", "x"))
    if dice.random() < 0.1:
        headers["Content-Type"] = dice.choice(("application/octet-stream", "text/plain", "", "application/json; x"))
    method = dice.choice(METHODS)
    body = any_body(dice) if method in ("POST", "PUT") else None
    name = dice.choice(("notes", "notes", "notes", "none", "a..b", "notes/", "notes%2f"))
    return client.build_request(method, path_of(name), params=params, headers=headers, content=body)


@pytest.mark.parametrize("seed", [20261126])
async def test_any_request_is_answered_in_the_protocols_words(database_url: str, seed: int) -> None:
    """I13."""
    dice = random.Random(seed)
    settings = {"long_poll_timeout_s": 0.01, "sse_close_s": 0.01}
    async with running_site(database_url, **settings) as site, site.client() as client:
        await created(client, typed("kept"))
        statuses: dict[int, int] = {}
        for _ in range(REQUESTS):
            request = any_request(dice, client)
            async with asyncio.timeout(60):
                answer = await client.send(request)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            told = f"{request.method} {request.url} {dict(request.headers)} {answer.status_code} {answer.text[:200]}"
            assert answer.status_code < 500 or answer.status_code == 501, told
            if answer.status_code >= 400 and request.method != "HEAD":
                assert set(answer.json()["error"]) == {"code", "message", "reason"}, told
            if answer.status_code in (200, 204) and request.method in ("GET", "HEAD") and "sse" not in str(request.url):
                assert "stream-next-offset" in answer.headers, told
        # Each way through was gone, and well-formed nothings are all that was appended.
        assert {200, 400, 404, 405} <= set(statuses), statuses
        copy = Copy()
        await copy.read(client)
        assert copy.text == "kept"
        rows = await count_stored(site.database, "notes")
        assert rows >= 1
