"""Documents that move here: each is fetched from its source, what is new in it appended, and all of it read back.

One after the other, so that a document that cannot come stops none behind it. What is here already is not stored
again, therefore an import that broke off is simply repeated, and so is one after the switch, for the last edits.
Which stores can be read is not known here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ydoc_store.commands.importing import append, read_updates
from ydoc_store.commands.transfer import whole_update
from ydoc_store.errors import (
    ClientFault,
    CorruptDocument,
    DocumentDeleted,
    InvalidName,
    InvalidUpdate,
    RoomDiscarded,
    StorageBusy,
    WrongState,
    YdocError,
)
from ydoc_store.names import parse_name
from ydoc_store.relay import RelayService
from ydoc_store.relay.service import update_limits
from ydoc_store.settings import Settings
from ydoc_store.sources.source import Found, Opened, Unreadable
from ydoc_store.storage.loader import Absent, load
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.join import join
from ydoc_store.yjs.markers import without_markers
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.news import news
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import UpdateLimits, walk

Result = Literal["imported", "would import", "unchanged", "empty", "skipped", "failed"]

# What one document is refused for, while the next may well come in. Anything else would repeat for all of them.
_OF_ONE_DOCUMENT = (ClientFault, CorruptDocument, StorageBusy, RoomDiscarded)


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one document. `bytes` are the source's, `new_bytes` what of it was not here yet.

    `verified` once all of it was read back: `equal` to the source's content, or `held` among more that was written
    here. `deletes_ahead` as in ImportReport.
    """

    source_name: str
    name: str
    result: Result
    bytes: int = 0
    new_bytes: int = 0
    exists: bool = False
    head: int | None = None
    verified: Literal["equal", "held"] | None = None
    reason: str | None = None
    deletes_ahead: int = 0
    entries: int = field(default=1, repr=False)

    @property
    def is_well(self) -> bool:
        return self.result not in ("skipped", "failed")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How documents are to come. `service` None only looks; `merges` joins documents that have nothing in common."""

    database: Database
    settings: Settings
    service: RelayService | None
    tenant: str
    renames: Mapping[str, str]
    merges: bool = False


async def move(source: Opened, wanted: Wanted) -> AsyncIterator[Moved]:
    """Every document of `source`, as it is done with. Raises SourceUnreadable and ServerFault: what came stays."""
    async for item in source.documents():
        if isinstance(item, Unreadable):
            moved = Moved(item.name, item.name, "failed", reason=item.reason)
        else:
            moved = await _move_one(item, wanted)
        yield replace(moved, entries=item.entries)


async def _move_one(found: Found, wanted: Wanted) -> Moved:
    moved = Moved(found.name, wanted.renames.get(found.name, found.name), "failed", bytes=sum(map(len, found.updates)))
    try:
        parse_name(moved.name)
    except InvalidName as error:
        return replace(moved, result="skipped", reason=f"{error}: --rename gives it another one")
    try:
        return await _append_news(found, moved, wanted)
    except DocumentDeleted:
        reason = "it was deleted here: `ydoc-store documents undelete` or `recreate` takes that back"
        return replace(moved, reason=reason)
    except _OF_ONE_DOCUMENT as error:
        return replace(moved, reason=str(error))


async def _append_news(found: Found, moved: Moved, wanted: Wanted) -> Moved:
    # In threads, so that the lanes to our database are served while large documents are walked.
    source = await asyncio.to_thread(_whole, found.updates)
    if source == EMPTY_UPDATE:
        return replace(moved, result="empty", reason="it holds nothing")
    stored, head = await _read(wanted, moved.name)
    moved = replace(moved, exists=stored is not None, head=head)
    new = await asyncio.to_thread(_news, source, stored)
    if new == EMPTY_UPDATE and stored is not None:
        return await _verified(replace(moved, result="unchanged"), source, stored)
    if stored is not None and not wanted.merges and _have_nothing_in_common(source, stored):
        raise WrongState(
            "another document of this name is here, which shares no edit with it: --rename gives it another name, "
            "--merge puts both contents into one document"
        )
    moved = replace(moved, new_bytes=len(new))
    limits = update_limits(wanted.settings)
    updates = await asyncio.to_thread(read_updates, new, "update", limits)
    if wanted.service is None:
        return replace(moved, result="would import")
    report = await append(wanted.service, wanted.tenant, moved.name, updates, lambda _bytes: None)
    stored, head = await _read(wanted, moved.name)
    moved = replace(moved, result="imported", head=head, deletes_ahead=report.deletes_ahead)
    return await _verified(moved, source, stored or EMPTY_UPDATE)


async def _read(wanted: Wanted, name: str) -> tuple[bytes | None, int | None]:
    stored = await load(wanted.database, wanted.tenant, name)
    if isinstance(stored, Absent):
        return None, None
    return await asyncio.to_thread(whole_update, stored), stored.head


async def _verified(moved: Moved, source: bytes, stored: bytes) -> Moved:
    try:
        return replace(moved, verified=await asyncio.to_thread(compare, source, stored))
    except Differs as error:
        return replace(moved, result="failed", reason=f"what is stored was read back, and {error}")


class Differs(YdocError):
    """What is stored is not what the source holds."""


def compare(source: bytes, stored: bytes) -> Literal["equal", "held"]:
    """Whether `stored` is the source's content, or holds it among more. Raises Differs, InvalidUpdate.

    Compared are state vector, everything behind gaps, delete set, and what both say as JSON, where pycrdt reads both.
    """
    ours, theirs = _knowledge(stored), _knowledge(source)
    if not ours.covers(walk(source, UNLIMITED)):
        raise Differs("it lacks some of the source's content")
    is_equal = ours == theirs
    # Of a unit in both, the first one's content counts: the source's.
    expected = source if is_equal else join([source, stored])
    try:
        says, said = to_json(expected), to_json(stored)
    except InvalidUpdate:
        # Types nested deeper than can be shown, or something that pycrdt cannot read and Yjs can: the above holds.
        says = said = {}
    if says != said and _without_pairs(says) != _without_pairs(said):
        raise Differs("it says something else than the source")
    return "equal" if is_equal else "held"


# Where an edit parted a surrogate pair, pycrdt shows the pair or its torn halves, as the pieces happen to be cut; Yjs
# shows the same for both.
_PAIRS = re.compile("[\ufffd\U00010000-\U0010ffff]")


def _without_pairs(shown: dict[str, Any]) -> str:
    return _PAIRS.sub("", json.dumps(shown, ensure_ascii=False, sort_keys=True))


def _whole(updates: list[bytes]) -> bytes:
    """All of them as one update without markers. Raises InvalidUpdate, naming the update that is none."""
    kept = [update for update in updates if update]
    for number, update in enumerate(kept, start=1):
        try:
            walk(update, _ANY_SIZE)
        except YdocError as error:
            which = f"update {number} of {len(kept)}: " if len(kept) > 1 else ""
            raise InvalidUpdate(f"{which}{error}") from error
    whole = without_markers(join(kept))
    return EMPTY_UPDATE if walk(whole, UNLIMITED).is_empty else whole


# What an editor may not send at once is cut later; what no Yjs could read is refused.
_ANY_SIZE = UpdateLimits(update_bytes_max=2**62)


def _news(source: bytes, stored: bytes | None) -> bytes:
    return source if stored is None else news(source, _knowledge(stored))


def _have_nothing_in_common(source: bytes, stored: bytes) -> bool:
    ours = _knowledge(stored)
    return bool(ours.structs) and not ours.structs.keys() & _knowledge(source).structs.keys()


def _knowledge(update: bytes) -> Knowledge:
    knowledge = Knowledge()
    knowledge.add(walk(update, UNLIMITED))
    return knowledge
