"""Reading documents: whole or what a reader lacks, as Yjs or JSON or text, the content of a root type, and figures.

A document is read through the room that its editors are in, so that everything accepted before is in the answer, and
its bytes are shared with whoever reads it at the same time. What has to be built of it is built in a worker where it is
not small. Answers leave in pieces, as fast as their reader takes them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.errors import ConditionFailed, DocumentDeleted, InvalidRequest, NoSuchDocument, TooLarge
from ydoc_store.http.bodies import PacedBody
from ydoc_store.http.document_requests import (
    JSON_TYPE,
    TEXT_TYPE,
    UPDATE_TYPE,
    XML_TYPE,
    Conditions,
    Version,
    accepted,
    conditions_of,
    only,
    single,
)
from ydoc_store.http.incarnations import database_here
from ydoc_store.rooms.admission import judge_vector
from ydoc_store.rooms.follower import follow
from ydoc_store.rooms.pace import Pace
from ydoc_store.storage.documents import find_document
from ydoc_store.storage.listing import Listed, find_listed
from ydoc_store.yjs.answers import TREE_BYTES_MAX, WORK_A_BYTE, content_of, lacking, roots_of
from ydoc_store.yjs.ranges import decode_state_vector

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.http.here import Here
    from ydoc_store.rooms.budgets import Held
    from ydoc_store.rooms.follower import Follower
    from ydoc_store.rooms.whole import Whole
    from ydoc_store.yjs.drafting import As

DIALECT: Final = "documents"
DEFAULT_ROOT: Final = "default"
"""Where editors on ProseMirror keep their content, Tiptap's among them."""
ROOTS_MAX: Final = 100
"""Root types named in one read: a document has a handful."""
CONTENT_TYPES: Final[dict[As, str]] = {
    "prosemirror": JSON_TYPE,
    "json": JSON_TYPE,
    "delta": JSON_TYPE,
    "text": TEXT_TYPE,
    "xml": XML_TYPE,
}
_HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
    # XML may be XHTML, whose scripts would run as this origin in the browser of whoever opens it.
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


