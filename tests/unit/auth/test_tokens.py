"""A token is believed for its signature alone, by the one algorithm of its key, and while its time has not passed."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ydoc_store.auth.access import Access
from ydoc_store.auth.tokens import Expected, Key, key_id, public_key, read_token, secret_key
from ydoc_store.errors import Forbidden, SettingInvalid, Unauthenticated

SECRET = "a secret of more than sixty-four bytes, so that any of the hashes takes it"
KEY = secret_key(SECRET)
ANY = Expected(None, None, 86_400)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def now() -> float:
    return time.time()


def claims(**added: Any) -> dict[str, Any]:
    return {"sub": "ann", "exp": now() + 60, "iat": now(), "documents": {"a/*": "write"}} | added


def signed(payload: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers or None)


def pem(private: Any) -> str:
    return str(
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_a_token_says_who_of_which_tenant_and_which_documents() -> None:
    token = signed(claims(tenant="acme", name="Ann", documents={"a/*": "write", "b": "read", "c": "nonsense"}))
    found = read_token(token, KEY, ANY, now())
    granted = found.grant("a/b")
    assert (granted.tenant, granted.actor, granted.name, granted.access) == ("acme", "ann", "Ann", Access.WRITE)
    assert found.grant("b").access is Access.READ
    with pytest.raises(Forbidden):
        found.grant("c")


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
def test_a_public_key_is_for_the_one_algorithm_of_its_kind(private: Any, algorithm: str) -> None:
    key = public_key(pem(private))
    assert key.algorithm == algorithm
    assert read_token(signed(claims(), private, algorithm), key, ANY, now()).actor == "ann"


def forged(header: dict[str, Any], payload: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload)]
    return ".".join([*parts, ""])


def hmac_with_the_public_key() -> str:
    # The library refuses to sign so; an attacker's does not.
    import hashlib
    import hmac

    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    digest = hmac.new(pem(RSA).encode(), header + b"." + payload, hashlib.sha256).digest()
    return b".".join([header, payload, base64.urlsafe_b64encode(digest).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    ("token", "key"),
    [
        (forged({"alg": "none"}, claims()), KEY),
        (forged({"alg": "None", "typ": "JWT"}, claims()), public_key(pem(RSA))),
        (signed(claims(), SECRET[::-1]), KEY),
        (hmac_with_the_public_key(), public_key(pem(RSA))),
        (signed(claims(), RSA, "RS256"), KEY),
        (signed(claims(), RSA, "RS512"), public_key(pem(RSA))),
        (signed(claims(), SECRET, "HS512"), KEY),
        (signed(claims())[:-3] + "abc", KEY),
        ("", KEY),
        ("a.b.c", KEY),
        ("no token at all", KEY),
        ("x" * 20_000, KEY),
    ],
)
def test_a_token_that_was_not_signed_by_this_key_and_its_algorithm_is_refused(token: str, key: Key) -> None:
    with pytest.raises(Unauthenticated):
        read_token(token, key, ANY, now())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"exp": now() - 60}, "expired"),
        ({"nbf": now() + 86_400}, "not valid yet"),
        ({"exp": now() + 10 * 86_400}, "lives longer"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": ["a", "b"]}, "tenant"),
        ({"tenant": "a\0b"}, "tenant"),
        ({"documents": ["*"]}, "documents"),
    ],
)
def test_what_does_not_hold_is_told_and_the_token_is_not(changed: dict[str, Any], words: str) -> None:
    token = signed(claims(**changed))
    with pytest.raises(Unauthenticated, match=words) as refused:
        read_token(token, KEY, ANY, now())
    assert token not in str(refused.value)


def test_a_token_must_expire() -> None:
    payload = claims()
    del payload["exp"]
    with pytest.raises(Unauthenticated, match="exp"):
        read_token(signed(payload), KEY, ANY, now())


def test_audience_and_issuer_are_checked_where_they_are_set() -> None:
    expected = Expected("ydoc", "https://issuer", 86_400)
    right = signed(claims(aud=["other", "ydoc"], iss="https://issuer"))
    assert read_token(right, KEY, expected, now()).actor == "ann"
    for payload, words in (
        (claims(aud="other", iss="https://issuer"), "audience"),
        (claims(iss="https://issuer"), "aud"),
        (claims(aud="ydoc", iss="https://else"), "issuer"),
        (claims(aud="ydoc"), "iss"),
    ):
        with pytest.raises(Unauthenticated, match=words):
            read_token(signed(payload), KEY, expected, now())
    assert read_token(right, KEY, ANY, now()).actor == "ann"


def test_without_documents_there_is_no_access() -> None:
    payload = claims()
    del payload["documents"]
    with pytest.raises(Forbidden):
        read_token(signed(payload), KEY, ANY, now()).grant("a")


def test_without_a_tenant_it_is_the_default_one() -> None:
    assert read_token(signed(claims()), KEY, ANY, now()).grant("a/b").tenant == "default"


def test_a_secret_that_can_be_guessed_and_a_key_that_is_none_are_refused_at_start() -> None:
    with pytest.raises(SettingInvalid, match="secret new"):
        secret_key("short")
    with pytest.raises(SettingInvalid, match="PEM"):
        public_key("no key")
    with pytest.raises(SettingInvalid, match="Ed25519"):
        public_key(pem(ec.generate_private_key(ec.SECP521R1())))


def test_the_key_that_a_token_names_is_read_before_anything_is_believed() -> None:
    assert key_id(signed(claims(), kid="k1")) == "k1"
    assert key_id(signed(claims())) is None
    with pytest.raises(Unauthenticated):
        key_id("nonsense")
