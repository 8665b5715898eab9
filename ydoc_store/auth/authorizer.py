"""The one door: every adapter, WebSocket or HTTP, asks here before it loads anything.

Composition of what lives beside this: who decides (a token's own claims, the application's endpoint or function, or
nobody in open mode), and what was taken back since.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import httpx

from ydoc_store.auth.access import OPEN, Access, Asked, Granted, Readable, strongest
from ydoc_store.auth.application import AskedCallable, AskedEndpoint
from ydoc_store.auth.keys import Keys, OneKey, PublishedKeys
from ydoc_store.auth.limits import Addresses, Limit
from ydoc_store.auth.proxies import TrustedProxies
from ydoc_store.auth.revocations import Revocations
from ydoc_store.auth.stateless import Hear, to_function, to_webhook
from ydoc_store.auth.tokens import Claims, Expected, key_id, public_key, read_token, secret_key
from ydoc_store.errors import Forbidden, LimitExceeded, Unauthenticated

if TYPE_CHECKING:
    from ydoc_store.settings import Settings


class Decider(Protocol):
    """Who decides. `forget` makes it ask anew from now on."""

    async def authorize(self, asked: Asked) -> Granted: ...
    def forget(self) -> None: ...


class TokenClaims:
    """The token itself says which documents it is for."""

    def __init__(self, keys: Keys, expected: Expected):
        self._keys = keys
        self._expected = expected

    async def authorize(self, asked: Asked) -> Granted:
        return (await self.claims(asked)).grant(asked.document)

    async def claims(self, asked: Asked) -> Claims:
        """All that the token says. Raises Unauthenticated."""
        if not asked.token:
            raise Unauthenticated("a token is needed")
        key = await self._keys.find(key_id(asked.token))
        return read_token(asked.token, key, self._expected, time.time())

    def forget(self) -> None:
        """Nothing is remembered."""


class OpenToAll:
    """Everyone may do everything: without identities, on loopback only."""

    async def authorize(self, asked: Asked) -> Granted:
        return OPEN

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
        with self._counting_failures(asked):
            granted = await self._decider.authorize(asked)
            self.judge(granted, asked.document)
        return granted

    async def readable(self, asked: Asked) -> Readable:
        """What may be read of everything: `asked` is for `*`, and a token that says less says which documents.

        An application, which is asked about one document, lets nobody in here whom it does not allow `*`. Raises as
        `authorize`.
        """
        decider = self._decider
        if not isinstance(decider, TokenClaims):
            granted = await self.authorize(asked)
            return Readable(granted, lambda name: self._still_holds(granted, name))
        with self._counting_failures(asked):
            claims = await decider.claims(asked)
            if not claims.documents:
                raise Forbidden("this token grants nothing")
            granted = claims.grant(asked.document, at_least=Access.READ)
            self.judge(granted, asked.document)
        patterns = claims.documents
        return Readable(
            granted, lambda name: strongest(patterns, name) >= Access.READ and self._still_holds(granted, name)
        )

    def _still_holds(self, granted: Granted, document: str) -> bool:
        try:
            self.judge(granted, document)
        except Unauthenticated:
            return False
        return True

    @contextlib.contextmanager
    def _counting_failures(self, asked: Asked) -> Iterator[None]:
        address = self.addresses.find(asked.address)
        if address is not None and not address.failures.holds(1, time.monotonic()):
            self._limited("address_failures")
            raise LimitExceeded("too many tokens from this address were refused (YDOC_ADDRESS_FAILURES_PER_S)")
        try:
            yield
        except Unauthenticated:
            if address is not None:
                address.failures.take(1, time.monotonic())
            raise

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
