"""Writing documents: an update, edits in JSON, and creating one with content, exactly once.

Whatever comes ends as one update that the document's room takes like an editor's: judged, logged under the name of who
sent it, relayed. Conditions and keys become a guard, judged in the append's own transaction. The answer comes behind
the COMMIT. A repeated key is answered as the first time, so such answers hold nothing that later updates would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.errors import (
    ConditionFailed,
    DocumentDeleted,
    EpochChanged,
    InvalidRequest,
    NoSuchDocument,
    WrongState,
)
from ydoc_store.http.bodies import read_body
from ydoc_store.http.document_keys import Key, key_of
from ydoc_store.http.document_reading import (
    CONTENT_TYPES,
    DIALECT,
    as_json,
    catch_up,
    in_a_tree,
    root_and_form,
    version_of,
)
from ydoc_store.http.document_requests import (
    JSON_TYPE,
    PREFIX,
    UPDATE_TYPE,
    Conditions,
    Version,
    accepted,
    conditions_of,
    only,
    require_type,
)
from ydoc_store.http.incarnations import database_here
from ydoc_store.rooms.contribution import Contributed, contribute
from ydoc_store.rooms.follower import follow
from ydoc_store.storage.guards import Guard, Producer
from ydoc_store.storage.listing import find_listed
from ydoc_store.storage.requests import was_done
from ydoc_store.yjs.answers import WORK_A_BYTE, copied, drafted, edited
from ydoc_store.yjs.merge import EMPTY_UPDATE

if TYPE_CHECKING:
    from ydoc_store.auth.access import Granted
    from ydoc_store.http.here import Here
    from ydoc_store.yjs.drafting import As

_BODY_TYPES: Final[dict[As, tuple[str, ...]]] = {
    as_: (media_type, "text/xml") if as_ == "xml" else (media_type,) for as_, media_type in CONTENT_TYPES.items()
}


async def append(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a POST of an update, which begins the document where there is none, as an editor's does."""
    only(request)
    accepted(request, (JSON_TYPE,))
    require_type(request, UPDATE_TYPE, default=UPDATE_TYPE)
    wanted = await _Wanted.of(here, request, granted, name)
    update = await wanted.read("append")
    if not update:
        raise InvalidRequest("the body is empty: it is a Yjs update, v1")
    return wanted.answer(await wanted.store(update))


