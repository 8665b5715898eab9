"""Secrets, tokens and revocations by hand and over HTTP, on a running service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.nodes import Editor, closed_at_once
from tests.service import STORE, Ended, Service, run, serving
from tests.tokens import SECRET, token


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Service]:
    environment = {"YDOC_JWT_SECRET": SECRET}
    async with serving(tmp_path, database_url=database_url, environment=environment) as started:
        yield started


async def command(*arguments: str, **variables: str) -> Ended:
    return await run(*STORE, *arguments, environment=variables)


def url(service: Service, name: str, with_token: str) -> str:
    return f"{service.url}/{name}?token={with_token}"


@contextlib.asynccontextmanager
async def admin(service: Service, **claims: Any) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {token('root', {'*': 'admin'}, **claims)}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", headers=headers) as client:
        yield client


async def test_a_secret_and_a_token_made_by_hand_let_somebody_in(tmp_path: Path, database_url: str) -> None:
    secret = (await command("secret", "new")).output.strip()
    assert len(secret) >= 64
    assert secret != (await command("secret", "new")).output.strip()
    file = tmp_path / "secret"
    file.write_text(secret + "\n")
    made = await command("token", "--user", "ann", "--grant", "a/*=write", "--expires", "1h", YDOC_JWT_SECRET=secret)
    assert made.exit_code == 0, made.messages
    environment = {"YDOC_JWT_SECRET_FILE": str(file)}
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        editor = await Editor.open_synced(url(service, "a/b", made.output.strip()))
        await editor.leave()
        assert (await closed_at_once(url(service, "b", made.output.strip())))[0] == 4403


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--user", "ann", "--grant", "a=owner"], "no grant"),
        (["--user", "ann", "--grant", "a=read", "--expires", "soon"], "no duration"),
        (["--user", "ann", "--grant", "a=read", "--expires", "30d"], "YDOC_TOKEN_LIFETIME_MAX_S"),
        (["--user", "ann"], "--grant"),
    ],
)
async def test_a_token_that_would_be_refused_is_not_made(arguments: list[str], words: str) -> None:
    ended = await command("token", *arguments, YDOC_JWT_SECRET=SECRET)
    assert ended.exit_code == 2
    assert words in ended.messages


async def test_a_token_needs_the_services_secret() -> None:
    ended = await command("token", "--user", "ann", "--grant", "a=read")
    assert (ended.exit_code, "YDOC_JWT_SECRET" in ended.messages) == (2, True)


async def test_revoke_sends_away_who_is_inside_and_can_be_taken_back(service: Service, database_url: str) -> None:
    """I18."""
    held = token("ann", iat=time.time() - 1)
    editor = await Editor.open_synced(url(service, "notes", held))
    started_s = time.monotonic()
    made = await command("revoke", "--user", "ann", "--database-url", database_url)
    assert made.exit_code == 0, made.messages
    assert await editor.closed() == (4401, "this access was revoked")
    assert time.monotonic() - started_s < 20
    assert (await closed_at_once(url(service, "notes", held)))[0] == 4401
    async with admin(service) as client:
        (listed,) = (await client.get("/v1/revocations")).json()["revocations"]
        assert listed["user"] == "ann"
        assert (await client.delete(f"/v1/revocations/{listed['id']}")).status_code == 204
        assert (await client.delete(f"/v1/revocations/{listed['id']}")).status_code == 404
    async with asyncio.timeout(60):
        while True:
            again = await Editor.open(url(service, "notes", held))
            with contextlib.suppress(AssertionError):
                await again.synced()
                break
    await again.leave()


async def test_a_page_of_another_site_takes_nothing_back_with_the_cookies_of_a_browser(service: Service) -> None:
    async with admin(service) as client:
        for origin in ("https://evil.example", "null"):
            refused = await client.post("/v1/revocations", json={"user": "ann"}, headers={"Origin": origin})
            assert (refused.status_code, "YDOC_ORIGINS" in refused.text) == (403, True)
        assert (await client.get("/v1/revocations")).json() == {"revocations": []}
        own = {"Origin": f"http://127.0.0.1:{service.port}"}
        assert (await client.post("/v1/revocations", json={"user": "ann"}, headers=own)).status_code == 201


async def test_over_http_a_revocation_needs_admin_access_and_reaches_its_own_tenant_alone(service: Service) -> None:
    inside = await Editor.open_synced(url(service, "notes", token("ann", iat=time.time() - 1)))
    path = f"http://127.0.0.1:{service.port}/v1/revocations"
    async with httpx.AsyncClient() as client:
        assert (await client.post(path, json={"user": "ann"})).status_code == 401
        for documents in ({"*": "write"}, {"a/*": "admin"}):
            headers = {"Authorization": f"Bearer {token('eve', documents)}"}
            refused = await client.post(path, json={"user": "ann"}, headers=headers)
            assert refused.status_code == 403
            assert refused.headers["content-type"] == "application/problem+json"
        headers = {"Authorization": f"Bearer {token('eve', {'notes': 'admin'})}"}
        assert (await client.post(path, json={"document": "other"}, headers=headers)).status_code == 403
    async with admin(service, tenant="other") as elsewhere:
        assert (await elsewhere.post("/v1/revocations", json={"user": "ann"})).status_code == 201
        assert (await elsewhere.post("/v1/revocations", json={"tenant": "default"})).status_code == 403
        assert (await elsewhere.post("/v1/revocations", json={"tenant": "other"})).json()["tenant"] == "other"
    async with admin(service) as client:
        assert (await client.get("/v1/revocations")).json() == {"revocations": []}
        assert (await client.post("/v1/revocations", json={"document": "notes"})).status_code == 201
    assert await inside.closed() == (4401, "this access was revoked")


UNCLEAR = [
    b"",
    b"[]",
    b"{}",
    b"nonsense",
    b'{"user": 7}',
    b'{"user": ""}',
    b'{"user": "a", "document": "b"}',
    b'{"user": "a", "extra": 1}',
    b'{"user": "a", "before": "yesterday"}',
    b'{"user": "a", "before": 1e300}',
    b'{"user": "a\\u0000"}',
    b'{"document": "a//b"}',
    b'{"tenant": true}',
    b'{"user": "' + b"x" * 20_000 + b'"}',
]


async def test_a_body_that_says_nothing_clear_is_refused(service: Service) -> None:
    async with admin(service) as client:
        for body in UNCLEAR:
            answer = await client.post("/v1/revocations", content=body)
            assert answer.status_code == 400, body
            assert answer.json()["detail"]
        assert (await client.get("/v1/revocations")).json() == {"revocations": []}


async def test_over_http_refused_tokens_are_counted_by_the_address_behind_trusted_proxies(
    tmp_path: Path, database_url: str
) -> None:
    environment = {
        "YDOC_JWT_SECRET": SECRET,
        "YDOC_TRUSTED_PROXIES": "127.0.0.1",
        "YDOC_ADDRESS_FAILURES_PER_S": "0.01",
        "YDOC_LIMIT_BURST_S": "300",
    }
    async with (
        serving(tmp_path, database_url=database_url, environment=environment) as service,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client,
    ):

        async def status(address: str) -> int:
            return (await client.get("/v1/revocations", headers={"X-Forwarded-For": address})).status_code

        assert [await status("203.0.113.7") for _ in range(4)] == [401, 401, 401, 429]
        assert await status("198.51.100.1, 203.0.113.7") == 429
        assert await status("198.51.100.1") == 401
        assert (await service.metrics())['ydoc_limited_total{limit="address_failures"}'] == 2


async def test_proxies_that_are_no_networks_are_told_at_the_start(database_url: str) -> None:
    ended = await command(
        "serve", "--port", "0", "--database-url", database_url, YDOC_TRUSTED_PROXIES="10.0.0.0/8, the office"
    )
    assert ended.exit_code == 2
    assert "YDOC_TRUSTED_PROXIES" in ended.messages
    assert "the office" in ended.messages


async def test_metrics_are_for_this_machine_and_for_whoever_may_everything(service: Service) -> None:
    url = f"http://127.0.0.1:{service.port}/metrics"
    through_a_proxy = {"X-Forwarded-For": "203.0.113.7"}
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200
        assert (await client.get(url, headers=through_a_proxy)).status_code == 401
        assert (await client.get(url, headers={"Host": "ydoc.example.com"})).status_code == 401
        for documents, status in (({"*": "write"}, 403), ({"a/*": "admin"}, 403), ({"*": "admin"}, 200)):
            bearer = {"Authorization": f"Bearer {token('prometheus', documents)}"}
            assert (await client.get(url, headers=through_a_proxy | bearer)).status_code == status
        assert (await client.get(url.replace("metrics", "health/live"), headers=through_a_proxy)).status_code == 200
