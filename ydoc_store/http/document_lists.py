"""Many documents at once: listing them, and importing them.

A list shows what its reader may read and nothing else; where a page ends is told by an id, so that no cursor holds a
name. An import is judged item by item: each is one write as by itself, those of one document in their order, and its
answer tells what became of it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Access
from ydoc_store.errors import (
    CursorExpired,
    DocumentDeleted,
    Forbidden,
    InvalidRequest,
    NoSuchDocument,
    ServerFault,
    TooLarge,
    YdocError,
)
from ydoc_store.http.bodies import read_body
from ydoc_store.http.document_keys import parse_key
from ydoc_store.http.document_reading import DIALECT, as_json, version_of
from ydoc_store.http.document_requests import JSON_TYPE, Version, accepted, only, require_type, single
from ydoc_store.http.document_writing import refuse_empty_one
from ydoc_store.http.door import admit_to_list, admit_too
from ydoc_store.http.incarnations import database_here
from ydoc_store.logs import logger
from ydoc_store.names import parse_name
from ydoc_store.rooms.contribution import contribute
from ydoc_store.storage.guards import Guard
from ydoc_store.storage.listing import Listed, find_listed, find_name, list_page
from ydoc_store.storage.requests import was_done
from ydoc_store.yjs.answers import copied, json_of

if TYPE_CHECKING:
    from ydoc_store.auth.access import Reach
    from ydoc_store.http.here import Here

LINES_TYPE: Final = "application/x-ndjson"

PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100
LOOKED_THROUGH_MAX: Final = 10_000
"""Documents that one call looks at for the ones that its reader may see: some 50 ms. A page may be short for it."""
ITEMS_MAX: Final = 1_000
"""Documents in one import: a thousand commits at once, in groups, take under a second."""
BATCH_BYTES_MAX: Final = 64 * 2**20
"""Of one import's body; it is held while it is worked on. YDOC_UPDATE_BYTES_MAX is each update's own limit."""
AT_ONCE_MAX: Final = 32
"""Items of one import under way: enough to fill group commits, and few beside the editors' own updates."""

_CURSOR: Final = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{8})")

log = logger(__name__)


async def list_documents(here: Here, request: Request) -> Response:
    """Answer a GET: the next documents by name, as far as whoever asks may read them."""
    only(request, "prefix", "cursor", "limit", "deleted")
    accepted(request, (JSON_TYPE,))
    limit = _limit(single(request, "limit"))
    prefix = _prefix(single(request, "prefix"))
    deleted = single(request, "deleted")
    if deleted not in (None, "true", "false"):
        raise InvalidRequest('"deleted" is true or false')
    reach = await admit_to_list(here, request, dialect=DIALECT)
    after = await _after(here, reach.granted.tenant, single(request, "cursor"))
    found, last = await _page(here, reach, prefix, after, limit, deleted=deleted == "true")
    database = await database_here(here)
    return as_json(
        {
            "documents": [_shown(one, database) for one in found],
            "next_cursor": None if last is None else f"{last.id}-{_name_check(last.name, last.marker)}",
        }
    )


async def _page(
    here: Here, reach: Reach, prefix: str, after: str, limit: int, *, deleted: bool
) -> tuple[list[Listed], Listed | None]:
    """What is shown, and the document behind which the next page begins; None where this page is the last."""
    tenant = reach.granted.tenant
    if not (reach.prefix.startswith(prefix) or prefix.startswith(reach.prefix)):
        return [], None
    prefix = max(prefix, reach.prefix, key=len)
    found: list[Listed] = []
    looked_through = 0
    while looked_through < LOOKED_THROUGH_MAX:
        page = await list_page(here.database, tenant, after_name=after, prefix=prefix, limit=PAGE_MAX, deleted=deleted)
        for one in page:
            if reach.covers(one.name):
                found.append(one)
                if len(found) == limit:
                    return found, one
        looked_through += len(page)
        if len(page) < PAGE_MAX:
            return found, None
        after = page[-1].name
    return found, page[-1]


async def _after(here: Here, tenant: str, cursor: str | None) -> str:
    if cursor is None:
        return ""
    match = _CURSOR.fullmatch(cursor)
    found = await find_name(here.database, tenant, int(match[1])) if match is not None else None
    if match is None or found is None:
        raise InvalidRequest('"cursor" is none that a page ended with')
    if _name_check(*found) != match[2]:
        # Behind its new name, the next page would leave out all between the two.
        raise CursorExpired("the document with which that page ended has another name now: begin again")
    return found[0]


def _name_check(name: str, marker: int) -> str:
    """Tells whether a document still has its name, and tells the name to nobody who does not read it: they know no
    marker."""
    return hashlib.sha256(f"{marker} {name}".encode()).hexdigest()[:8]


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= PAGE_MAX):
        raise InvalidRequest(f'"limit" is a number from 1 to {PAGE_MAX:,}')
    return int(text)


def _prefix(text: str | None) -> str:
    if text is not None and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
        raise InvalidRequest('"prefix" is the beginning of a name')
    return text or ""


def _shown(one: Listed, database: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "epoch": one.epoch,
        "seq": one.head,
        "etag": version_of(one, database).etag,
        "size_bytes": one.size_bytes,
        "created_at": one.created_at,
        "changed_at": one.changed_at,
        "deleted_at": one.deleted_at,
    }


