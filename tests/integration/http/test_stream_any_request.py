"""Whatever is asked of the base protocol's paths is answered in its words."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import httpx
import pytest

from tests.sites import running_site
from ydoc_store.http.tokens import Token

REQUESTS = 300
METHODS = ("GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
NAMES = (
    "a",
    "a",
    "b",
    "json",
    "json",
    "documents",
    "none",
    "%2e%2e",
    "a//b",
    "%ff",
    "%00",
    "a%2Fb",
    "__ds/x",
    "%C3%A9",
)
TYPES = ("text/plain", "text/plain; charset=utf-8", "application/json", "application/octet-stream", "", "x")
TOKENS = (Token(1, 0), Token(1, 1), Token(1, 99), Token(2, 1), Token(10**15, 10**15 // 3))
OFFSETS = ("-1", "now", "snapshot", "", "0", "x" * 300, "1_1", *map(str, TOKENS))
NUMBERS = ("0", "1", "7", "-1", "", "x", "9007199254740991", "9" * 30, "1e3", "+1", "\u00e9")
BODIES = (
    b"",
    b"text",
    b"\xff\0",
    b"[1, 2]",
    b'{"a": [1]}',
    b"[",
    b"[]",
    b"NaN",
    b'"\\ud800"',
    b"[" * 3_000,
    b"7" * 2_000,
)


def any_request(dice: random.Random, client: httpx.AsyncClient) -> httpx.Request:
    params = [("offset", dice.choice(OFFSETS))] if dice.random() < 0.7 else []
    if dice.random() < 0.3:
        params.append(("live", dice.choice(("long-poll", "sse", "true", "", "x"))))
    if dice.random() < 0.2:
        params.append(("cursor", dice.choice(NUMBERS)))
    if dice.random() < 0.1:
        params.append(dice.choice(params or [("offset", "now")]))
    names = ("Producer-Id", "Producer-Epoch", "Producer-Seq", "Stream-Seq", "Stream-TTL", "Stream-Expires-At")
    headers = [(name, dice.choice(NUMBERS).encode()) for name in names if dice.random() < 0.15]
    if dice.random() < 0.1:
        headers.append(("Stream-Closed", dice.choice((b"true", b"True", b"false", b"x"))))
    if dice.random() < 0.05:
        headers.append(("Stream-Forked-From", b"/v1/stream/a"))
    if dice.random() < 0.8:
        headers.append(("Content-Type", dice.choice(TYPES).encode()))
    if headers and dice.random() < 0.05:
        headers.append(dice.choice(headers))
    method = dice.choice(METHODS)
    body = dice.choice(BODIES) if method in ("POST", "PUT") else None
    url = client.base_url.copy_with(raw_path=b"/v1/stream/" + dice.choice(NAMES).encode())
    return client.build_request(method, url.copy_merge_params(params), headers=headers, content=body)


@pytest.mark.parametrize("seed", [20261126])
async def test_any_request_is_answered_in_the_protocols_words(database_url: str, seed: int) -> None:
    """I13."""
    dice = random.Random(seed)
    settings = {"long_poll_timeout_s": 0.01, "sse_close_s": 0.01, "update_bytes_max": 2**14}
    async with running_site(database_url, **settings) as site, site.client() as client:
        statuses: Counter[int] = Counter()
        for _ in range(REQUESTS):
            request = any_request(dice, client)
            async with asyncio.timeout(60):
                answer = await client.send(request)
            statuses[answer.status_code] += 1
            told = f"{request.method} {request.url} {request.headers.raw} {answer.status_code} {answer.text[:300]}"
            assert answer.status_code < 500 or answer.status_code == 501, told
            assert answer.headers.get("x-content-type-options") == "nosniff", told
            if answer.status_code >= 400 and request.method != "HEAD":
                assert answer.headers.get("content-type") == "application/problem+json", told
                assert {"code", "detail", "status"} <= answer.json().keys(), told
            if (
                answer.status_code < 400
                and request.method in ("GET", "HEAD", "POST", "PUT")
                and "text/event-stream" not in str(answer.headers)
            ):
                assert "stream-next-offset" in answer.headers, told
        assert {200, 201, 204, 400, 404, 405, 409, 501} <= set(statuses), statuses
