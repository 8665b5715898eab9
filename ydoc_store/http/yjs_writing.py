"""Writing to a document in the Durable Streams Yjs protocol: create it, append to it, delete it.

An update that comes this way is one like any other: judged, committed and relayed by the room, and sent back to its
writer too, whose provider waits for that. What makes a stock provider lose edits or send without an end is answered
so that it does neither; each such place says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.auth.access import Access, Granted
from ydoc_store.errors import (
    CommitUnknown,
    DocumentDeleted,
    EpochChanged,
    Forbidden,
    InvalidRequest,
    NoSuchDocument,
    ProducerGap,
    ProducerStale,
    RoomDiscarded,
    StorageBusy,
    StorageUnavailable,
    Unauthenticated,
    WrongState,
)
from ydoc_store.http.bodies import read_body
from ydoc_store.http.door import admit, require
from ydoc_store.http.here import Here
from ydoc_store.http.protocol_headers import read_closed, read_headers, read_producer, read_text
from ydoc_store.http.tokens import Token
from ydoc_store.http.yjs_reading import CONTENT_TYPE, DIALECT
from ydoc_store.http.yjs_requests import Refused, read_frames
from ydoc_store.rooms.beginning import open_granted
from ydoc_store.rooms.contribution import Contributed, contribute
from ydoc_store.rooms.member import READ_ONLY
from ydoc_store.rooms.room import Room
from ydoc_store.storage.beginnings import create_empty
from ydoc_store.storage.epochs import delete_document, recreate_document
from ydoc_store.storage.guards import Guard, Producer
from ydoc_store.storage.producers import find_replaced_producer
from ydoc_store.storage.streams import media_type_of
from ydoc_store.yjs.join import join
from ydoc_store.yjs.walker import UpdateLimits, walk

FRAMES_MAX: Final = 10_000
"""In one body; the stock provider puts what is typed in 5 ms into one."""
FRAMES_OVERHEAD_BYTES: Final = 64 * 1024
"""What the lengths of so many frames take beside an update of the largest size."""
FRAME_WORK_BYTES: Final = 64
"""Walking and joining an update, however small, takes as long as so many bytes of a large one."""
TRIED_AGAIN_S: Final = 5.0
"""A lost connection or a held row is over in that time; the stock provider forgets an edit that is answered 503."""
TRIED_AGAIN_INTERVAL_S: Final = 0.1


async def create(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a PUT: the document exists afterwards, and begins anew where it was deleted.

    Raises Forbidden for a reader where there is none; DocumentDeleted where somebody else deletes it meanwhile.
    """
    if await read_body(here, request, FRAMES_OVERHEAD_BYTES):
        raise InvalidRequest("a document is created empty: send its updates with POST")
    if "Stream-TTL" in request.headers or "Stream-Expires-At" in request.headers:
        raise InvalidRequest("a document does not expire")
    if "Stream-Forked-From" in request.headers:
        raise Refused(501, "NOT_IMPLEMENTED", "documents are not forked here")
    is_new = False
    try:
        room = await open_granted(here.rooms, granted, name)
        if room.document_id is None:
            # Another node may have made it a moment ago.
            await here.rooms.watch.read_missing(room)
        if room.document_id is None:
            _require_writable(here, granted)
            keep_deleted = here.settings.keep_deleted
            is_new = await create_empty(
                here.database, granted.tenant, name, keep_deleted=keep_deleted, actor=granted.actor
            )
            await here.rooms.watch.read_missing(room)
    except DocumentDeleted:
        _require_writable(here, granted)
        try:
            await recreate_document(here.database, granted.tenant, name, actor=granted.actor)
            is_new = True
        except WrongState:
            # Somebody else has begun it anew this moment.
            pass
        room = await here.rooms.open(granted.tenant, name)
    headers = {
        "Stream-Next-Offset": str(Token(room.epoch, room.head)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if is_new:
        headers["Location"] = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    return Response(status_code=201 if is_new else 200, headers=headers, media_type=CONTENT_TYPE)


def _require_writable(here: Here, granted: Granted) -> None:
    require(granted, Access.WRITE)
    if here.settings.read_only:
        raise StorageUnavailable(READ_ONLY)


async def append(here: Here, request: Request, name: str, tenant: str) -> Response:
    """Answer a POST: the frames of its body are one update in the log. The answer comes behind the COMMIT.

    Raises NoSuchDocument before a PUT, whatever `contribute` and the guard of its producer refuse.
    """
    headers = read_headers(request.scope["headers"])
    producer = read_producer(headers)
    granted = await _admit_writer(here, request, name, tenant, has_producer=producer is not None)
    if media_type_of(read_text(headers, b"content-type") or CONTENT_TYPE) != CONTENT_TYPE:
        raise InvalidRequest(f"updates are {CONTENT_TYPE}")
    if b"stream-seq" in headers:
        raise InvalidRequest("a document knows no Stream-Seq: edits merge in any order, and producers number theirs")
    body = await read_body(here, request, here.settings.update_bytes_max + FRAMES_OVERHEAD_BYTES)
    if not body and read_closed(headers):
        # The stock provider says so whenever it disconnects. The document stays open to everyone else, and to it.
        room = await open_granted(here.rooms, granted, name)
        if room.document_id is None:
            raise NoSuchDocument(f"no document is named {name!r}")
        return _appended(204, room.epoch, room.head, producer)
    update = await _update_of(here, body)
    if producer is not None and producer.seq == 0:
        await _judge_history(here, granted, name, producer)
    try:
        stored = await _contribute(here, granted, name, update, producer)
    except ProducerGap as error:
        if producer is not None and error.expected == 0:
            await _judge_history(here, granted, name, producer)
        raise
    if producer is None:
        return _appended(204, stored.epoch, stored.seq, None)
    if not stored.is_duplicate:
        return _appended(200, stored.epoch, stored.seq, producer)
    if await _holds_news(here, granted, name, update):
        # After a disconnect the stock provider begins again with the same id, epoch and seq 0. Answered as what it
        # looks like, a repetition, its edit would be lost; told that its epoch is over it takes the next and repeats.
        raise ProducerStale(producer.epoch)
    return _appended(204, stored.epoch, stored.seq, producer)


async def delete(here: Here, granted: Granted, name: str) -> Response:
    """Answer a DELETE: a tombstone, until a PUT begins the document anew. Raises NoSuchDocument."""
    if here.settings.read_only:
        raise StorageUnavailable(READ_ONLY)
    tombstone = await delete_document(here.database, granted.tenant, name, actor=granted.actor)
    if not tombstone.changed:
        raise NoSuchDocument("this document was deleted before")
    here.rooms.attendance.named.delete_all_of(granted.tenant, name)
    room = here.rooms.rooms.get((granted.tenant, name))
    if room is not None:
        # Other nodes hear of it by a hint; here whoever reads next is told so at once.
        room.discard(DocumentDeleted("this document was deleted"))
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def _admit_writer(here: Here, request: Request, name: str, tenant: str, *, has_producer: bool) -> Granted:
    try:
        granted = await admit(here, request, name, Access.WRITE, dialect=DIALECT)
        if granted.tenant != tenant:
            raise Forbidden("this service is another tenant's")
    except Forbidden as error:
        # To a producer 403 means that its epoch is over: the stock one takes the next and repeats, for ever.
        raise (Unauthenticated(str(error)) if has_producer else error) from None
    return granted


async def _update_of(here: Here, body: bytes) -> bytes:
    updates = read_frames(body, "an update", FRAMES_MAX)
    if len(updates) == 1:
        return updates[0]
    size = len(body) + FRAME_WORK_BYTES * len(updates)
    return await here.rooms.heavy.run(size, joined_within, updates, here.rooms.limits.update)


def joined_within(updates: Sequence[bytes], limits: UpdateLimits) -> bytes:
    """One update that equals all of these, each walked within the limits. Raises InvalidUpdate, TooLarge."""
    for update in updates:
        walk(update, limits)
    return join(updates)


async def _contribute(here: Here, granted: Granted, name: str, update: bytes, producer: Producer | None) -> Contributed:
    """`contribute`, again for a while where the trouble passes: what is repeated is stored once, or changes nothing."""
    guard = None if producer is None else Guard(producer=producer)
    ends_at_s = time.monotonic() + TRIED_AGAIN_S
    while True:
        try:
            return await contribute(here.rooms, granted, name, update, dialect=DIALECT, guard=guard, creates=False)
        except (RoomDiscarded, CommitUnknown, StorageBusy, StorageUnavailable):
            if here.settings.read_only or here.stopping.is_set() or time.monotonic() >= ends_at_s:
                raise
            await asyncio.sleep(TRIED_AGAIN_INTERVAL_S)


async def _judge_history(here: Here, granted: Granted, name: str, producer: Producer) -> None:
    """Raises EpochChanged for a producer that goes on where it was in a history that is over: what it has is that one.

    A stock provider is called after its copy of the document, which it keeps. Told of a gap it would repeat itself for
    ever; a backend that begins anew with the document says so with a new epoch.
    """
    room = await open_granted(here.rooms, granted, name)
    if room.epoch > 1:
        epoch = await find_replaced_producer(here.database, granted.tenant, name, producer.id)
        if epoch is not None and producer.epoch <= epoch:
            raise EpochChanged("this document was begun anew: reload it before editing on")


async def _holds_news(here: Here, granted: Granted, name: str, update: bytes) -> bool:
    """Whether an update that a producer is said to have sent before is not in the log after all."""
    room: Room = await open_granted(here.rooms, granted, name)
    await here.rooms.watch.read_missing(room)
    walked = await here.rooms.heavy.run(len(update), walk, update, here.rooms.limits.update)
    return not room.knowledge.covers(walked)


def _appended(status: int, epoch: int, seq: int, producer: Producer | None) -> Response:
    headers = {"Stream-Next-Offset": str(Token(epoch, seq)), "Cache-Control": "no-store"}
    if producer is not None:
        headers |= {"Producer-Epoch": str(producer.epoch), "Producer-Seq": str(producer.seq)}
    return Response(status_code=status, headers=headers)
