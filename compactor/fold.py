"""The new snapshot from the old one and its tail: merged, folded, and verified before anything is deleted.

Pure: bytes in, values out; runs in the compactor's child process. The merge must hold every clock and every delete
that went in, or nothing is returned. The fold must pass the checker, and a second fold must change nothing; on any
doubt the merge is kept as it is, which is larger and just as right, and the doubt is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ydoc_store.yjs.checker import check_fold
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.join import join
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import walk

Way = Literal["fold", "join", "merge"]


FOLD_STRUCTS_MAX: Final = 1_500_000
"""A struct takes about 1 KiB and 16 µs while it is folded and checked: more would not fit the child's usual bound of
2 GiB. The merge needs a small part of that, so a document beyond it is still compacted, only not folded."""


class MergeLost(ValueError):
    """The merge does not hold everything that went into it: nothing may be deleted for it."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The content of a new snapshot, how they were made, and what they hold.

    `way` is `fold` (deleted content dropped), `join` (deleted content kept, as asked) or `merge` (the fold is in
    doubt, which says why). `state_vector` holds the contiguous prefix of each client, `delete_set` all deletes.
    """

    snapshot: bytes
    way: Way
    state_vector: bytes
    delete_set: bytes
    doubt: str | None


def fold_document(snapshot: bytes | None, tail: Sequence[bytes], keep_deleted: bool) -> Folded:
    """One update that equals the snapshot and all updates of the tail, whatever else ever arrives.

    Runs on the CPU for about 16 µs an update. Raises InvalidUpdate for bytes that cannot be read, MergeLost where
    the merge is not whole, MemoryError where not even the merge fits.
    """
    merged = join([*(() if snapshot is None else (snapshot,)), *tail])
    walked = walk(merged, UNLIMITED)
    known = Knowledge()
    known.add(walked)
    check_whole(known, snapshot, tail)
    folded, doubt = fold_or_doubt(merged, walked.struct_count, keep_deleted)
    known.add(walk(folded, UNLIMITED))  # what stood in deleted types, which no delete of the merge names
    way: Way = "merge" if doubt is not None else "join" if keep_deleted else "fold"
    return Folded(folded, way, known.encode_state_vector(), known.encode_delete_set(), doubt)


def check_whole(known: Knowledge, snapshot: bytes | None, tail: Sequence[bytes]) -> None:
    """Raises MergeLost unless everything that any input brings or deletes is `known`."""
    if snapshot is not None and not known.covers(walk(snapshot, UNLIMITED)):
        raise MergeLost("the merge lacks something of the snapshot")
    for index, update in enumerate(tail):
        if not known.covers(walk(update, UNLIMITED)):
            raise MergeLost(f"the merge lacks something of update {index + 1} of {len(tail)}")


def fold_or_doubt(merged: bytes, struct_count: int, keep_deleted: bool) -> tuple[bytes, str | None]:
    """The verified fold and None, or the merge itself and why the fold is not trusted."""
    if struct_count > FOLD_STRUCTS_MAX:
        return merged, f"{struct_count} structs are too many to fold, at most {FOLD_STRUCTS_MAX}"
    try:
        folded = fold(merged, keep_deleted=keep_deleted)
        check_fold(merged, folded, keep_deleted=keep_deleted)
        if fold(folded, keep_deleted=keep_deleted) != folded:
            return merged, "a second fold changes the first"
    except Exception as error:  # any trouble at all is a doubt, and the merge needs none of this
        return merged, f"{type(error).__name__}: {error}"
    return folded, None
