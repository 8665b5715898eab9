"""Asking the application who may do what: its HTTP endpoint, signed, or a Python callable of its own.

The endpoint is asked once for the same question within a while, by everyone who waits for the answer together; a
revocation makes every answer be asked for anew. A denial is the application's word and is told as such; anything
that is no clear answer (a time-out, a 500, nonsense) is a passing trouble, and lets nobody in.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import importlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import httpx
import orjson
import structlog

from ydoc_store.auth.access import Access, Asked, Granted, Reach
from ydoc_store.errors import (
    AuthUnavailable,
    Forbidden,
    NoSuchDocument,
    SettingInvalid,
    Unauthenticated,
    YdocError,
)
from ydoc_store.names import DEFAULT_TENANT

log = structlog.get_logger(__name__)

SIGNATURE_HEADER: Final = "YDoc-Signature"
# Questions that are remembered; past it the oldest answer is asked for again.
ANSWERS_MAX: Final = 10_000
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
PATTERNS_MAX: Final = 100
"""Patterns with a `*` in an answer about all documents: each line of a list or a feed is held against all of them.
Whole names are looked up, and there may be as many as the answer holds."""


def sign(secret: str, body: bytes, now_s: float) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 over `t.body`, so that an old request cannot be sent again as a new one."""
    moment = str(int(now_s))
    digest = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


class AskedEndpoint:
    """The application's HTTP endpoint. `kept_s` is how long an answer counts, `timeout_s` how long it is waited for."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        client: httpx.AsyncClient,
        *,
        timeout_s: float,
        kept_s: float,
        now: Callable[[], float] = time.monotonic,
    ):
        self._url = url
        self._secret = secret
        self._client = client
        self._timeout_s = timeout_s
        self._kept_s = kept_s
        self._now = now
        self._answers: dict[Asked, tuple[float, asyncio.Task[Granted]]] = {}

    async def authorize(self, asked: Asked) -> Granted:
        """As `Authorize` says. Cancelling one who waits cancels nobody else's question."""
        return _allowed(await self._answer(asked))

    async def reach(self, asked: Asked) -> Reach:
        """The documents that the application names, or everything for whoever it lets read `*`."""
        return _reach(await self._answer(asked))

    async def _answer(self, asked: Asked) -> Granted:
        now_s = self._now()
        kept = self._answers.get(asked)
        if kept is None or now_s - kept[0] >= self._kept_s or _is_worthless(kept[1]):
            self._answers.pop(asked, None)
            while len(self._answers) >= ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]
            kept = self._answers[asked] = now_s, asyncio.create_task(self._ask(asked))
        return await asyncio.shield(kept[1])

    def forget(self) -> None:
        """Ask anew from now on."""
        self._answers.clear()

    async def _ask(self, asked: Asked) -> Granted:
        asked_at_s = time.time()
        body = orjson.dumps({"tenant": DEFAULT_TENANT, **asdict(asked)})
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = sign(self._secret, body, asked_at_s)
        try:
            answer = await self._client.post(
                self._url, content=body, headers=headers, timeout=self._timeout_s, follow_redirects=False
            )
        except httpx.HTTPError as error:
            log.warning("the application could not be asked", reason=type(error).__name__)
            raise AuthUnavailable("it cannot be told now who may open this document") from None
        match answer.status_code:
            case 200:
                return _issued(self._granted(answer), asked_at_s)
            case 401:
                raise Unauthenticated("the application does not know this token")
            case 403:
                raise Forbidden("the application does not allow this document")
            case 404:
                raise NoSuchDocument("the application has no such document")
        log.warning("the application gave no answer", status=answer.status_code)
        raise AuthUnavailable("it cannot be told now who may open this document")

    def _granted(self, answer: httpx.Response) -> Granted:
        try:
            if len(answer.content) > ANSWER_BYTES_MAX:
                raise ValueError("it is too large")
            return granted_from(answer.json())
        except ValueError as error:
            log.warning("the application's answer is none", reason=str(error))
            raise AuthUnavailable("it cannot be told now who may open this document") from None


def _is_worthless(answer: asyncio.Task[Granted]) -> bool:
    return answer.done() and (answer.cancelled() or isinstance(answer.exception(), AuthUnavailable))


def _issued(granted: Granted, asked_at_s: float) -> Granted:
    """An answer is as old as its question: a revocation refuses what was granted before it, not the next answer."""
    return replace(granted, issued_at_s=asked_at_s) if granted.issued_at_s is None else granted