async def edit(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a PATCH: edits in JSON (`yjs.edits`), all or none, made in the document as it is now."""
    only(request)
    accepted(request, (JSON_TYPE,))
    require_type(request, JSON_TYPE)
    wanted = await _Wanted.of(here, request, granted, name)
    body = await wanted.read("edit")
    repeated = await wanted.find_repeated()
    if repeated is not None:
        # The edits were made in what was there then, and may not fit what is there now.
        return wanted.answer(repeated)
    async with follow(here.rooms, granted, name, dialect=DIALECT) as follower:
        await catch_up(here, follower)
        async with follower.whole() as whole:
            structs_max = here.settings.update_structs_max
            try:
                update = await in_a_tree(here, whole.update, edited, body, structs_max)
            except WrongState:
                # Race: of two calls with one key that are under way at once, the other one's edits may be in there.
                repeated = await wanted.find_repeated()
                if repeated is None:
                    raise
                return wanted.answer(repeated)
            epoch, history = (follower.room.epoch, follower.room.marker) if follower.exists else (None, None)
    # Race: renamed meanwhile, the document is not the one of this name any more, and the edits mean nothing in another.
    return wanted.answer(await wanted.store(update, epoch, history))


async def create(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a PUT: a document that begins with this update, an empty one without a body. Raises ConditionFailed where
    there is one, DocumentDeleted where there was."""
    only(request)
    accepted(request, (JSON_TYPE,))
    require_type(request, UPDATE_TYPE, default=UPDATE_TYPE)
    wanted = await _Wanted.of(here, request, granted, name, creates=True)
    body = await wanted.read("create")
    # What was read from another document carries that one's epoch.
    update = await here.rooms.heavy.run(len(body), copied, body or EMPTY_UPDATE)
    return wanted.answer(await wanted.store(update))


async def create_with_content(here: Here, request: Request, granted: Granted, name: str) -> Response:
    """Answer a PUT of content: a document that begins with it. Raises as `create`, InvalidRequest with the place."""
    only(request, "root", "as")
    accepted(request, (JSON_TYPE,))
    root, as_ = root_and_form(request)
    require_type(request, *_BODY_TYPES[as_])
    wanted = await _Wanted.of(here, request, granted, name, creates=True)
    body = await wanted.read("create", as_, root)
    structs_max = here.settings.update_structs_max
    update = await here.rooms.heavy.aside.run(len(body) * WORK_A_BYTE, drafted, body, as_, root, structs_max)
    return wanted.answer(await wanted.store(update))


def location_of(request: Request, name: str) -> str:
    """The path of a document, under whatever root this is mounted."""
    root: str = request.scope.get("root_path", "")
    return f"{root}{PREFIX}{quote(name, safe='')}"


async def refuse_empty_one(here: Here, tenant: str, name: str) -> None:
    """Raises ConditionFailed for a document that was begun empty: nothing was ever accepted for it, as a guard sees it,
    and yet it is there."""
    found = await find_listed(here.database, tenant, name)
    if found is not None and found.head == 0 and found.deleted_at is None:
        raise ConditionFailed(0)


class _Wanted:
    """One write, under its conditions. `creates` is for what only begins documents."""

    def __init__(
        self,
        here: Here,
        request: Request,
        granted: Granted,
        name: str,
        conditions: Conditions,
        key: Key | None,
        *,
        creates: bool,
    ):
        self._here = here
        self._request = request
        self._granted = granted
        self._name = name
        self._conditions = conditions
        self._key = key
        # Told by the body, and so not known before that is read.
        self._producer: Producer | None = None
        self._creates = creates
        self._database = ""

    @classmethod
    async def of(cls, here: Here, request: Request, granted: Granted, name: str, *, creates: bool = False) -> _Wanted:
        """Raises InvalidRequest for conditions that a write cannot be put under."""
        conditions = conditions_of(request)
        if creates and (conditions.match is not None or conditions.is_any or conditions.none_match is not None):
            raise InvalidRequest("a PUT creates: its one condition is If-None-Match: *")
        if conditions.match is not None and len(conditions.match) > 1:
            raise InvalidRequest("a write is put under one ETag")
        wanted = cls(here, request, granted, name, conditions, key_of(request, granted.actor), creates=creates)
        wanted._database = await database_here(here)
        return wanted

    async def read(self, *what: str) -> bytes:
        """The request's body; `what` tells with it what is asked, should its key come again. Raises as `read_body`."""
        body = await read_body(self._here, self._request, self._here.settings.update_bytes_max)
        if self._key is not None:
            self._producer = self._key.of(*what, body)
        return body

    async def store(self, update: bytes, epoch: int | None = None, history: int | None = None) -> Contributed:
        """`epoch` is the one that the update was made for, `history` its marker. Raises ConditionFailed, and
        as `contribute`."""
        conditions = self._conditions
        head_is: int | None = None
        is_absent = self._creates or conditions.is_absent
        if is_absent and (conditions.is_any or conditions.match is not None):
            # No document is there and is not there.
            raise ConditionFailed(await self._head())
        if is_absent:
            await refuse_empty_one(self._here, self._granted.tenant, self._name)
            head_is = 0
        elif conditions.match is not None:
            asked = conditions.match[0]
            if asked is None or asked.database != self._database:
                raise ConditionFailed(await self._head())
            epoch, head_is = asked.epoch, asked.seq
        if conditions.none_match is not None:
            await self._refuse_match()
        guard = Guard(self._producer, head_is, None if is_absent else epoch)
        must_exist = conditions.is_any or conditions.match is not None
        try:
            return await contribute(
                self._here.rooms,
                self._granted,
                self._name,
                update,
                dialect=DIALECT,
                guard=None if guard == Guard() else guard,
                creates=not must_exist,
                history=history,
            )
        except DocumentDeleted:
            repeated = await self.find_repeated()
            if repeated is None:
                raise
            return repeated
        except (NoSuchDocument, EpochChanged):
            if not must_exist:
                raise
            # What the condition names is not there (any more): that is what the one who set it asked about.
            raise ConditionFailed(await self._head()) from None

    async def find_repeated(self) -> Contributed | None:
        """What is known of this write where its key says that it was stored before. Raises KeyReused."""
        if self._producer is None:
            return None
        found = await find_listed(self._here.database, self._granted.tenant, self._name)
        if found is None or not await was_done(self._here.database, found.id, self._producer):
            return None
        return Contributed(found.id, found.epoch, 0, found.head, is_new=False, is_duplicate=True)

    async def _refuse_match(self) -> None:
        # A look is enough: a version that is not that of now never comes again.
        found = await find_listed(self._here.database, self._granted.tenant, self._name)
        if found is not None and version_of(found, self._database) in (self._conditions.none_match or ()):
            raise ConditionFailed(found.head)

    async def _head(self) -> int:
        found = await find_listed(self._here.database, self._granted.tenant, self._name)
        return 0 if found is None else found.head

    def answer(self, stored: Contributed) -> Response:
        """With a key, only what a repeat can tell too: a document that was begun is at seq 1 for both.

        Raises NoSuchDocument where nothing was to be stored, in a document that is not there.
        """
        if not stored.document_id:
            raise NoSuchDocument("this update holds nothing, and so it begins no document")
        version = Version(stored.epoch, 1 if self._creates else stored.seq, self._database)
        told: dict[str, object] = {"name": self._name, "epoch": stored.epoch}
        headers = {}
        if self._creates or self._producer is None:
            told |= {"seq": version.seq}
            headers["ETag"] = version.etag
        if self._producer is None and not self._creates:
            told |= {"is_new": stored.is_new}
        is_created = self._creates or (self._producer is None and stored.created)
        if is_created:
            headers["Location"] = location_of(self._request, self._name)
        return as_json(told, 201 if is_created else 200, headers)
