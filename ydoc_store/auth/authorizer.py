"""The one door: every adapter, WebSocket or HTTP, asks here before it loads anything.

Composition of what lives beside this: who decides (a token's own claims, the application's endpoint or function, or
nobody in open mode), and what was taken back since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import httpx

from ydoc_store.auth.access import OPEN, Asked, Granted, Reach
from ydoc_store.auth.application import AskedCallable, AskedEndpoint
from ydoc_store.auth.keys import Keys, OneKey, PublishedKeys
from ydoc_store.auth.limits import Addresses, Limit
from ydoc_store.auth.proxies import TrustedProxies
from ydoc_store.auth.revocations import Revocations
from ydoc_store.auth.stateless import Hear, to_function, to_webhook
from ydoc_store.auth.tokens import Expected, key_id, public_key, read_token, secret_key
from ydoc_store.errors import LimitExceeded, Unauthenticated

if TYPE_CHECKING:
    from ydoc_store.settings import Settings


class Decider(Protocol):
    """Who decides. `forget` makes it ask anew from now on."""

    async def authorize(self, asked: Asked) -> Granted: ...
    async def reach(self, asked: Asked) -> Reach: ...
    def forget(self) -> None: ...


class TokenClaims:
    """The token itself says which documents it is for."""

    def __init__(self, keys: Keys, expected: Expected):
        self._keys = keys
        self._expected = expected

    async def authorize(self, asked: Asked) -> Granted:
        if not asked.token:
            raise Unauthenticated("a token is needed")
        key = await self._keys.find(key_id(asked.token))
        return read_token(asked.token, key, self._expected, time.time()).grant(asked.document)

    async def reach(self, asked: Asked) -> Reach:
        if not asked.token:
            raise Unauthenticated("a token is needed")
        key = await self._keys.find(key_id(asked.token))
        return read_token(asked.token, key, self._expected, time.time()).reach()

    def forget(self) -> None:
        """Nothing is remembered."""


class OpenToAll:
    """Everyone may do everything: without identities, on loopback only."""

    async def authorize(self, asked: Asked) -> Granted:
        return OPEN

    async def reach(self, asked: Asked) -> Reach:
        return Reach(OPEN)

    def forget(self) -> None:
        """Nothing is remembered."""


class Authorizer:
    """Answers `authorize` for every adapter. `close` ends its HTTP client."""

    def __init__(
        self,
        decider: Decider,
        addresses: Addresses,
        proxies: TrustedProxies,
        client: httpx.AsyncClient | None = None,
        hear: Hear | None = None,
        limited: Callable[[Limit], None] = lambda _limit: None,
    ):
        self.addresses = addresses
        self.proxies = proxies
        self._limited = limited
        self.revocations = Revocations()
        self.hear = hear
        self.is_open = isinstance(decider, OpenToAll)
        self._decider = decider
        self._client = client

    @classmethod
    def of(cls, settings: Settings, limited: Callable[[Limit], None] = lambda _limit: None) -> Authorizer:
        """As the settings say; `limited` hears of each limit that bit. Raises SettingInvalid for a key, a function or
        a network that is none."""
        proxies = TrustedProxies.parse(settings.trusted_proxies)
        addresses = Addresses(settings, is_limited=bool(proxies))
        client = httpx.AsyncClient(follow_redirects=False)
        return cls(_decider(settings, client), addresses, proxies, client, _hearer(settings, client), limited)

    async def authorize(self, asked: Asked) -> Granted:
        """As `auth.access.Authorize` says. Raises LimitExceeded, and asks nobody, while too many tries from the same
        address have failed."""
        with self._counting_failures(asked.address):
            granted = await self._decider.authorize(asked)
            self.judge(granted, asked.document)
        return granted

    async def reach(self, asked: Asked) -> Reach:
        """Which documents may be read by whoever asks; `asked.document` is `*`, about which an application is asked.

        Raises as `authorize` does, Forbidden where there are none.
        """
        with self._counting_failures(asked.address):
            reach = await self._decider.reach(asked)
            self.judge(reach.granted, asked.document)
        return replace(reach, is_revoked=lambda document: self._is_revoked(reach.granted, document))

    @contextmanager
    def _counting_failures(self, address: str | None) -> Iterator[None]:
        found = self.addresses.find(address)
        if found is not None and not found.failures.holds(1, time.monotonic()):
            self._limited("address_failures")
            raise LimitExceeded("too many tokens from this address were refused (YDOC_ADDRESS_FAILURES_PER_S)")
        try:
            yield
        except Unauthenticated:
            if found is not None:
                found.failures.take(1, time.monotonic())
            raise

    def _is_revoked(self, granted: Granted, document: str) -> bool:
        try:
            self.judge(granted, document)
        except Unauthenticated:
            return True
        return False

    def judge(self, granted: Granted, document: str) -> None:
        """Whether what was granted still holds. Raises Unauthenticated where it expired or was taken back."""
        if granted.expires_at_s is not None and granted.expires_at_s <= time.time():
            raise Unauthenticated("this token has expired")
        if not self.is_open:
            self.revocations.judge(granted, document)

    def forget(self) -> None:
        """Something was taken back: the application is asked anew."""
        self._decider.forget()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def _decider(settings: Settings, client: httpx.AsyncClient) -> Decider:
    expected = Expected(settings.jwt_audience, settings.jwt_issuer, settings.token_lifetime_max_s)
    if settings.authorize_url is not None:
        secret = settings.authorize_secret.get_secret_value() if settings.authorize_secret is not None else None
        return AskedEndpoint(
            settings.authorize_url,
            secret,
            client,
            timeout_s=settings.authorize_timeout_s,
            kept_s=settings.authorize_kept_s,
        )
    if settings.authorize is not None:
        return AskedCallable(settings.authorize, settings.authorize_timeout_s)
    if settings.jwt_secret is not None:
        return TokenClaims(OneKey(secret_key(settings.jwt_secret.get_secret_value())), expected)
    if settings.jwt_public_key is not None:
        return TokenClaims(OneKey(public_key(settings.jwt_public_key.get_secret_value())), expected)
    if settings.jwks_url is not None:
        return TokenClaims(PublishedKeys(settings.jwks_url, client), expected)
    return OpenToAll()


def _hearer(settings: Settings, client: httpx.AsyncClient) -> Hear | None:
    if settings.stateless is None:
        return None
    if settings.stateless.startswith(("http://", "https://")):
        secret = settings.authorize_secret.get_secret_value() if settings.authorize_secret is not None else None
        return to_webhook(settings.stateless, secret, client)
    return to_function(settings.stateless, "YDOC_STATELESS")
