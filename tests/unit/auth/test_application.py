"""The application is asked as documented, its word is told as it is, and its silence lets nobody in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from ydoc_store.auth.access import Access, Asked, Granted
from ydoc_store.auth.application import PATTERNS_MAX, AskedCallable, AskedEndpoint, granted_from, sign
from ydoc_store.auth.revocations import Revocations
from ydoc_store.errors import (
    AuthUnavailable,
    Forbidden,
    NoSuchDocument,
    SettingInvalid,
    Unauthenticated,
    YdocError,
)
from ydoc_store.storage.revocations import Revocation

ASKED = Asked("team/notes", "a-token", "session=1", "https://app.example", "10.0.0.7", "hocuspocus")
WRITE = {"access": "write", "user": {"id": "ann", "name": "Ann"}}


class Application:
    """The application's HTTP server as httpx's transport, and a clock that a test moves."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response], secret: str | None = "shared") -> None:
        self.requests: list[httpx.Request] = []
        self.now_s = 0.0
        self._answer = answer
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._take))
        self.endpoint = AskedEndpoint(
            "https://app.example/authorize", secret, client, timeout_s=3, kept_s=30, now=lambda: self.now_s
        )

    def _take(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)


def answering(body: Any = WRITE, status: int = 200) -> Application:
    return Application(lambda _request: httpx.Response(status, json=body))


async def test_the_question_holds_everything_and_is_signed() -> None:
    application = answering()
    granted = await application.endpoint.authorize(ASKED)
    assert (granted.tenant, granted.actor, granted.name, granted.access) == ("default", "ann", "Ann", Access.WRITE)
    (request,) = application.requests
    assert json.loads(request.content) == {
        "tenant": "default",
        "document": "team/notes",
        "token": "a-token",
        "cookie": "session=1",
        "origin": "https://app.example",
        "address": "10.0.0.7",
        "dialect": "hocuspocus",
    }
    moment, _, signature = request.headers["YDoc-Signature"].partition(",v1=")
    expected = hmac.new(b"shared", moment.removeprefix("t=").encode() + b"." + request.content, hashlib.sha256)
    assert signature == expected.hexdigest()


def test_a_signature_is_over_its_moment_too() -> None:
    assert sign("s", b"{}", 1.9) == sign("s", b"{}", 1.0)
    assert sign("s", b"{}", 1.0) != sign("s", b"{}", 2.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NoSuchDocument),
        (500, AuthUnavailable),
        (302, AuthUnavailable),
        (204, AuthUnavailable),
        (400, AuthUnavailable),
    ],
)
async def test_a_denial_is_told_as_such_and_everything_else_is_a_passing_trouble(
    status: int, error: type[YdocError]
) -> None:
    with pytest.raises(error) as raised:
        await answering(status=status).endpoint.authorize(ASKED)
    assert raised.type is error


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"access": "owner"},
        {"access": "none"},
        {"access": "write", "user": "ann"},
        {"access": "write", "user": {"id": 7}},
        {"access": "write", "user": {"id": "a\0b"}},
        {"access": "write", "expires_at": "tomorrow"},
        {"access": "write", "initial_update": "no base64!"},
        {"access": "write", "initial_update": 7},
        {"documents": ["team/*"]},
        {"documents": {"team/*": "owner"}},
        {"access": "owner", "documents": {"team/*": "read"}},
        {"documents": {f"{number}*": "read" for number in range(PATTERNS_MAX + 1)}},
    ],
)
async def test_nonsense_lets_nobody_in(body: Any) -> None:
    with pytest.raises(AuthUnavailable):
        await answering(body).endpoint.authorize(ASKED)


async def test_an_application_that_does_not_answer_is_a_passing_trouble_and_is_asked_again() -> None:
    def broken(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    application = Application(broken)
    for _ in range(2):
        with pytest.raises(AuthUnavailable):
            await application.endpoint.authorize(ASKED)
    assert len(application.requests) == 2


async def test_the_same_question_is_asked_once_for_everyone_and_for_a_while() -> None:
    application = answering()
    await asyncio.gather(*(application.endpoint.authorize(ASKED) for _ in range(50)))
    application.now_s = 29.9
    await application.endpoint.authorize(ASKED)
    assert len(application.requests) == 1
    application.now_s = 30.0
    await application.endpoint.authorize(ASKED)
    assert len(application.requests) == 2


async def test_somebody_elses_answer_is_never_given() -> None:
    application = Application(
        lambda request: httpx.Response(
            200, json={"access": "read", "user": {"id": json.loads(request.content)["token"]}}
        )
    )
    other = Asked("team/notes", "b-token", "session=1", "https://app.example", "10.0.0.7", "hocuspocus")
    assert (await application.endpoint.authorize(ASKED)).actor == "a-token"
    assert (await application.endpoint.authorize(other)).actor == "b-token"


async def test_a_revocation_makes_it_ask_again() -> None:
    application = answering()
    await application.endpoint.authorize(ASKED)
    application.endpoint.forget()
    await application.endpoint.authorize(ASKED)
    assert len(application.requests) == 2


async def test_a_revocation_refuses_what_was_answered_before_it_and_not_the_next_answer() -> None:
    """Otherwise a document of which access was revoked once would be closed to everyone for a day."""
    application, revocations = answering(), Revocations()
    before = await application.endpoint.authorize(ASKED)
    moment = datetime.now(UTC)
    revocations.take([Revocation(1, "default", "document", "team/notes", moment, moment)])
    application.endpoint.forget()
    with pytest.raises(Unauthenticated, match="revoked"):
        revocations.judge(before, "team/notes")
    revocations.judge(await application.endpoint.authorize(ASKED), "team/notes")
    revocations.judge(await AskedCallable(f"{__name__}:allow_default", 3).authorize(ASKED), "team/notes")


async def test_who_gives_up_cancels_nobody_elses_question() -> None:
    application = answering()
    impatient = asyncio.create_task(application.endpoint.authorize(ASKED))
    patient = asyncio.create_task(application.endpoint.authorize(ASKED))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).actor == "ann"