async def import_batch(here: Here, request: Request) -> Response:
    """Answer a POST of many documents: a JSON array, or JSON lines, of `{"name", "update", "key", "if_absent"}`.

    Every item has its answer, in order, in the form in which they came. Raises for a body that is none; nothing of it
    was stored then. An item is stored or not by itself, whatever becomes of others.
    """
    only(request)
    if "Idempotency-Key" in request.headers:
        raise InvalidRequest('each item of an import has a "key" of its own, and there is none for all of them')
    media_type = require_type(request, JSON_TYPE, LINES_TYPE)
    accepted(request, (media_type,))
    with contextlib.suppress(Forbidden, NoSuchDocument):
        # Nobody unknown sends 64 MiB; what somebody known may write is asked item by item.
        await admit_to_list(here, request, dialect=DIALECT)
    body = await read_body(here, request, BATCH_BYTES_MAX)
    items = await here.rooms.heavy.aside.run(len(body), items_of, body, media_type == LINES_TYPE)
    turns = asyncio.Semaphore(AT_ONCE_MAX)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_import_in_order(here, request, part, turns)) for part in _by_document(items)]
    by_place = {place: answer for task in tasks for place, answer in task.result()}
    answers = [by_place[place] for place in range(len(items))]
    if media_type == LINES_TYPE:
        lines = b"".join(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE) for answer in answers)
        return Response(lines, headers={"Cache-Control": "no-store"}, media_type=LINES_TYPE)
    return as_json(answers)


def items_of(body: bytes, is_lines: bool) -> list[Any]:
    """Raises InvalidRequest, TooLarge."""
    if is_lines:
        items = [json_of(line) for line in itertools.islice(_lines(body), ITEMS_MAX + 1)]
        if len(items) > ITEMS_MAX:
            raise TooLarge(f"more than {ITEMS_MAX:,} documents: so many come in one call at most")
        return items
    found = json_of(body)
    if not isinstance(found, list):
        raise InvalidRequest("the body is an array of documents, or one a line")
    if len(found) > ITEMS_MAX:
        raise TooLarge(f"{len(found):,} documents, at most {ITEMS_MAX:,} come in one call")
    return found


def _lines(body: bytes) -> Iterator[bytes]:
    """The lines that hold something, one by one: nothing but line feeds would make millions."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", at)
        end = len(body) if end < 0 else end
        if line := body[at:end].strip():
            yield line
        at = end + 1


Placed = tuple[int, Any]
"""An item of an import, or its answer, and at which place it stands."""


def _by_document(items: list[Any]) -> list[list[Placed]]:
    """The items of each document, in their order; what names none stands for itself."""
    parts: dict[str | int, list[Placed]] = {}
    for place, item in enumerate(items):
        parts.setdefault(_name_in(item) or place, []).append((place, item))
    return list(parts.values())


def _name_in(item: Any) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


async def _import_in_order(here: Here, request: Request, items: list[Placed], turns: asyncio.Semaphore) -> list[Placed]:
    answers: list[Placed] = []
    for place, item in items:
        async with turns:
            answers.append((place, {"name": _name_in(item)} | await _import_told(here, request, item)))
    return answers


async def _import_told(here: Here, request: Request, item: Any) -> dict[str, Any]:
    try:
        return await _import(here, request, item)
    except YdocError as error:
        return {"status": error.http_status, "code": error.code, "detail": str(error)}
    except Exception as error:
        log.error("an import failed", exc_info=error)
        return {"status": 500, "code": ServerFault.code, "detail": "the server's log has it"}


async def _import(here: Here, request: Request, item: Any) -> dict[str, Any]:
    name, update, key, is_absent = _parse(item)
    granted = await admit_too(here, request, name, Access.WRITE, dialect=DIALECT)
    # As a POST of the update, or a PUT, would have it.
    what = "create" if is_absent else "append"
    producer = None if key is None else parse_key(key, granted.actor).of(what, update)
    guard = Guard(producer, 0 if is_absent else None)
    if is_absent:
        await refuse_empty_one(here, granted.tenant, name)
        # What was read from another document carries that one's epoch.
        update = await here.rooms.heavy.run(len(update), copied, update)
    try:
        stored = await contribute(
            here.rooms, granted, name, update, dialect=DIALECT, guard=None if guard == Guard() else guard
        )
    except DocumentDeleted:
        found = await find_listed(here.database, granted.tenant, name)
        if found is None or not await was_done(here.database, found.id, producer):
            raise
        return {"status": 200, "epoch": found.epoch}
    if not stored.document_id:
        raise NoSuchDocument("this update holds nothing, and so it begins no document")
    answer: dict[str, Any] = {"status": 201 if stored.created else 200, "epoch": stored.epoch}
    if producer is None:
        answer |= {"seq": stored.seq, "is_new": stored.is_new}
        answer["etag"] = Version(stored.epoch, stored.seq, await database_here(here)).etag
    else:
        answer["status"] = 200
    return answer


def _parse(item: Any) -> tuple[str, bytes, str | None, bool]:
    if not isinstance(item, dict) or item.keys() - {"name", "update", "key", "if_absent"}:
        raise InvalidRequest('an item is {"name", "update", "key", "if_absent"}')
    name, encoded, key, is_absent = (item.get(field) for field in ("name", "update", "key", "if_absent"))
    if not isinstance(name, str) or not isinstance(encoded, str):
        raise InvalidRequest('"name" and "update" are strings')
    if not isinstance(key, str | None) or not isinstance(is_absent, bool | None):
        raise InvalidRequest('"key" is a string, "if_absent" true or false')
    try:
        update = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        update = b""
    if not update:
        raise InvalidRequest('"update" is a Yjs update in base64')
    return parse_name(name), update, key, bool(is_absent)
