"""Where the keys of tokens come from: a setting, or a JWKS document that the issuer keeps at a URL.

A JWKS is fetched when a token first needs it, kept for a while, and fetched again when a token names a key that it
does not hold: that is how issuers rotate. Unknown names must not become requests: there is one fetch in so many
seconds at most, and an issuer that is away leaves the keys known so far in force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import httpx
import jwt
import structlog

from ydoc_store.auth.tokens import Key, key_of
from ydoc_store.errors import AuthUnavailable, Unauthenticated

log = structlog.get_logger(__name__)

KEPT_S: Final = 300.0
FETCH_PAUSE_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 3.0
DOCUMENT_BYTES_MAX: Final = 256 * 1024


class Keys(Protocol):
    """Gives the key that a token names."""

    async def find(self, key_id: str | None) -> Key:
        """Raises Unauthenticated where there is none, AuthUnavailable where that cannot be told now."""


class OneKey:
    """The same key for every token, whatever name it gives."""

    def __init__(self, key: Key):
        self._key = key

    async def find(self, key_id: str | None) -> Key:
        return self._key


class PublishedKeys:
    """The keys at a JWKS URL."""

    def __init__(self, url: str, client: httpx.AsyncClient, now: Callable[[], float] = time.monotonic):
        self._url = url
        self._client = client
        self._now = now
        self._keys: dict[str | None, Key] = {}
        self._fetched_at_s = float("-inf")
        self._tried_at_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> Key:
        now_s = self._now()
        found = self._find(key_id)
        is_old = now_s - self._fetched_at_s >= KEPT_S
        if (found is None or is_old) and now_s - self._tried_at_s >= FETCH_PAUSE_S:
            # Shared by everyone who asks meanwhile; one who gives up cancels nobody else's.
            if self._fetching is None or self._fetching.done():
                self._fetching = asyncio.create_task(self._fetch())
            await asyncio.shield(self._fetching)
            self._tried_at_s = now_s
            found = self._find(key_id)
        elif self._fetching is not None and not self._fetching.done():
            await asyncio.shield(self._fetching)
            found = self._find(key_id)
        if found is not None:
            return found
        if not self._keys:
            raise AuthUnavailable("the keys that tokens are signed with cannot be fetched")
        raise Unauthenticated("this token is signed with a key that its issuer does not publish")

    def _find(self, key_id: str | None) -> Key | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        try:
            answer = await self._client.get(self._url, timeout=FETCH_TIMEOUT_S)
            answer.raise_for_status()
            if len(answer.content) > DOCUMENT_BYTES_MAX:
                raise ValueError("it is too large")
            published = jwt.PyJWKSet.from_dict(answer.json())
        except Exception as error:  # JSON of any shape: whatever is wrong with it, the keys known so far stay
            log.warning("the published keys could not be fetched", reason=str(error) or type(error).__name__)
            return
        keys = {jwk.key_id: key for jwk in published.keys if (key := key_of(jwk.key)) is not None}
        if keys:
            self._keys = keys
            self._fetched_at_s = self._now()
