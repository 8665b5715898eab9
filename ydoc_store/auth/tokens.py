"""What a JSON Web Token says, once its signature, its time and its audience hold.

The algorithms are fixed by the kind of key, never chosen by the token: HS256 with a secret, RS256, ES256 or EdDSA
with a public key. A token must expire, and within the longest lifetime that revocations reckon with. Reasons that
leave here name what is wrong and never repeat the token. Where keys come from is `keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ydoc_store.auth.access import Access, Granted, Reach, strongest
from ydoc_store.errors import Forbidden, SettingInvalid, Unauthenticated
from ydoc_store.names import DEFAULT_TENANT

# Two clocks that both keep time by the network differ by less.
LEEWAY_S: Final = 5.0
# RFC 7518, 3.2: a key as long as the hash at least.
SECRET_BYTES_MIN: Final = 32
# A proxy's headers end at 8 KiB; a token that lists more documents is better asked for by document.
TOKEN_BYTES_MAX: Final = 16 * 1024
TENANT_BYTES_MAX: Final = 200
ACTOR_BYTES_MAX: Final = 512
NAME_CHARACTERS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it is for."""

    algorithm: str
    material: Any


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say to be for us; None where that is not checked."""

    audience: str | None
    issuer: str | None
    lifetime_s_max: float


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that holds says: who, of which tenant, and which documents."""

    actor: str | None
    tenant: str
    name: str | None
    documents: Mapping[str, Access]
    expires_at_s: float
    issued_at_s: float | None

    def grant(self, document: str) -> Granted:
        """What it may do to this document. Raises Forbidden where that is nothing."""
        access = strongest(self.documents, document)
        if access is Access.NONE:
            raise Forbidden("this token grants nothing for this document")
        return self._granted(access)

    def reach(self) -> Reach:
        """Which documents it may read. Raises Forbidden where there are none."""
        grants = {pattern: access for pattern, access in self.documents.items() if access >= Access.READ}
        if not grants:
            raise Forbidden("this token grants no documents")
        return Reach(self._granted(max(grants.values())), grants)

    def _granted(self, access: Access) -> Granted:
        return Granted(self.tenant, self.actor, access, self.name, self.expires_at_s, self.issued_at_s)


def secret_key(secret: str) -> Key:
    """The key of HS256. Raises SettingInvalid for one that can be guessed."""
    if len(secret.encode()) < SECRET_BYTES_MIN:
        raise SettingInvalid(
            f"YDOC_JWT_SECRET is shorter than {SECRET_BYTES_MIN} bytes and could be guessed: `ydoc-store secret new`"
        )
    return Key("HS256", secret.encode())


def public_key(pem: str) -> Key:
    """The key in a PEM text and its algorithm. Raises SettingInvalid for what is no public key of a known kind."""
    try:
        material = load_pem_public_key(pem.encode())
    except (ValueError, TypeError):
        raise SettingInvalid("YDOC_JWT_PUBLIC_KEY is no public key in PEM form") from None
    key = key_of(material)
    if key is None:
        raise SettingInvalid("YDOC_JWT_PUBLIC_KEY is none of RSA, P-256 and Ed25519")
    return key


def key_of(material: object) -> Key | None:
    """A public key with its algorithm, None where it is of no kind that we take."""
    if isinstance(material, RSAPublicKey):
        return Key("RS256", material)
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return Key("ES256", material)
    if isinstance(material, Ed25519PublicKey):
        return Key("EdDSA", material)
    return None


def key_id(token: str) -> str | None:
    """The `kid` in a token's header, unchecked. Raises Unauthenticated for what is no token."""
    if len(token) > TOKEN_BYTES_MAX:
        raise Unauthenticated("this token is too long")
    try:
        found = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        raise Unauthenticated("this is no token") from None
    return found if isinstance(found, str) else None


def read_token(token: str, key: Key, expected: Expected, now_s: float) -> Claims:
    """What the token says, if it is ours and holds at `now_s`. Raises Unauthenticated with the reason otherwise."""
    if len(token) > TOKEN_BYTES_MAX:
        raise Unauthenticated("this token is too long")
    try:
        claims = jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            audience=expected.audience,
            issuer=expected.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp"], "verify_aud": expected.audience is not None},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("this token has expired") from None
    except jwt.ImmatureSignatureError:
        raise Unauthenticated("this token is not valid yet") from None
    except jwt.InvalidAudienceError:
        raise Unauthenticated("this token is for another audience") from None
    except jwt.InvalidIssuerError:
        raise Unauthenticated("this token is of another issuer") from None
    except jwt.MissingRequiredClaimError as error:
        raise Unauthenticated(f"this token lacks the claim {error.claim!r}") from None
    except jwt.InvalidTokenError:
        raise Unauthenticated("this token does not hold") from None
    return _claims(claims, expected, now_s)


def _claims(claims: Mapping[str, Any], expected: Expected, now_s: float) -> Claims:
    expires_at_s = float(claims["exp"])
    if expires_at_s > now_s + expected.lifetime_s_max + LEEWAY_S:
        raise Unauthenticated("this token lives longer than a revocation is remembered (YDOC_TOKEN_LIFETIME_MAX_S)")
    issued_at = claims.get("iat")
    return Claims(
        actor=_text(claims, "sub", ACTOR_BYTES_MAX),
        tenant=_text(claims, "tenant", TENANT_BYTES_MAX) or DEFAULT_TENANT,
        name=_name(claims.get("name")),
        documents=_documents(claims.get("documents")),
        expires_at_s=expires_at_s,
        issued_at_s=float(issued_at) if isinstance(issued_at, int | float) else None,
    )


def _text(claims: Mapping[str, Any], claim: str, bytes_max: int) -> str | None:
    value = claims.get(claim)
    if value is None:
        return None
    # Postgres's text holds no NUL, and what cannot be stored must not be let in.
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode(errors="replace")) > bytes_max:
        raise Unauthenticated(f"this token's claim {claim!r} is not one string of 1 to {bytes_max} bytes")
    return value


def _name(value: object) -> str | None:
    return value[:NAME_CHARACTERS_MAX] if isinstance(value, str) and value else None


def _documents(value: object) -> dict[str, Access]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unauthenticated("this token's claim 'documents' is no object of patterns")
    found = {pattern: Access.parse(word) for pattern, word in value.items()}
    return {pattern: access for pattern, access in found.items() if access is not None}


def sign_token(secret: str, claims: Mapping[str, Any]) -> str:
    """A token with these claims, signed with HS256. Raises SettingInvalid for a secret that can be guessed."""
    return jwt.encode(dict(claims), secret_key(secret).material, algorithm="HS256")
