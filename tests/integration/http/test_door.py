"""Who is let in over HTTP, and which pages may ask: the answers of the sockets' own door."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request

from tests.integration.http.stream_copies import typed
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from ydoc_store.auth.access import Asked, Granted
from ydoc_store.auth.origins import Origins
from ydoc_store.errors import TooLarge
from ydoc_store.http.bodies import read_body
from ydoc_store.http.here import Here
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs.lib0 import frame

LIST = "/v1/revocations"


@pytest.fixture
async def guarded(database_url: str) -> AsyncIterator[Site]:
    async with running_site(
        database_url, jwt_secret=SECRET, origins="https://app.example.com", trusted_proxies="127.0.0.1"
    ) as site:
        yield site


def admin() -> str:
    return token(documents={"*": "admin"})


async def test_a_token_may_stand_in_the_header_or_in_the_url(guarded: Site) -> None:
    async with guarded.client() as client:
        assert (await client.get(LIST)).status_code == 401
        assert (await client.get(LIST, headers={"Authorization": f"bearer {admin()}"})).status_code == 200
        assert (await client.get(LIST, params={"token": admin()})).status_code == 200


async def test_a_refusal_has_a_code_for_programs_and_words_for_people(guarded: Site) -> None:
    async with guarded.client(token()) as client:
        answer = await client.get(LIST)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "forbidden"
    assert answer.json()["detail"] == "this needs admin access"


async def test_a_page_of_an_allowed_origin_may_ask_and_read_the_answer(guarded: Site) -> None:
    async with guarded.client(admin()) as client:
        answer = await client.get(LIST, headers={"Origin": "https://app.example.com"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "stream-next-offset" in answer.headers["access-control-expose-headers"]
        assert "location" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


async def test_a_preflight_is_answered_for_allowed_origins_alone(guarded: Site) -> None:
    asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, if-match"}
    async with guarded.client() as client:
        answer = await client.options(LIST, headers={"Origin": "https://app.example.com", **asks})
        assert answer.status_code == 204
        assert "PUT" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization, if-match"
        refused = await client.options(LIST, headers={"Origin": "https://evil.example.com", **asks})
        assert "access-control-allow-origin" not in refused.headers
        assert refused.status_code == 405


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null"])
async def test_another_page_is_refused_whatever_it_brings(guarded: Site, origin: str) -> None:
    async with guarded.client(admin()) as client:
        answer = await client.get(LIST, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_an_address_that_guesses_tokens_waits(guarded: Site) -> None:
    async with guarded.client("no.such.token") as client:
        answers = [await client.get(LIST, headers={"X-Forwarded-For": "192.0.2.1"}) for _ in range(40)]
        assert {answer.status_code for answer in answers} == {401, 429}
        other = await client.get(LIST, headers={"X-Forwarded-For": "192.0.2.2"})
    assert other.status_code == 401
    assert answers[-1].json()["code"] == "limit_exceeded"
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_without_identities_only_this_machine_is_answered(database_url: str) -> None:
    async with running_site(database_url) as site, site.client() as client:
        assert (await client.get(LIST)).status_code == 200
        assert (await client.get(LIST, headers={"Host": "docs.example.com"})).status_code == 403
        assert (await client.get(LIST, headers={"Origin": "https://evil.example.com"})).status_code == 403


# While a body comes


WRITES = {
    "stream": ("POST", "/v1/stream/notes", {"Content-Type": "text/plain"}, b"x"),
    "durable": ("POST", "/v1/yjs/default/docs/notes", {}, frame(typed("x"))),
    "electric": ("PUT", "/v1/shape?table=updates&where=document='notes'", {}, frame(typed("x"))),
    "documents": ("POST", "/v1/documents/notes", {"Content-Type": "application/octet-stream"}, typed("x")),
}


@pytest.mark.parametrize("announced", [False, True], ids=["chunked", "announced"])
@pytest.mark.parametrize("way", WRITES)
async def test_who_is_shut_out_while_their_body_comes_writes_nothing(guarded: Site, way: str, announced: bool) -> None:
    """I18."""
    method, path, headers, body = WRITES[way]
    authorizer, admitted, revoked = guarded.service.authorizer, asyncio.Event(), asyncio.Event()
    authorize = authorizer.authorize

    async def noting(asked: Asked) -> Granted:
        granted = await authorize(asked)
        admitted.set()
        return granted

    async def drawn_out() -> AsyncIterator[bytes]:
        yield body[:1]
        await revoked.wait()
        yield body[1:] or body

    headers |= {"Content-Length": str(len(body[:1] + (body[1:] or body)))} if announced else {}
    async with guarded.client(token("ben", {"*": "read"})) as reader, guarded.client(token()) as writer:
        await writer.put("/v1/stream/notes", headers={"Content-Type": "text/plain"})
        await writer.put("/v1/yjs/default/docs/notes")
        authorizer.authorize = noting  # type: ignore[method-assign] # tells when it has let somebody in
        writing = asyncio.create_task(writer.request(method, path, headers=headers, content=drawn_out()))
        await admitted.wait()
        await insert_revocation(guarded.database, "default", "user", "ann", None, lifetime_s_max=86_400)
        await authorizer.revocations.refresh(guarded.database, 86_400)
        revoked.set()
        assert (await writing).status_code == 401
        assert (await reader.get("/v1/stream/notes")).content == b""
        assert (await reader.get("/v1/yjs/default/docs/notes")).content == b""


async def test_who_only_announces_a_body_makes_nobody_at_their_address_wait(guarded: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    try:
        head = f"POST /v1/stream/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {10**18}\r\n"
        writer.write(f"{head}X-Forwarded-For: 192.0.2.1\r\n\r\n".encode())
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 30)
    finally:
        writer.close()
    async with guarded.client(admin()) as client:
        answer = await client.get(LIST, headers={"X-Forwarded-For": "192.0.2.1"})
    assert answer.status_code == 200


async def test_a_body_is_as_long_as_its_chunks_say(guarded: Site) -> None:
    """Servers on h11 let a Content-Length through beside them."""
    service = guarded.service
    here = Here(
        service.authorizer,
        guarded.database,
        service.rooms,
        Origins(()),
        guarded.settings,
        guarded.metrics,
        guarded.phase.stopping,
    )
    headers = [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    asked = 0

    async def receive() -> dict[str, object]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": asked < 100}

    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(TooLarge):
        await read_body(here, request, 25)
    assert asked == 3


async def test_a_compressed_body_is_refused_and_not_stored_as_it_is(guarded: Site) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    async with guarded.client(token()) as client:
        await client.put("/v1/stream/notes", headers={"Content-Type": "text/plain"})
        answer = await client.post("/v1/stream/notes", headers=headers, content=gzip.compress(b"x"))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert (await client.get("/v1/stream/notes")).content == b""
