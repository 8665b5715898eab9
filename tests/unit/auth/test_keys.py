"""Published keys are fetched when they are needed, rotate with their issuer, and are never fetched for a flood."""

from __future__ import annotations

import asyncio
import json

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from ydoc_store.auth.keys import FETCH_PAUSE_S, KEPT_S, PublishedKeys
from ydoc_store.errors import AuthUnavailable, Unauthenticated

ONE = ed25519.Ed25519PrivateKey.generate()
TWO = ed25519.Ed25519PrivateKey.generate()


def published(**keys: ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = jwt.algorithms.OKPAlgorithm()
    rows = [json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name} for name, key in keys.items()]
    return json.dumps({"keys": rows}).encode()


class Issuer:
    """An HTTP server as httpx's transport, and a clock that a test moves."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.fetches = 0
        self.now_s = 1_000.0
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.keys = PublishedKeys("https://issuer/keys", client, lambda: self.now_s)

    def _answer(self, _request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        return httpx.Response(self.status, content=self.body)


async def test_keys_are_fetched_once_for_everyone_who_waits() -> None:
    issuer = Issuer(published(one=ONE))
    found = await asyncio.gather(*(issuer.keys.find("one") for _ in range(20)))
    assert {key.algorithm for key in found} == {"EdDSA"}
    await issuer.keys.find("one")
    assert issuer.fetches == 1


async def test_a_new_key_is_found_and_a_withdrawn_one_is_gone() -> None:
    issuer = Issuer(published(one=ONE))
    await issuer.keys.find("one")
    issuer.body = published(two=TWO)
    issuer.now_s += FETCH_PAUSE_S
    await issuer.keys.find("two")
    with pytest.raises(Unauthenticated):
        await issuer.keys.find("one")


async def test_a_flood_of_unknown_names_is_one_fetch_in_a_while() -> None:
    issuer = Issuer(published(one=ONE))
    for number in range(100):
        with pytest.raises(Unauthenticated):
            await issuer.keys.find(f"made up {number}")
    assert issuer.fetches == 1


async def test_an_issuer_that_is_away_leaves_the_known_keys_in_force() -> None:
    issuer = Issuer(published(one=ONE))
    await issuer.keys.find("one")
    issuer.status = 500
    issuer.now_s += KEPT_S
    assert (await issuer.keys.find("one")).algorithm == "EdDSA"
    assert issuer.fetches == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "AA"}]}',
        b"<html>",
        b'{"keys": 7}',
        b'{"keys": [7]}',
    ],
)
async def test_without_any_key_nobody_is_sent_away_for_good(body: bytes) -> None:
    with pytest.raises(AuthUnavailable):
        await Issuer(body).keys.find("one")


async def test_a_token_without_a_name_for_its_key_takes_the_only_one_there_is() -> None:
    assert (await Issuer(published(one=ONE)).keys.find(None)).algorithm == "EdDSA"
    with pytest.raises(Unauthenticated):
        await Issuer(published(one=ONE, two=TWO)).keys.find(None)
