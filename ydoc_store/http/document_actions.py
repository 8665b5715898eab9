"""What is done with a whole document: copied, renamed, deleted, undeleted.

Copying reads one document and writes another; the others change the document itself, for everyone, and need admin
access to it (renaming also write access to the new name, as beginning a document there would). Open rooms close: at
once here, by a hint or by their poll on other nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Access
from ydoc_store.errors import (
    ConditionFailed,
    DocumentDeleted,
    DocumentRenamed,
    InvalidRequest,
    NoSuchDocument,
    StorageUnavailable,
    TooLarge,
    WrongState,
)
from ydoc_store.http.bodies import read_body
from ydoc_store.http.document_keys import keyed
from ydoc_store.http.document_reading import DIALECT, as_json, catch_up, current
from ydoc_store.http.document_requests import (
    JSON_TYPE,
    Conditions,
    Version,
    accepted,
    conditions_of,
    only,
    require_type,
)
from ydoc_store.http.document_writing import location_of, refuse_empty_one
from ydoc_store.http.door import admit_too
from ydoc_store.http.incarnations import database_here
from ydoc_store.names import parse_name
from ydoc_store.rooms.contribution import contribute
from ydoc_store.rooms.follower import follow
from ydoc_store.rooms.member import READ_ONLY
from ydoc_store.rooms.watch import RENAMED
from ydoc_store.storage.beginnings import create_with_content
from ydoc_store.storage.epochs import delete_document, undelete_document
from ydoc_store.storage.guards import Guard, Producer
from ydoc_store.storage.listing import find_listed
from ydoc_store.storage.renaming import rename_document
from ydoc_store.storage.requests import was_done
from ydoc_store.yjs.answers import copied, json_of

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.http.here import Here

BODY_BYTES_MAX: Final = 16 * 1024
"""A name and its key."""


async def copy(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a POST: a new document begins with this one's content, as one update in the log. Raises ConditionFailed
    where one of the new name is there."""
    _refuse_conditions(request, has_new_name=True)
    new_name = await _new_name(here, request)
    writer = await _admit_same(here, request, granted, new_name)
    producer = keyed(request, writer.actor, "copy", name)
    found = await find_listed(here.database, granted.tenant, new_name)
    if found is not None and await was_done(here.database, found.id, producer):
        # It was copied by this call before; what it was copied from may have gone since.
        return await _answer_copied(here, request, new_name, found.epoch)
    async with follow(here.rooms, granted, name, dialect=DIALECT) as follower:
        await follower.must_exist()
        await catch_up(here, follower)
        async with follower.whole() as whole:
            update = await here.rooms.heavy.run(len(whole.update), copied, whole.update)
    await refuse_empty_one(here, granted.tenant, new_name)
    try:
        stored = await contribute(
            here.rooms, writer, new_name, update, dialect=DIALECT, guard=Guard(producer, head_is=0)
        )
        epoch = stored.epoch
    except TooLarge:
        epoch = await _copy_large(here, writer, new_name, update, producer)
    return await _answer_copied(here, request, new_name, epoch)


async def _answer_copied(here: Here, request: Request, name: str, epoch: int) -> Response:
    version = Version(epoch, 1, await database_here(here))
    told = {"name": name, "epoch": epoch, "seq": 1}
    return as_json(told, 201, {"ETag": version.etag, "Location": location_of(request, name)})


async def _copy_large(here: Here, granted: Granted, name: str, update: bytes, producer: Producer | None) -> int:
    """What is more than one update may bring came in several, and is one all the same: its document was judged."""
    if len(update) > here.settings.document_bytes_max:
        raise TooLarge("this document is larger than a document may be (YDOC_DOCUMENT_BYTES_MAX)")
    keep_deleted = here.settings.keep_deleted
    is_new = await create_with_content(
        here.database, granted.tenant, name, update, granted.actor, keep_deleted=keep_deleted, producer=producer
    )
    found = await find_listed(here.database, granted.tenant, name)
    if found is not None and not is_new:
        # Race: the same call may have come twice at once.
        is_new = await was_done(here.database, found.id, producer)
    if found is None or not is_new:
        raise ConditionFailed(0 if found is None else found.head)
    room = here.rooms.rooms.get((granted.tenant, name))
    if room is not None:
        await here.rooms.watch.read_missing(room)
    return found.epoch


