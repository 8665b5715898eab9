"""Who is let in over HTTP, and which pages may ask: the answers of the sockets' own door."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sites import Site, running_site
from tests.tokens import SECRET, token

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


async def test_without_identities_only_this_machine_is_answered(database_url: str) -> None:
    async with running_site(database_url) as site, site.client() as client:
        assert (await client.get(LIST)).status_code == 200
        assert (await client.get(LIST, headers={"Host": "docs.example.com"})).status_code == 403
        assert (await client.get(LIST, headers={"Origin": "https://evil.example.com"})).status_code == 403