async def read(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a GET of a document. Raises NoSuchDocument, DocumentDeleted, NotAcceptable, ConditionFailed."""
    only(request, "sv", "root")
    roots = request.query_params.getlist("root")
    vector = _vector(here, request)
    if vector is not None and roots:
        raise InvalidRequest(f'"sv" is for reading as {UPDATE_TYPE}, "root" for the other forms')
    forms = (JSON_TYPE, TEXT_TYPE) if roots else (UPDATE_TYPE, JSON_TYPE, TEXT_TYPE)
    media_type = accepted(request, forms if vector is None else (UPDATE_TYPE,))
    if len(roots) > (ROOTS_MAX if media_type == JSON_TYPE else 1):
        raise InvalidRequest('too many parameters "root"')
    if (unchanged := await _judge_conditions(here, request, granted, name)) is not None:
        return unchanged
    reader = _Reader(here, granted, name)
    async with contextlib.AsyncExitStack() as stack:
        follower = await reader.enter(stack)
        whole = await stack.enter_async_context(follower.whole())
        version = reader.version(follower.room.epoch, whole.through_seq)
        if media_type == UPDATE_TYPE:
            update = whole.update
            if vector is not None:
                judge_vector(vector, follower.room.marker)
                await reader.makes(whole, stack)
                update = await here.rooms.heavy.run(len(update), lacking, update, vector)
            return reader.answer(update, media_type, version, stack)
        await reader.makes(whole, stack)
        if media_type == TEXT_TYPE:
            root = roots[0] if roots else DEFAULT_ROOT
            told = await in_a_tree(here, whole.update, content_of, root, "text")
            return reader.answer(told, TEXT_TYPE, version, stack)
        told = await in_a_tree(here, whole.update, roots_of, roots or None)
        body = {"name": name, "epoch": version.epoch, "seq": version.seq, "roots": orjson.Fragment(told)}
        return reader.answer(orjson.dumps(body), JSON_TYPE, version, stack)


async def read_content(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a GET of the content of a root type. Raises as `read`, WrongState where it is no such thing."""
    only(request, "root", "as")
    root, as_ = root_and_form(request)
    media_type = accepted(request, (CONTENT_TYPES[as_],) if as_ != "xml" else (XML_TYPE, "text/xml"))
    if (unchanged := await _judge_conditions(here, request, granted, name)) is not None:
        return unchanged
    reader = _Reader(here, granted, name)
    async with contextlib.AsyncExitStack() as stack:
        follower = await reader.enter(stack)
        whole = await stack.enter_async_context(follower.whole())
        await reader.makes(whole, stack)
        told = await in_a_tree(here, whole.update, content_of, root, as_)
        return reader.answer(told, media_type, reader.version(follower.room.epoch, whole.through_seq), stack)


async def in_a_tree(here: Here, update: bytes, work: Callable[..., bytes], *args: object) -> bytes:
    """`work(update, *args)`, which builds the document's tree, in a worker where that is not small. Raises TooLarge."""
    if len(update) > TREE_BYTES_MAX:
        raise TooLarge(f"a document of {len(update):,} bytes is read as a Yjs update alone, and not edited here")
    size = len(update) + sum(len(one) for one in args if isinstance(one, bytes))
    return await here.rooms.heavy.aside.run(size * WORK_A_BYTE, work, update, *args)


async def catch_up(here: Here, follower: Follower) -> None:
    """Have all in the room that was accepted by now, on other nodes too: who wrote there reads it here."""
    follower.raise_if_ended()
    await here.rooms.watch.read_missing(follower.room)
    follower.raise_if_ended()


def root_and_form(request: Request) -> tuple[str, As]:
    """The root type that is meant, and as what. Raises InvalidRequest."""
    root = single(request, "root")
    found = single(request, "as")
    wanted = "prosemirror" if found is None else found
    for as_ in CONTENT_TYPES:
        if as_ == wanted:
            return DEFAULT_ROOT if root is None else root, as_
    raise InvalidRequest(f'"as" is one of {", ".join(CONTENT_TYPES)}')


async def read_vector(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a GET of the state vector, the epoch's marker included: what to send as `sv` to learn what came since."""
    only(request)
    media_type = accepted(request, (UPDATE_TYPE,))
    if (unchanged := await _judge_conditions(here, request, granted, name)) is not None:
        return unchanged
    reader = _Reader(here, granted, name)
    async with contextlib.AsyncExitStack() as stack:
        follower = await reader.enter(stack)
        room = follower.room
        # A vector and its version are of one moment: nothing is awaited in between.
        vector, version = room.state_vector(), reader.version(room.epoch, room.head)
        return reader.answer(vector, media_type, version, stack)


async def describe(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a HEAD, without loading anything."""
    only(request, "sv", "root")
    media_type = accepted(request, (UPDATE_TYPE, JSON_TYPE, TEXT_TYPE))
    if (unchanged := await _judge_conditions(here, request, granted, name)) is not None:
        return unchanged
    version = await current(here, granted, name)
    response = Response(headers=_HEADERS | {"ETag": version.etag}, media_type=media_type)
    del response.headers["content-length"]
    return response


async def read_statistics(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a GET of a document's figures, deleted or not."""
    only(request)
    accepted(request, (JSON_TYPE,))
    found = await find_document(here.database, granted.tenant, name)
    if found is None:
        raise NoSuchDocument(f"no document is named {name!r}")
    told: dict[str, Any] = asdict(found) | {"size_bytes": found.size_bytes}
    # Client ids of our own making, ids of rows and tenants are of no use to a reader.
    for column in ("id", "tenant", "marker"):
        del told[column]
    told["seq"] = told.pop("head")
    return as_json(told)


async def current(here: Here, granted: Granted, name: str) -> Version:
    """Where a document is. Raises NoSuchDocument, DocumentDeleted."""
    return version_of(await must_be_there(here, granted, name), await database_here(here))


async def must_be_there(here: Here, granted: Granted, name: str) -> Listed:
    """Raises NoSuchDocument, DocumentDeleted."""
    found = await find_listed(here.database, granted.tenant, name)
    if found is None:
        raise NoSuchDocument(f"no document is named {name!r}")
    if found.deleted_at is not None:
        raise DocumentDeleted(f"{name!r} was deleted")
    return found


def version_of(found: Listed, database: str) -> Version:
    return Version(found.epoch, found.head, database)


def as_json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, {"Cache-Control": "no-store", **(headers or {})}, media_type=JSON_TYPE)


def _vector(here: Here, request: Request) -> dict[int, int] | None:
    text = single(request, "sv")
    if text is None:
        return None
    try:
        # A plus that nobody escaped arrives as a space.
        encoded = text.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
        vector = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest('"sv" is a state vector in base64 or base64url') from None
    return decode_state_vector(vector, clients_max=here.settings.update_clients_max)


async def _judge_conditions(here: Here, request: Request, granted: Granted, name: str) -> Response | None:
    """304 where the reader has this version already; None where it is to be read. Raises ConditionFailed, and as
    `must_be_there` where conditions are given."""
    conditions = conditions_of(request)
    if conditions == Conditions():
        return None
    found = await must_be_there(here, granted, name)
    version = version_of(found, await database_here(here))
    if conditions.match is not None and version not in conditions.match:
        raise ConditionFailed(found.head)
    if conditions.is_absent or (conditions.none_match is not None and version in conditions.none_match):
        return Response(status_code=304, headers=_HEADERS | {"ETag": version.etag})
    return None


class _Reader:
    """One reader of one document."""

    def __init__(self, here: Here, granted: Granted, name: str):
        self._here = here
        self._granted = granted
        self._name = name
        self._database = ""
        self._pace = Pace(here.settings.slow_member_s)
        # Its share of what is made for single readers.
        self._made: Held | None = None

    async def enter(self, stack: contextlib.AsyncExitStack) -> Follower:
        """Raises NoSuchDocument, DocumentDeleted, and as `follow` does."""
        self._database = await database_here(self._here)
        follower = await stack.enter_async_context(follow(self._here.rooms, self._granted, self._name, dialect=DIALECT))
        self._pace = follower.pace
        await follower.must_exist()
        await catch_up(self._here, follower)
        return follower

    async def makes(self, whole: Whole, stack: contextlib.AsyncExitStack) -> None:
        """Wait for the memory of an answer that is for this reader alone. Raises ServerFull."""
        made = self._here.rooms.made
        self._made = await stack.enter_async_context(made.hold(len(whole.update), self._pace))

    def version(self, epoch: int, seq: int) -> Version:
        return Version(epoch, seq, self._database)

    def answer(self, body: bytes, media_type: str, version: Version, stack: contextlib.AsyncExitStack) -> Response:
        """Hands the answer over in pieces; what is in `stack` is held until the last one has left."""
        content_type = media_type if media_type in (UPDATE_TYPE, JSON_TYPE) else f"{media_type}; charset=utf-8"
        headers = _HEADERS | {"ETag": version.etag, "Content-Type": content_type}
        if self._made is not None:
            self._made.resize(len(body))
        closing = stack.pop_all()
        return PacedBody(self._here, self._granted, self._name, [body], len(body), closing, headers, self._pace)