def test_what_an_empty_document_begins_with_comes_as_base64() -> None:
    granted = granted_from(WRITE | {"initial_update": base64.b64encode(b"\0\0").decode(), "expires_at": 5})
    assert (granted.initial_update, granted.expires_at_s) == (b"\0\0", 5.0)


def allow_default(asked: Asked) -> Granted:
    return Granted("default", asked.token, Access.READ)


def allow(asked: Asked) -> Granted:
    return Granted("acme", asked.token, Access.READ)


async def allow_later(asked: Asked) -> Granted:
    return allow(asked)


def fail(_asked: Asked) -> Granted:
    raise RuntimeError("of the application's own")


def deny(_asked: Asked) -> Granted:
    raise Forbidden("no")


@pytest.mark.parametrize("name", ["allow", "allow_later"])
async def test_a_function_of_the_application_is_asked_whether_it_waits_or_not(name: str) -> None:
    assert (await AskedCallable(f"{__name__}:{name}", 3).authorize(ASKED)).actor == "a-token"


async def test_a_function_that_fails_lets_nobody_in_and_one_that_denies_is_believed() -> None:
    with pytest.raises(AuthUnavailable):
        await AskedCallable(f"{__name__}:fail", 3).authorize(ASKED)
    with pytest.raises(Forbidden):
        await AskedCallable(f"{__name__}:deny", 3).authorize(ASKED)


@pytest.mark.parametrize("path", ["", "nowhere:f", "json:nothing", f"{__name__}:ASKED"])
def test_a_function_that_cannot_be_called_is_told_at_start(path: str) -> None:
    with pytest.raises(SettingInvalid, match="YDOC_AUTHORIZE"):
        AskedCallable(path, 3)


async def take_for_ever(_asked: Asked) -> Granted:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_function_that_takes_for_ever_lets_nobody_in_and_nobody_wait() -> None:
    with pytest.raises(AuthUnavailable):
        await AskedCallable(f"{__name__}:take_for_ever", 0.01).authorize(ASKED)


# All documents

ALL = Asked("*", "a-token")


async def test_an_application_that_names_documents_is_not_asked_for_each() -> None:
    # As some frameworks write what is left out.
    said = {"documents": {"team/*": "read", "mine": "write"}, "access": None, "initial_update": None}
    application = answering(said | {"user": {"id": "ann"}, "expires_at": 7})
    reach = await application.endpoint.reach(ALL)
    assert [reach.covers(name) for name in ("team/a", "mine", "theirs")] == [True, True, False]
    assert (reach.granted.actor, reach.granted.expires_at_s) == ("ann", 7.0)
    assert len(application.requests) == 1
    # It is no access to everything.
    with pytest.raises(Forbidden):
        await application.endpoint.authorize(ALL)


async def test_an_application_that_names_no_documents_lets_all_be_read_or_none() -> None:
    assert (await answering().endpoint.reach(ALL)).covers("any")
    for body in ({"documents": {}}, {"documents": {}, "access": "admin"}):
        with pytest.raises(Forbidden):
            await answering(body).endpoint.reach(ALL)
    with pytest.raises(Forbidden):
        await answering(status=403).endpoint.reach(ALL)


def name_documents(asked: Asked) -> Granted:
    return Granted("default", asked.token, Access.NONE, documents={"team/*": Access.READ})


async def test_a_function_names_documents_too() -> None:
    asked = AskedCallable(f"{__name__}:name_documents", 3)
    reach = await asked.reach(ALL)
    assert [reach.covers(name) for name in ("team/a", "other")] == [True, False]
    with pytest.raises(Forbidden):
        await asked.authorize(ALL)
