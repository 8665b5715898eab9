"""A document's content for people: does it decode, is anything pending, what does it say.

Builds a native document, so it is for commands and checks, never for the hot path; bytes were walked before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pycrdt import Array, Doc, Map, Text, XmlFragment

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import walk


@dataclass(frozen=True, slots=True)
class Content:
    """What decoding showed. `has_pending`: structs or deletes wait for predecessors that never came."""

    has_pending: bool
    roots: tuple[str, ...]


def _decoded(update: bytes) -> Doc[Any]:
    document: Doc[Any] = Doc()
    try:
        document.apply_update(update)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as fault:
        raise InvalidUpdate(f"not an update that pycrdt can read: {fault}") from fault
    return document


def decode_check(update: bytes) -> Content:
    """Decode the update as a document. Raises InvalidUpdate where that fails."""
    document = _decoded(update)
    applied = decode_state_vector(document.get_state(), clients_max=2**31)
    walked = walk(update, UNLIMITED)
    pending = any(applied.get(client, 0) < end for client, _, end in (*walked.structs, *walked.deletes))
    return Content(pending, tuple(document.keys()))


def to_json(update: bytes) -> dict[str, Any]:
    """The root types by name. An update does not tell their kinds: the first kind that shows content is taken."""
    document = _decoded(update)
    return {name: _value(document, name) for name in document.keys()}


def _value(document: Doc[Any], name: str) -> Any:
    for kind in (Text, Array, Map, XmlFragment):
        root = document.get(name, type=kind)
        value = str(root) if kind in (Text, XmlFragment) else root.to_py()
        if value:
            return value
    return ""