def granted_from(answer: object) -> Granted:
    """A 200's body: `{access, user: {id, name}, expires_at, initial_update, documents}`. Raises ValueError for anything
    else.

    `expires_at` is seconds since 1970; `initial_update` is a Yjs update in base64. `documents` are patterns with an
    access each, of an answer about `*`: `access` may be left out beside them, and is NONE then.
    """
    if not isinstance(answer, Mapping):
        raise ValueError("it is no object")
    documents = None if answer.get("documents") is None else _documents(answer["documents"])
    word = answer.get("access")
    access = Access.NONE if documents is not None and word is None else Access.parse(word)
    if access is None:
        raise ValueError("its 'access' is none of read, write and admin")
    user = answer.get("user") or {}
    if not isinstance(user, Mapping):
        raise ValueError("its 'user' is no object")
    expires_at = answer.get("expires_at")
    if expires_at is not None and not isinstance(expires_at, int | float):
        raise ValueError("its 'expires_at' is no number of seconds")
    initial = answer.get("initial_update")
    return Granted(
        tenant=_text(answer.get("tenant")) or DEFAULT_TENANT,
        actor=_text(user.get("id")),
        access=access,
        name=_text(user.get("name")),
        expires_at_s=None if expires_at is None else float(expires_at),
        initial_update=None if initial is None else _decoded(initial),
        documents=documents,
    )


def _documents(value: object) -> dict[str, Access]:
    if not isinstance(value, Mapping):
        raise ValueError("its 'documents' is no object of patterns")
    if sum("*" in pattern for pattern in value) > PATTERNS_MAX:
        raise ValueError(f"its 'documents' has more than {PATTERNS_MAX} patterns with a *")
    found = {}
    for pattern, word in value.items():
        access = Access.parse(word)
        if access is None:
            raise ValueError(f"the access to {pattern!r} is none of read, write and admin")
        found[pattern] = access
    return found


def _allowed(granted: Granted) -> Granted:
    """Raises Forbidden for an answer that allows nothing."""
    if granted.access is Access.NONE:
        raise Forbidden("the application does not allow this document")
    return granted


def _reach(granted: Granted) -> Reach:
    """Raises Forbidden for an answer that lets nothing be read."""
    if granted.documents is None:
        return Reach(_allowed(granted))
    if not granted.documents:
        raise Forbidden("the application allows no documents")
    return Reach(replace(granted, access=max(granted.documents.values())), granted.documents)


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("an id or a name is no string")
    return value


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True)  # type: ignore[arg-type] # what is no text raises TypeError
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("its 'initial_update' is no base64") from None


class AskedCallable:
    """A function of the application's, `module:name`, in this process. It gets an `Asked`, and returns a `Granted`
    or raises one of our errors; it may be async, and one that is not runs in a thread."""

    def __init__(self, path: str, timeout_s: float):
        self._function = find_function(path, "YDOC_AUTHORIZE")
        self._timeout_s = timeout_s

    async def authorize(self, asked: Asked) -> Granted:
        """As `Authorize` says; whatever else it raises lets nobody in."""
        return _allowed(await self._answer(asked))

    async def reach(self, asked: Asked) -> Reach:
        """The documents that the application names, or everything for whoever it lets read `*`."""
        return _reach(await self._answer(asked))

    async def _answer(self, asked: Asked) -> Granted:
        asked_at_s = time.time()
        try:
            async with asyncio.timeout(self._timeout_s):
                if inspect.iscoroutinefunction(self._function):
                    granted = await self._function(asked)
                else:
                    granted = await asyncio.to_thread(self._function, asked)
        except YdocError:
            raise
        except Exception:
            log.exception("the application's function failed")
            raise AuthUnavailable("it cannot be told now who may open this document") from None
        if not isinstance(granted, Granted):
            raise Forbidden("the application does not allow this document")
        return _issued(granted, asked_at_s)

    def forget(self) -> None:
        """It is asked every time."""


def find_function(path: str, variable: str) -> Callable[..., Any]:
    """`module:name` in this process. Raises SettingInvalid, naming the variable, for what cannot be called."""
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingInvalid(f"{variable}: {path!r} cannot be found: {error}") from None
    if not callable(found):
        raise SettingInvalid(f"{variable}: {path!r} cannot be called")
    called: Callable[..., Any] = found
    return called