async def rename(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a POST: the document, with its epochs and its history, has another name. Raises WrongState where that is
    not free. With a key the answer leaves out where the document is, which a repeat could not tell."""
    _refuse_conditions(request, has_new_name=True)
    new_name = await _new_name(here, request)
    await _admit_same(here, request, granted, new_name)
    if new_name == name:
        raise WrongState("that is its name")
    _require_writable(here)
    producer = keyed(request, granted.actor, "rename", name, new_name)
    renamed = await rename_document(
        here.database, granted.tenant, name, new_name, actor=granted.actor, request=producer
    )
    room = here.rooms.rooms.get((granted.tenant, name))
    if room is not None and renamed.changed:
        room.discard(DocumentRenamed(RENAMED))
    answer = await _answer_placed(here, new_name, renamed.epoch, None if producer else renamed.head)
    answer.headers["Location"] = location_of(request, new_name)
    return answer


async def delete(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a DELETE: a tombstone, under which content stays for an undelete until it is purged. Repeating it changes
    nothing. Raises NoSuchDocument, ConditionFailed."""
    only(request)
    conditions = conditions_of(request)
    if conditions.none_match is not None or conditions.is_absent:
        raise InvalidRequest("a DELETE is put under If-Match alone")
    _require_writable(here)
    expected: tuple[int, int] | None = None
    if conditions.match is not None:
        asked = conditions.match[0] if len(conditions.match) == 1 else None
        if asked is None or asked.database != await database_here(here):
            raise ConditionFailed((await current(here, granted, name)).seq)
        expected = asked.epoch, asked.seq
    producer = keyed(request, granted.actor, "delete")
    try:
        found = await delete_document(
            here.database, granted.tenant, name, expected=expected, actor=granted.actor, request=producer
        )
    except NoSuchDocument:
        if conditions.is_any or expected is not None:
            raise ConditionFailed(0) from None
        raise
    room = here.rooms.rooms.get((granted.tenant, name))
    if room is not None and found.deleted_at is not None:
        room.discard(DocumentDeleted("this document was deleted"))
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def undelete(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a POST: the tombstone is taken away. Raises WrongState where there is none, or nothing is left. With a key
    the answer leaves out where the document is, which a repeat could not tell."""
    only(request)
    _refuse_conditions(request)
    accepted(request, (JSON_TYPE,))
    _require_writable(here)
    producer = keyed(request, granted.actor, "undelete")
    found = await undelete_document(here.database, granted.tenant, name, actor=granted.actor, request=producer)
    return await _answer_placed(here, name, found.epoch, None if producer else found.head)


async def _answer_placed(here: Here, name: str, epoch: int, seq: int | None) -> Response:
    told = {"name": name, "epoch": epoch}
    if seq is None:
        return as_json(told)
    return as_json(told | {"seq": seq}, headers={"ETag": Version(epoch, seq, await database_here(here)).etag})


async def _new_name(here: Here, request: Request) -> str:
    only(request)
    accepted(request, (JSON_TYPE,))
    require_type(request, JSON_TYPE)
    body: Any = json_of(await read_body(here, request, BODY_BYTES_MAX))
    if not isinstance(body, dict) or body.keys() != {"name"} or not isinstance(body["name"], str):
        raise InvalidRequest('the body is {"name": …}, the new name')
    return parse_name(body["name"])


async def _admit_same(here: Here, request: Request, granted: Granted, name: str) -> Granted:
    """Who asks, as a writer of this other name."""
    writer = await admit_too(here, request, name, Access.WRITE, dialect=DIALECT)
    if writer.tenant != granted.tenant:
        raise InvalidRequest("both names are of one tenant")
    return writer


def _refuse_conditions(request: Request, *, has_new_name: bool = False) -> None:
    """Raises InvalidRequest for a condition, which nobody would look at, unless a new name must be free in any case and
    that is all that it asks."""
    conditions = conditions_of(request)
    if conditions != Conditions(is_absent=conditions.is_absent and has_new_name):
        raise InvalidRequest("this is put under no condition" + (" but If-None-Match: *" if has_new_name else ""))


def _require_writable(here: Here) -> None:
    if here.settings.read_only:
        raise StorageUnavailable(READ_ONLY)
